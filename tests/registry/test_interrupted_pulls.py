"""Pulls and pushes that break off, die, meet or are left: what is whole stays, what is not goes on or goes away."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest
from scripted_registry import Exchange, ScriptedRegistry, build, digest_of
from test_pull_and_push import layer_tar, messages, statuses
from test_registry_login import pull

from support.deadline import wait_until
from support.engine import Engine
from support.registry import Registry
from support.tared import Tared


def noise_tar(seed: int, size: int = 3 << 20) -> bytes:
    """A tar of bytes that don't compress, the same for the same seed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(f"noise{seed}")
        info.size = size
        archive.addfile(info, io.BytesIO(random.Random(seed).randbytes(size)))
    return out.getvalue()


def forget(engine: Engine, name: str) -> None:
    engine.api.request("DELETE", f"/images/{name}", query={"force": "1", "trash": "0"}, check=False)


class Drops:
    """Sends a blob only to its middle the first `times` times, then as asked."""

    def __init__(self, registry: ScriptedRegistry, digest: str, times: int = 1, ranges: bool = True) -> None:
        self.registry, self.digest, self.left, self.ranges = registry, digest, times, ranges
        registry.script[f"/blobs/{digest}"] = self.serve

    def serve(self, exchange: Exchange) -> None:
        if not self.ranges:
            del exchange.headers["Range"]
        if not self.left:
            return self.registry.serve(exchange)
        self.left -= 1
        data = self.registry.blobs[self.digest]
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(data)))
        exchange.end_headers()
        exchange.wfile.write(data[: len(data) // 2])
        exchange.close_connection = True


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_broken_download_goes_on(tare: Engine, scripted: ScriptedRegistry, ranges: bool) -> None:
    """The rest is asked for by a range; a registry without ranges is taken from the start."""
    built = build(noise_tar(1 if ranges else 11))
    scripted.put_image("x", "1", built)
    layer = built.manifest["layers"][0]["digest"]
    Drops(scripted, layer, ranges=ranges)
    assert pull(tare, f"{scripted.host}/x", "1")[1].startswith("Status: Downloaded newer image")
    asked = [one.headers.get("range") for one in scripted.asked(layer)]
    assert asked[0] is None and len(asked) == 2 and asked[1] == f"bytes={len(scripted.blobs[layer]) // 2}-"
    forget(tare, f"{scripted.host}/x:1")


def test_a_registry_with_hiccups(tare: Engine, scripted: ScriptedRegistry) -> None:
    """503 once: it is told that the pull tries again, and it does."""
    built = build(noise_tar(2, 1000))
    scripted.put_image("x", "1", built)
    layer = built.manifest["layers"][0]["digest"]
    left = [1]

    def hiccup(exchange: Exchange) -> None:
        if left:
            left.pop()
            return exchange.answer(503, b"busy")
        scripted.serve(exchange)

    scripted.script[f"/blobs/{layer}"] = hiccup
    said = statuses(messages(tare, "POST", "/images/create", fromImage=f"{scripted.host}/x", tag="1"))
    assert "Retrying in 1 second" in said and said[-1].startswith("Status: Downloaded newer image")
    forget(tare, f"{scripted.host}/x:1")


def test_two_pulls_share_the_work(tare: Engine, scripted: ScriptedRegistry) -> None:
    """Each layer is fetched once for both; one that leaves takes nothing from the other."""
    built = build(noise_tar(3), noise_tar(4))
    scripted.put_image("x", "1", built)
    scripted.put_image("y", "1", built)
    layers = [one["digest"] for one in built.manifest["layers"]]
    go = threading.Event()

    def gate(exchange: Exchange) -> None:
        data = scripted.blobs[layers[1]]
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(data)))
        exchange.end_headers()
        exchange.wfile.write(data[:100_000])
        go.wait(60)
        exchange.wfile.write(data[100_000:])

    scripted.script[f"/blobs/{layers[1]}"] = gate
    query = {"fromImage": f"{scripted.host}/x", "tag": "1"}
    with ThreadPoolExecutor(1) as pool:
        lines = tare.api.stream("POST", "/images/create", query=query)
        half = f'"id":"{layers[1][7:19]}"'.encode()
        assert any(b"Downloading" in line and half in line for line in lines)
        other = tare.api.stream("POST", "/images/create", query={**query, "fromImage": f"{scripted.host}/y"})
        assert any(b"Downloading" in line and half in line for line in other), "it has joined both"
        lines.close()
        rest = pool.submit(lambda: b"".join(other))
        go.set()
        assert b"Status: Downloaded newer image" in rest.result(60)
    assert [len(scripted.asked(layer)) for layer in layers] == [1, 1]
    forget(tare, f"{scripted.host}/y:1")


