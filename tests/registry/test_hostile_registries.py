"""Registries that lie, send without end, or say nothing: each pull ends in a clear error and leaves nothing."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripted_registry import (
    CONFIG,
    INDEX,
    MANIFEST,
    Built,
    Exchange,
    ScriptedRegistry,
    build,
    digest_of,
    tar_of,
)
from test_registry_login import pull

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared

sys.path.append(str(Path(__file__).parents[1] / "storage"))
import hostile_archives as hostile

Spoil = Callable[[ScriptedRegistry], None]


def good() -> Built:
    return build(tar_of(a=b"good"), tar_of(b=b"also"))


def changed(**fields: Any) -> dict[str, Any]:
    return {**good().manifest, **fields}


def layer(**fields: Any) -> dict[str, Any]:
    """The good manifest with a changed first layer."""
    layers = good().manifest["layers"]
    return changed(layers=[{**layers[0], **fields}, layers[1]])


def spoil_blob(number: int, data: bytes) -> Spoil:
    """A blob whose bytes aren't what its digest says."""

    def spoil(registry: ScriptedRegistry) -> None:
        registry.put_image("x", "1", good())
        registry.blobs[good().manifest["layers"][number]["digest"]] = data

    return spoil


def answers(path: str, answerer: Callable[[Exchange], None]) -> Spoil:
    """The good image, but for one path."""

    def spoil(registry: ScriptedRegistry) -> None:
        registry.put_image("x", "1", good())
        registry.script[path] = answerer

    return spoil


def document(made: dict[str, Any] | bytes, media_type: str = MANIFEST) -> Spoil:
    def spoil(registry: ScriptedRegistry) -> None:
        registry.blobs |= good().blobs
        registry.put("x", "1", made, media_type)

    return spoil


def endless(exchange: Exchange) -> None:
    """A body that never ends, in chunks."""
    exchange.send_response(200)
    exchange.send_header("Content-Type", MANIFEST)
    exchange.send_header("Transfer-Encoding", "chunked")
    exchange.end_headers()
    try:
        while not exchange.registry.stopping.is_set():
            exchange.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
    except OSError:
        pass


def redirects_to(url: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.answer(307, Location=url)


def around(exchange: Exchange) -> None:
    exchange.answer(307, Location=exchange.path)


def nested(registry: ScriptedRegistry) -> None:
    """Indexes in indexes, ten deep."""
    registry.blobs |= good().blobs
    inner, kind = registry.put("x", "inner", good().manifest), MANIFEST
    size = len(json.dumps(good().manifest))
    for _ in range(10):
        made = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{"mediaType": kind, "digest": inner, "size": size}],
        }
        size, kind = len(json.dumps(made)), INDEX
        inner = registry.put("x", "1", made, INDEX)


def bomb(registry: ScriptedRegistry) -> None:
    """A layer of 3 GB in 3 MB."""
    packed = BOMB
    built = good()
    manifest = layer(digest=digest_of(packed), size=len(packed))
    registry.blobs |= built.blobs | {digest_of(packed): packed}
    registry.put("x", "1", manifest)


def _bomb() -> bytes:
    entry = tarfile.TarInfo("bomb")
    entry.size = 3 << 30
    block = gzip.compress(b"x" * (64 << 20), 9)
    return gzip.compress(entry.tobuf()) + block * 48  # members follow each other


