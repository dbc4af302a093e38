"""python-on-whales, which drives the official command line: run, exec, copy, logs, volumes, images, system."""

from __future__ import annotations

import os
import pathlib
import tempfile

from python_on_whales import DockerClient
from python_on_whales.exceptions import DockerException, NoSuchContainer

IMAGE = os.environ["IMAGE"]
NAME = os.environ["NAME"]
docker = DockerClient(host=os.environ["DOCKER_HOST"])


def containers() -> None:
    """A container from creation to removal, with all that its object shows."""
    assert docker.run(IMAGE, ["echo", "hello"], remove=True) == "hello"
    try:
        docker.run(IMAGE, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    except DockerException as error:
        assert error.return_code == 3 and "bad" in str(error)
    else:
        raise AssertionError("no exception")
    container = docker.run(
        IMAGE,
        ["sh", "-c", "echo started; sleep 1000"],
        detach=True,
        name=NAME,
        hostname="whale",
        labels={"scenario": NAME},
        envs={"A": "1"},
        memory="64m",
        cpus=0.5,
        init=True,
        tty=False,
    )
    assert container.state.running and container.name == NAME and container.config.hostname == "whale"
    assert container.host_config.memory == 64 << 20 and container.config.labels["scenario"] == NAME
    assert docker.container.list(filters=[("label", f"scenario={NAME}")]) == [container]
    assert container.execute(["sh", "-c", "echo $A $(hostname)"]) == "1 whale"
    for kind, line in docker.container.logs(container, follow=True, stream=True):
        assert (kind, line) == ("stdout", b"started\n")
        break
    copy(container)
    container.pause()
    assert container.state.paused
    container.unpause()
    container.rename(f"{NAME}-new")
    docker.container.update(container, memory="32m", memory_swap="64m")
    container.reload()
    assert container.host_config.memory == 32 << 20
    stats = docker.container.stats([container])
    assert stats[0].container_name == f"{NAME}-new" and stats[0].memory_used > 0
    container.kill()
    assert docker.container.wait(container) == 137
    container.remove()
    try:
        docker.container.inspect(NAME)
    except NoSuchContainer:
        pass
    else:
        raise AssertionError("it is still there")


def copy(container: object) -> None:
    """Files go in and come out."""
    with tempfile.TemporaryDirectory() as directory:
        sent = pathlib.Path(directory) / "sent"
        sent.write_text("a note")
        docker.copy(sent, (container, "/tmp/note"))
        docker.copy((container, "/tmp/note"), pathlib.Path(directory) / "back")
        assert (pathlib.Path(directory) / "back").read_text() == "a note"


def volumes() -> None:
    """A volume keeps what a container wrote."""
    volume = docker.volume.create(f"{NAME}-v", labels={"a": "b"})
    try:
        docker.run(IMAGE, ["sh", "-c", "echo kept > /data/file"], volumes=[(volume, "/data")], remove=True)
        assert docker.run(IMAGE, ["cat", "/data/file"], volumes=[(volume, "/data", "ro")], remove=True) == "kept"
        assert volume.labels == {"a": "b"} and volume in docker.volume.list()
    finally:
        volume.remove()


def images() -> None:
    """A commit becomes an image with a name, is listed, tagged, and removed."""
    with docker.run(IMAGE, ["sleep", "1000"], detach=True, remove=True, stop_signal="SIGKILL") as container:
        container.execute(["sh", "-c", "echo new > /new"])
        image = container.commit(f"{NAME}:one", message="a file")
    assert docker.run(f"{NAME}:one", ["cat", "/new"], remove=True) == "new"
    image.tag(f"{NAME}:two")
    assert {tag for found in docker.image.list(NAME) for tag in found.repo_tags} == {f"{NAME}:one", f"{NAME}:two"}
    assert docker.image.exists(f"{NAME}:two")
    docker.image.remove([f"{NAME}:one", f"{NAME}:two"])
    assert not docker.image.exists(f"{NAME}:one")


def system() -> None:
    """What the engine tells of itself."""
    info = docker.system.info()
    assert info.os_type == "linux" and info.server_version
    assert docker.version().server.api_version


containers()
volumes()
images()
system()