def test_collection_spares_what_is_being_pulled(tare: Engine, scripted: ScriptedRegistry) -> None:
    """A layer that is in the store, of an image that isn't yet, outlives prunes and removals of others."""
    built = build(noise_tar(5, 5000), noise_tar(6, 5000))
    scripted.put_image("x", "1", built)
    go = threading.Event()

    def gate(exchange: Exchange) -> None:
        go.wait(60)
        scripted.serve(exchange)

    scripted.script[f"/blobs/{built.manifest['layers'][1]['digest']}"] = gate
    first = built.manifest["layers"][0]["digest"].removeprefix("sha256:")[:12]
    lines = tare.api.stream("POST", "/images/create", query={"fromImage": f"{scripted.host}/x", "tag": "1"})
    for line in lines:
        if b"Pull complete" in line and first.encode() in line:
            break
    name = tare.unique("image")
    tare.import_image(name, layer_tar("other"))
    forget(tare, name)
    tare.api.request("POST", "/images/prune")
    go.set()
    assert b"Status: Downloaded newer image" in b"".join(lines)
    done = tare.api.request("POST", "/containers/create", {"Image": f"{scripted.host}/x:1", "Cmd": ["x"]})
    assert done.status == 201
    tare.clean()
    forget(tare, f"{scripted.host}/x:1")


KILLS = [
    "registry.download.piece@4",
    "registry.download.checked",
    "storage.layer.rename",
    "storage.layer.row",
    "storage.original.rename",
    "pull.layer.extracted",
    "pull.layers.held",
    "images.record.done",
]


def test_killed_pulls_leave_nothing_broken(daemon: Tared, scripted: ScriptedRegistry) -> None:
    """kill -9 at one step after the other: each pull takes up what the last one left; the end is whole and clean."""
    built = build(noise_tar(7))
    scripted.put_image("x", "1", built)
    name = f"{scripted.host}/x"
    layer = built.manifest["layers"][0]["digest"]
    for point in KILLS:
        daemon.start(env={"TARE_FAULT": f"{point}:kill"})
        assert daemon.engine.api.request("GET", f"/images/{name}:1/json").status == 404, point
        with pytest.raises((OSError, EOFError, ValueError, HTTPException)):
            raise AssertionError(f"{point} wasn't passed: {pull(daemon.engine, name, '1')}")
        assert daemon.wait_dead() == -9, point
    asked = [one.headers.get("range") for one in scripted.asked(layer)]
    assert asked[0] is None and all(asked[1:]), "what had come was thrown away"
    daemon.start(env={"TARE_FAULT": ""})
    engine = daemon.engine
    assert engine.api.request("GET", f"/images/{name}:1/json").status == 200
    assert pull(engine, name, "1") == (200, f"Status: Image is up to date for {name}:1")
    assert len(scripted.asked(layer)) == len(asked)
    created = engine.api.request("POST", "/containers/create", {"Image": f"{name}:1", "Cmd": ["x"]})
    assert created.status == 201
    Uploads(scripted)
    scripted.blobs.pop(layer)
    assert statuses(messages(engine, "POST", f"/images/{name}/push", tag="1"))[-1] == "aux"
    assert scripted.blobs[layer] == built.blobs[layer], "what came didn't go out as it came"
    engine.clean()
    forget(engine, f"{name}:1")
    assert not os.listdir(daemon.data_root / "registry" / "partial")
    assert not os.listdir(daemon.data_root / "layers" / "staging")
    wait_until(lambda: not os.listdir(daemon.data_root / "layers" / "layers"), "no layer is left")


PUSH_POINTS = ["registry.upload.finished", "push.blobs.sent", "push.manifest.sent"]


def test_killed_pushes_are_repeated(daemon: Tared, tmp_path: Path) -> None:
    """kill -9 at each step of a push: a tag in the registry is whole, and the push succeeds when repeated."""
    registry = Registry(tmp_path / "registry").start()
    try:
        for number, point in enumerate(PUSH_POINTS):
            name = registry.reference(f"x{number}")
            daemon.start(env={"TARE_FAULT": f"{point}:kill"})
            daemon.engine.import_image(f"{name}:1", layer_tar(point, 5000))
            with pytest.raises((OSError, EOFError, ValueError, HTTPException)):
                messages(daemon.engine, "POST", f"/images/{name}/push", tag="1")
                raise AssertionError(f"{point} wasn't passed")
            assert daemon.wait_dead() == -9
            present = registry.get(f"/v2/x{number}/manifests/1", "HEAD")[0] == 200
            assert present == (point == "push.manifest.sent")
            daemon.start(env={"TARE_FAULT": ""})
            said = statuses(messages(daemon.engine, "POST", f"/images/{name}/push", tag="1"))
            assert said[-1] == "aux", said
            assert not os.listdir(daemon.data_root / "registry" / "outgoing")
            for layer in registry.manifest(f"x{number}", "1")["layers"]:
                assert digest_of(registry.blob(f"x{number}", layer["digest"])) == layer["digest"]
            daemon.terminate()
    finally:
        registry.stop()