BOMB = _bomb()
WRONG = digest_of(b"wrong")
CASES: dict[str, tuple[Spoil, str]] = {
    "a layer with other bytes": (
        spoil_blob(0, gzip.compress(tar_of(a=b"evil"), mtime=7)),
        "filesystem layer verification failed|should have .* bytes, not",
    ),
    "a layer that is longer": (spoil_blob(0, b"x" * 100_000), "should have .* bytes, not 100000"),
    "a config with other bytes": (
        answers(f"/blobs/{good().manifest['config']['digest']}", lambda exchange: exchange.answer(200, b"{}")),
        "image config verification failed",
    ),
    "a config of another image": (
        document(changed(config=build(tar_of(c=b"c")).manifest["config"])),
        "it isn't here|layers length mismatch",
    ),
    "a diff id that the layer hasn't": (
        lambda registry: registry.put_image("x", "1", _swapped()) and None,
        "wrong diff id calculated on extraction",
    ),
    "more layers than the config": (document(changed(layers=[good().manifest["layers"][0]])), "layers length mismatch"),
    "a size that is negative": (document(layer(size=-1)), "claims to have -1 bytes"),
    "a size of a petabyte": (document(layer(size=1 << 50)), "claims to have"),
    "a layer type that is none": (document(layer(mediaType="text/html")), "unknown media type 'text/html'"),
    "a layer from elsewhere": (
        document(layer(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")),
        "layers from elsewhere .* are not supported by Tare",
    ),
    "an artifact that is no image": (
        document(
            changed(config={**good().manifest["config"], "mediaType": "application/vnd.cncf.helm.config.v1+json"})
        ),
        r'Encountered remote "application/vnd.cncf.helm.config.v1\+json"\(unknown\) when fetching',
    ),
    "a digest that leads out": (document(layer(digest="sha256:../../../../etc/passwd")), "invalid digest"),
    "a manifest and an index at once": (
        document(changed(manifests=[])),
        "has the fields of an index too",
    ),
    "a manifest that says it is an index": (document(changed(mediaType=INDEX)), "says that it is"),
    "schema 1": (
        document({"schemaVersion": 1, "name": "x"}, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        "schema 1 is not supported",
    ),
    "a manifest that is no JSON": (document(b"<html>"), "manifest: JSON is malformed|invalid"),
    "a manifest nested without end": (document(b"[" * 100_000), "manifest"),
    "a manifest of 5 MB": (document(b" " * (5 << 20)), "the answer is larger than"),
    "an endless manifest": (answers("/manifests/", endless), "the answer is larger than"),
    "an endless layer": (answers(f"/blobs/{good().manifest['layers'][0]['digest']}", endless), "larger than the"),
    "indexes in indexes": (nested, "nested too deeply"),
    "no image for this machine": (
        document(
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [
                    {
                        "mediaType": MANIFEST,
                        "digest": WRONG,
                        "size": 1,
                        "platform": {"os": "linux", "architecture": "pdp11"},
                    }
                ],
            },
            INDEX,
        ),
        "no matching manifest for linux/amd64 in the manifest list entries",
    ),
    "a redirect in a circle": (answers("/manifests/", around), "stopped after 5 redirects"),
    "a redirect to a file": (answers("/manifests/", redirects_to("file:///etc/passwd")), "the registry sends us to"),
    "a token service that is a file": (
        answers(
            "/v2/",
            lambda exchange: exchange.refuse(401, "UNAUTHORIZED", "no", WWW_Authenticate='Bearer realm="file:///x"'),
        ),
        "token service has no proper address",
    ),
    "another digest in the header": (
        answers(
            "/manifests/",
            lambda exchange: exchange.answer(
                200, json.dumps(good().manifest).encode(), Content_Type=MANIFEST, Docker_Content_Digest=WRONG
            ),
        ),
        f"manifest verification failed for digest {WRONG}",
    ),
    "an error that moves the cursor": (
        answers("/manifests/", lambda exchange: exchange.refuse(403, "DENIED", "\x1b[2Jgone")),
        r"denied: \?\[2Jgone",
    ),
    "a layer that is a bomb": (bomb, "decompression bomb"),
}


def _swapped() -> Built:
    """Good documents in which the config names another diff ID for the first layer."""
    built = good()
    raw = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [WRONG, built.diff_ids[1]]}}
    ).encode()
    manifest = {**built.manifest, "config": {"mediaType": CONFIG, "digest": digest_of(raw), "size": len(raw)}}
    return Built(manifest, {**built.blobs, digest_of(raw): raw}, built.diff_ids)


