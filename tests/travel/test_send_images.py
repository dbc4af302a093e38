"""Images straight from engine to engine: only what is missing travels, and all that was known of it arrives."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from relays import Relay

from support.engine import Engine

LAYER_BYTES = 3 << 20


def version(engine: Engine, base: str, name: str, payload: bytes, *flags: str) -> str:
    """A version of an image with one more layer: /data/<n> with these bytes; its id."""
    container = engine.docker("create", base, "true").out.strip()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(f"data{len(payload)}")
        entry.size = len(payload)
        tar.addfile(entry, io.BytesIO(payload))
    engine.docker("cp", "-", f"{container}:/", input=archive.getvalue())
    made: str = engine.docker("commit", *flags, container, name).out.strip()
    engine.docker("rm", container)
    return made


def image_of(engine: Engine, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(engine.docker("image", "inspect", name).out)[0]
    return found


def test_a_child_image_costs_its_own_layer(near: Engine, far: Engine, way: Relay) -> None:
    """The first push carries all layers, the second one of a child that child's alone; ids and digests are the same."""
    name = near.unique("image")
    version(near, near.image, f"{name}:1", os.urandom(LAYER_BYTES))
    second = version(near, f"{name}:1", f"{name}:2", b"small" * 1000)
    done = near.tare_cli("send", f"{name}:1", way.address)
    assert done.out.startswith(f"Sent {name}:1 to {way.address}: 2 of 2 layers, ")
    assert way.sent > LAYER_BYTES
    before = way.sent
    near.tare_cli("push", f"{way.address}:{name}:2")
    assert way.sent - before < 40_000
    assert image_of(far, f"{name}:2")["Id"] == second
    for each in (f"{name}:1", f"{name}:2"):
        here, there = (engine.api.request("GET", f"/images/{each}/get").body for engine in (near, far))
        assert here == there
    assert far.docker("run", "--rm", f"{name}:2", "wc", "-c", "/data5000").out == "5000 /data5000\n"
    before = way.sent
    assert ": 0 of 3 layers, " in near.tare_cli("send", f"{name}:2", way.address).out
    assert way.sent - before < 30_000


def test_history_and_reflog_go_along(near: Engine, far: Engine, way: Relay) -> None:
    """The graph with authors and messages, and where the name was; what it was there already stays first there."""
    name = near.unique("image")
    first = version(near, near.image, f"{name}:v", b"1", "-m", "first", "-a", "Ann")
    version(near, f"{name}:v", f"{name}:v", b"22", "-m", "second", "-a", "Ben")
    near.tare_cli("send", f"{name}:v", way.address)
    pick = ("Id", "Parent", "Author", "Message", "Tags")
    log = [[one[key] for key in pick] for one in far.api.request("GET", f"/tare/log?image={name}:v").json]
    ours = [[one[key] for key in pick] for one in near.api.request("GET", f"/tare/log?image={name}:v").json]
    assert log[:2] == ours[:2] and log[1][0] == first and log[1][2] == "Ann"
    moves = far.api.request("GET", f"/tare/reflog?name={name}:v").json
    assert [{**move, "OldPresent": 0} for move in moves] == [
        {**move, "OldPresent": 0} for move in near.api.request("GET", f"/tare/reflog?name={name}:v").json
    ]
    far.tare_cli("tag", "--undo", f"{name}:v")
    assert image_of(far, f"{name}:v")["Id"] == first
    near.tare_cli("send", f"{name}:v", way.address)
    assert far.api.request("GET", f"/tare/reflog?name={name}:v").json[0]["Why"] == "receive"


def test_a_cut_is_taken_up_where_it_was(near: Engine, far: Engine, way: Relay) -> None:
    """Layers that had come before the connection broke don't travel again; until all is there, nothing shows."""
    name = near.unique("image")
    for number in range(3):
        version(
            near, f"{name}:{number - 1}" if number else near.image, f"{name}:{number}", os.urandom(LAYER_BYTES + number)
        )
    way.cut_after = 3 * LAYER_BYTES + 1_000_000
    assert near.tare_cli("send", f"{name}:2", way.address, check=False).code == 1
    assert far.api.request("GET", "/images/json?all=1").json == []
    way.cut_after, before = None, way.sent
    near.tare_cli("send", f"{name}:2", way.address)
    assert way.sent - before < 2 * LAYER_BYTES
    assert image_of(far, f"{name}:2")["Id"] == image_of(near, f"{name}:2")["Id"]


def test_fetch_is_the_same_the_other_way(near: Engine, far: Engine, way: Relay) -> None:
    """`fetch` and `pull HOST:IMAGE`; names that somebody has here can be left alone."""
    name = near.unique("image")
    made = version(near, near.image, name, b"x")
    far.tare_cli("fetch", f"unix://{near.socket}", name)
    assert image_of(far, name)["Id"] == made
    version(near, name, name, b"yy")
    far.tare_cli("fetch", "--keep-names", f"unix://{near.socket}", name)
    assert image_of(far, name)["Id"] == made
    far.tare_cli("pull", f"unix://{near.socket}:{name}:latest")
    assert image_of(far, name)["Id"] == image_of(near, name)["Id"]


