"""Images and containers to engines behind ssh and TLS: HOST as a user writes it."""

from __future__ import annotations

import json
from pathlib import Path

from far_engines import TARE, TlsEngine, call, over_ssh

from support.engine import Engine, clean_environment


def test_images_and_containers_over_ssh(tare: Engine, tls_engine: TlsEngine, ssh: Path) -> None:
    """push ADDRESS:IMAGE, send and move by user@machine's form with a socket's path; the way back by fetch."""
    far = tls_engine.daemon.engine
    environment = over_ssh(ssh, "", TARE_HOST=f"unix://{tare.socket}")
    environment.pop("DOCKER_HOST", None)
    address = f"ssh://me@there:2222{far.socket}"
    name, image = tare.unique(), tare.unique("image")
    tare.docker("run", "-d", "--stop-signal", "KILL", "--name", name, tare.image, "sh", "-c", "echo 1 > /f; sleep 1000")
    tare.docker("commit", name, f"{image}:v")
    done = call([*TARE, "push", f"{address}:{image}:v"], environment)
    assert done.code == 0, done.err
    assert done.out.startswith(f"Sent {image}:v to {address}: 1 of 2 layers, ")
    assert call([*TARE, "move", "--stop", name, address], environment).code == 0
    assert far.docker("exec", name, "cat", "/f").out == "1\n"
    far.docker("tag", f"{image}:v", f"{image}:w")
    done = call([*TARE, "fetch", address, f"{image}:w"], environment)
    assert ": 0 of 2 layers, " in done.out, done.err
    far.docker("rm", "-f", name)
    far.docker("rmi", f"{image}:v", f"{image}:w")
    tare.docker("rmi", f"{image}:v", f"{image}:w")


def test_a_context_brings_its_certificates(tare: Engine, tls_engine: TlsEngine, tmp_path: Path) -> None:
    """TCP with TLS, by a context's name; the same address without it is refused."""
    found = {"DOCKER_CONFIG": str(tmp_path)}
    files = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
    pairs = ",".join(f"{key}={tls_engine.certificates / file}" for key, file in files.items())
    made = call(
        [*TARE, "context", "create", "box", "--docker", f"host={tls_engine.address},{pairs}"], clean_environment(found)
    )
    assert made.code == 0, made.err
    environment = clean_environment({**found, "TARE_HOST": f"unix://{tare.socket}"})
    image = tare.unique("image")
    tare.docker("tag", tare.image, image)
    assert ": 0 of 1 layers, " in call([*TARE, "push", f"box:{image}"], environment).out
    listed = json.loads(tls_engine.daemon.engine.docker("image", "inspect", image).out)
    assert listed[0]["Id"] == json.loads(tare.docker("image", "inspect", image).out)[0]["Id"]
    assert call([*TARE, "send", image, tls_engine.address], environment).code == 1
    tls_engine.daemon.engine.docker("rmi", image)
    tare.docker("rmi", image)