class Uploads:
    """Takes uploads; `breaks` says which PATCH gets only half of its body."""

    def __init__(self, registry: ScriptedRegistry, breaks: tuple[int, ...] = ()) -> None:
        self.registry = registry
        self.data = bytearray()
        self.breaks = breaks
        self.patches = 0
        registry.script["/blobs/uploads/"] = self.take
        registry.script["/manifests/"] = self.manifest

    def take(self, exchange: Exchange) -> None:
        here = f"/v2/x/blobs/uploads/1?state={self.patches}"
        body = exchange.body
        if exchange.command == "POST":
            self.data.clear()
            return exchange.answer(202, Location=here, Range="0-0")
        if exchange.command == "PATCH":
            self.patches += 1
            if self.patches in self.breaks:
                self.data += body[: len(body) // 2]
                exchange.close_connection = True
                return exchange.connection.close()
            self.data += body
            return exchange.answer(202, Location=here, Range=f"0-{len(self.data) - 1}")
        if exchange.command == "GET":
            return exchange.answer(204, Location=here, Range=f"0-{len(self.data) - 1}")
        self.data += body
        digest = self.registry.heard[-1].query["digest"][0]
        if digest_of(bytes(self.data)) != digest:
            return exchange.refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.registry.blobs[digest] = bytes(self.data)
        exchange.answer(201, Location=f"/v2/x/blobs/{digest}")

    def manifest(self, exchange: Exchange) -> None:
        if exchange.command == "PUT":
            self.registry.put("x", "1", exchange.body)
            return exchange.answer(201)
        self.registry.serve(exchange)


def test_a_broken_chunk_goes_on_where_it_was(tare: Engine, scripted: ScriptedRegistry) -> None:
    """A chunk that breaks off half-way is followed by the rest, as the registry says how much has arrived."""
    uploads = Uploads(scripted, breaks=(1,))
    name = f"{scripted.host}/x"
    tare.import_image(f"{name}:1", noise_tar(9, 36 << 20))
    said = statuses(messages(tare, "POST", f"/images/{name}/push", tag="1"))
    assert said[-1] == "aux", said
    assert uploads.patches == 2
    manifest = json.loads(scripted.documents["x/manifests/1"][1])
    assert {one["digest"] for one in manifest["layers"]} < set(scripted.blobs)
    forget(tare, f"{name}:1")


def test_a_client_that_leaves_ends_its_push(tare: Engine, scripted: ScriptedRegistry) -> None:
    """No tag appears after the client has gone."""
    begun, gone = threading.Event(), threading.Event()

    def hang(exchange: Exchange) -> None:
        begun.set()
        exchange.connection.settimeout(60)
        if not exchange.rfile.read(1):
            gone.set()

    Uploads(scripted)
    scripted.script["/blobs/uploads/"] = hang
    name = f"{scripted.host}/x"
    tare.import_image(f"{name}:1", layer_tar("leaves"))
    with tare.api.opened("POST", f"/images/{name}/push", query={"tag": "1"}):
        assert begun.wait(60)
    assert gone.wait(30)
    assert "x/manifests/1" not in scripted.documents
    forget(tare, f"{name}:1")


def test_a_registry_of_old_gets_dockers_types(tare: Engine, scripted: ScriptedRegistry) -> None:
    """One that refuses the OCI's manifests gets one of Docker's, over the same blobs."""
    uploads = Uploads(scripted)

    def picky(exchange: Exchange) -> None:
        if exchange.command == "PUT" and "oci" in exchange.headers["Content-Type"]:
            return exchange.refuse(400, "MANIFEST_INVALID", "manifest invalid")
        uploads.manifest(exchange)

    scripted.script["/manifests/"] = picky
    name = f"{scripted.host}/x"
    tare.import_image(f"{name}:1", layer_tar("old"))
    assert statuses(messages(tare, "POST", f"/images/{name}/push", tag="1"))[-1] == "aux"
    manifest = json.loads(scripted.documents["x/manifests/1"][1])
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["layers"][0]["mediaType"].endswith("diff.tar.gzip")
    forget(tare, f"{name}:1")