def test_contexts_name_engines_and_nobody_guesses(near: Engine, far: Engine, tmp_path: Path) -> None:
    """CONTEXT:IMAGE sends there, unless that is an image's name; what is neither is told so."""
    import subprocess
    import sys

    from support.engine import clean_environment

    env = clean_environment({"DOCKER_CONFIG": str(tmp_path), "TARE_HOST": f"unix://{near.socket}"})

    def tare(*args: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tare.cli.main", *args]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=100)

    name = near.unique("image")
    made = version(near, near.image, name, b"x")
    env.pop("TARE_HOST")
    assert tare("context", "create", "farbox", "--docker", f"host=unix://{far.socket}").returncode == 0
    env["TARE_HOST"] = f"unix://{near.socket}"
    assert tare("push", f"farbox:{name}").stdout.startswith(f"Sent {name} to farbox: ")
    assert image_of(far, name)["Id"] == made
    near.docker("tag", name, f"farbox:{name}")
    assert "is a context too" in tare("push", f"farbox:{name}").stderr
    assert 'neither a context (see "tare context ls") nor an address' in tare("send", name, "nowhere").stderr


@pytest.mark.parametrize("back", [False, True], ids=["to-docker", "from-docker"])
def test_a_real_dockerd_gets_the_whole_archive(near: Engine, docker_engine: Engine, back: bool) -> None:
    """Docker can't tell what it has: save and load stand in."""
    name = near.unique("image")
    source, target = (docker_engine, near) if back else (near, docker_engine)
    made = version(source, source.image, name, b"x")
    verb = (
        ("fetch", f"unix://{docker_engine.socket}", name) if back else ("send", name, f"unix://{docker_engine.socket}")
    )
    assert ": all layers, " in near.tare_cli(*verb).out
    assert image_of(target, name)["Id"] == made
    docker_engine.docker("rmi", "-f", name)


def test_what_is_received_is_checked(near: Engine, far: Engine) -> None:
    """A layer that was left out but isn't there, and wrong lists are refused; nothing stays."""
    name = near.unique("image")
    version(near, near.image, name, b"x")
    layers = [one["Digest"] for one in near.api.request("GET", f"/tare/images/offer?names={name}").json["Layers"]]
    archive = near.api.request("POST", "/tare/images/send", {"Names": [name], "Without": layers}).body
    answer = far.api.request("POST", "/tare/images/receive", archive)
    assert "was left out, but is not here any more: send again" in answer.body.decode()
    assert far.api.request("GET", "/images/json?all=1").json == []
    assert far.api.request("POST", "/tare/images/missing", {"Layers": "x"}, check=False).status == 400
    assert (
        far.api.request(
            "POST", "/tare/images/missing", {"Layers": [{"Digest": "../x", "DiffId": "../x"}]}, check=False
        ).status
        == 400
    )
    assert near.api.request("POST", "/tare/images/send", {"Names": []}, check=False).status == 400
    assert near.api.request("GET", "/tare/images/offer?names=nope", check=False).status == 404


def test_compressed_layers_arrive_as_they_are(near: Engine, far: Engine, way: Relay) -> None:
    """A layer that came in compressed goes so, and comes out so there: the manifest's digest is the same."""
    import gzip
    import hashlib

    name = near.unique("image")
    version(near, near.image, name, b"x" * 1000)
    archive = near.api.request("GET", f"/images/{name}/get").body
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        blobs = {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]
    listed = json.loads(blobs["manifest.json"])[0]
    packed = {}
    for layer in listed["Layers"]:
        data = gzip.compress(blobs[layer], mtime=0)
        packed[f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"] = data
    manifest = json.loads(blobs[f"blobs/sha256/{json.loads(blobs['index.json'])['manifests'][0]['digest'][7:]}"])
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest["layers"] = [
        {"mediaType": kind, "digest": f"sha256:{path[-64:]}", "size": len(data)} for path, data in packed.items()
    ]
    document = json.dumps(manifest).encode()
    digest = hashlib.sha256(document).hexdigest()
    entry = {"mediaType": manifest["mediaType"], "digest": f"sha256:{digest}", "size": len(document)}
    entry["annotations"] = {"io.containerd.image.name": f"docker.io/library/{name}:packed"}
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        f"blobs/sha256/{digest}": document,
        listed["Config"]: blobs[listed["Config"]],
        **packed,
    }
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    near.docker("rmi", f"{name}:latest")
    near.docker("load", input=made.getvalue())
    assert digest.encode() in near.api.request("GET", f"/images/{name}:packed/get").body
    near.tare_cli("send", f"{name}:packed", way.address)
    here, there = (engine.api.request("GET", f"/images/{name}:packed/get").body for engine in (near, far))
    assert here == there and digest.encode() in there
    assert ": 0 of 2 layers, " in near.tare_cli("send", f"{name}:packed", way.address).out
