"""Loads and checkouts that are cut short, by kill -9 of the engine or by the client: no image and no file is lost."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared


def staged(daemon: Tared) -> list[Path]:
    return list((daemon.data_root / "layers" / "staging").iterdir())


def layers(daemon: Tared) -> set[str]:
    return {path.name for path in (daemon.data_root / "layers" / "layers").iterdir()}


def prepared(daemon: Tared) -> tuple[bytes, str]:
    """An archive of an image with two layers, which is gone, and the id of the image below it, which is there."""
    engine = daemon.start().engine
    engine.prepare()
    engine.docker("run", "--name", "work", engine.image, "sh", "-c", "echo 1 > /f")
    image = engine.docker("commit", "work", "travels").out.strip()
    archive = engine.api.request("GET", "/images/travels/get").body
    engine.docker("rm", "work")
    engine.docker("rmi", "travels")
    return archive, image


def tagged(engine: Engine) -> list[str]:
    return sorted(tag for image in engine.api.request("GET", "/images/json").json for tag in image["RepoTags"])


@pytest.mark.parametrize("point", ["images.archive.layer", "images.record.content"])
def test_the_engine_dies_in_a_load(daemon: Tared, point: str) -> None:
    """After kill -9 and a restart the old images run, nothing of the new is left, and the load works."""
    archive, image = prepared(daemon)
    before = layers(daemon)
    daemon.terminate()
    daemon.start(env={"TARE_FAULT": f"{point}:kill"})
    with pytest.raises((OSError, http.client.HTTPException)):
        daemon.engine.api.request("POST", "/images/load", archive, check=False, timeout=20)
        raise ConnectionError  # the answer's head had been sent before
    daemon.wait_dead()
    engine = daemon.start().engine
    assert tagged(engine) == [f"{engine.image}:latest"]
    wait_until(lambda: layers(daemon) == before and not staged(daemon), "nothing of the load is left")
    assert engine.run("@", "echo", "whole").out == "whole\n"
    assert engine.docker("load", input=archive).out == "Loaded image: travels:latest\n"
    assert engine.docker("image", "inspect", "-f", "{{.Id}}", "travels").out.strip() == image
    assert engine.docker("run", "--rm", "travels", "cat", "/f").out == "1\n"


def test_the_client_hangs_up_in_a_load(daemon: Tared) -> None:
    """Half an archive leaves nothing."""
    archive, _ = prepared(daemon)
    engine = daemon.engine
    engine.docker("rmi", engine.image)
    engine.tare_cli("trash", "empty", "--force")
    wait_until(lambda: not layers(daemon), "the layers are gone")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket))
        head = f"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: {len(archive)}\r\n\r\n"
        client.sendall(head.encode() + archive[: len(archive) // 2])
        wait_until(lambda: bool(staged(daemon)), "the load has begun")
    wait_until(lambda: not staged(daemon) and not layers(daemon), "nothing of the load is left")
    assert engine.docker("load", input=archive).out == "Loaded image: travels:latest\n"


def changed_container(daemon: Tared) -> tuple[Engine, str, str]:
    """The engine, a commit, and the image of a stopped container "work" that has written /mine."""
    engine = daemon.start().engine
    engine.prepare()
    engine.docker("run", "--name", "first", engine.image, "sh", "-c", "echo 1 > /f")
    commit = engine.docker("commit", "first", "one").out.strip()
    engine.docker("run", "--name", "work", engine.image, "sh", "-c", "echo mine > /mine")
    return engine, commit, engine.inspect("work")["Image"]


@pytest.mark.parametrize(
    ("point", "moved"),
    [
        ("engine.checkout.saved", False),
        ("engine.checkout.recorded", True),
        ("storage.snapshot.reset", True),
        ("storage.snapshot.directories", True),
    ],
)
def test_the_engine_dies_in_a_checkout(daemon: Tared, point: str, moved: bool) -> None:
    """The container is at the old version with its files, or at the new one without; they are in a commit then."""
    engine, commit, base = changed_container(daemon)
    daemon.terminate()
    daemon.start(env={"TARE_FAULT": f"{point}:kill"})
    with pytest.raises((OSError, http.client.HTTPException)):
        engine.api.request("POST", "/containers/work/checkout", query={"image": "one"}, check=False, timeout=20)
    daemon.wait_dead()
    daemon.start()
    assert engine.inspect("work")["Image"] == (commit if moved else base)
    changes = engine.docker("diff", "work").out
    saved = [tag for tag in tagged(engine) if tag.startswith("tare-checkout/work:")]
    assert len(saved) == 1
    if moved:
        assert changes == ""
        assert engine.docker("run", "--rm", saved[0], "cat", "/mine").out == "mine\n"
    else:
        assert changes == "A /mine\n"
    assert engine.tare_cli("checkout", "work", "one").code == 0
    assert engine.docker("diff", "work").out == ""
    assert engine.docker("start", "-a", "work").code == 0
    assert engine.tare_cli("diff", "one", "work").out == "A /mine  (file, 0644, 5B)\n"


def test_a_checkout_that_fails_half_way_is_finished_before_the_start(daemon: Tared) -> None:
    """When the directories can't be replaced, the next start does it: old files never show over new layers."""
    engine, commit, _ = changed_container(daemon)
    daemon.terminate()
    daemon.start(env={"TARE_FAULT": "storage.snapshot.reset"})
    answer = engine.api.request("POST", "/containers/work/checkout", query={"image": "one"}, check=False)
    assert answer.status == 500
    assert engine.inspect("work")["Image"] == commit
    engine.docker("start", "-a", "work")
    assert engine.tare_cli("diff", "one", "work").out == "A /mine  (file, 0644, 5B)\n"