def test_each_is_refused_and_leaves_nothing(tare: Engine, tared: Tared) -> None:
    """Every lie: an error that says which, no image, no layer, no file that would be gone on with."""
    before = kept(tared)
    failures = []
    for what, (spoil, pattern) in CASES.items():
        registry = ScriptedRegistry()
        try:
            spoil(registry)
            status, text = pull(tare, f"{registry.host}/x", "1")
            if not re.search(pattern, text) or "\x1b" in text or re.search(r'"[A-Z]\w*Error: ', text):
                failures.append((what, status, text))
        finally:
            registry.stop()
    assert not failures
    assert not [one for one in tare.api.request("GET", "/images/json").json if "127.0.0.1" in str(one["RepoTags"])]
    wait_until(lambda: kept(tared) == before, f"nothing but {before} is kept", 5)


def test_layers_that_attack_are_refused(tare: Engine, tared: Tared, scripted: ScriptedRegistry, tmp_path: Path) -> None:
    """Every archive that attacks an extractor, as a layer of an image that is right in all its digests."""
    (tmp_path / "secret").write_text("secret")
    before = kept(tared)
    for name, (make, wanted) in hostile.REFUSED.items():
        scripted.put_image("x", "1", build(tar_of(a=b"good"), make(str(tmp_path))))
        status, text = pull(tare, f"{scripted.host}/x", "1")
        assert wanted in text, (name, status, text)
    assert os.listdir(tmp_path) == ["secret"]
    assert not [one for one in tare.api.request("GET", "/images/json").json if "127.0.0.1" in str(one["RepoTags"])]
    wait_until(lambda: kept(tared) == before, f"nothing but {before} is kept", 5)


def kept(tared: Tared) -> tuple[int, int, int]:
    """How many layers, layers in the making, and bytes of blobs on their way there are."""
    root = tared.data_root
    partial = sum(file.stat().st_size for file in (root / "registry" / "partial").iterdir())
    return len(os.listdir(root / "layers" / "layers")), len(os.listdir(root / "layers" / "staging")), partial


def test_silence_and_drops_cost_an_error_each(tare: Engine, scripted: ScriptedRegistry) -> None:
    """A registry that hangs up in the middle of everything is given up after its attempts, with a clear error."""

    def hang_up(exchange: Exchange) -> None:
        exchange.close_connection = True
        exchange.connection.close()

    scripted.put_image("x", "1", good())
    scripted.script["/manifests/"] = hang_up
    status, text = pull(tare, f"{scripted.host}/x", "1")
    assert status == 500 and "manifests/1" in text


def test_a_client_that_leaves_ends_its_pull(tare: Engine, scripted: ScriptedRegistry, tared: Tared) -> None:
    """While a registry is silent, a vanished client frees thread and connection at once."""
    waiting = threading.Event()
    gone = threading.Event()

    def silent(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(good().manifest["layers"][0]["size"]))
        exchange.end_headers()
        exchange.wfile.flush()
        waiting.set()
        exchange.connection.settimeout(60)
        if not exchange.rfile.read(1):
            gone.set()

    scripted.put_image("x", "1", good())
    scripted.script[f"/blobs/{good().manifest['layers'][0]['digest']}"] = silent
    threads = thread_count(tared)
    with tare.api.opened("POST", "/images/create", query={"fromImage": f"{scripted.host}/x", "tag": "1"}) as answer:
        assert waiting.wait(60)
        answer.readline()
    assert gone.wait(30), "the connection to the registry is still there"
    wait_until(lambda: thread_count(tared) <= threads, "its threads have ended")


def thread_count(tared: Tared) -> int:
    """Threads that work for registries."""
    tasks = Path(f"/proc/{tared.pid}/task")
    return len(list(tasks.iterdir()))
