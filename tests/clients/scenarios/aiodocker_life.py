"""aiodocker: containers, logs, exec with a terminal, archives, events, volumes and images, all in one event loop."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile

import aiodocker

IMAGE = os.environ["IMAGE"]
NAME = os.environ["NAME"]


async def run(docker: aiodocker.Docker) -> None:
    """A container from creation to removal."""
    config = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", "echo out; echo err >&2; cat; sleep 100"],
        "OpenStdin": True,
        "StdinOnce": False,
        "StopSignal": "SIGKILL",
        "Labels": {"scenario": NAME},
    }
    container = await docker.containers.create_or_replace(config=config, name=NAME)
    await container.start()
    async with asyncio.timeout(60):
        async for line in container.log(stdout=True, stderr=True, follow=True):
            if line.strip() == "err":
                break
    assert sorted(line.strip() for line in await container.log(stdout=True, stderr=True)) == ["err", "out"]
    shown = await container.show()
    assert shown["State"]["Running"] and shown["Name"] == f"/{NAME}", shown["State"]
    assert NAME in [name.strip("/") for one in await docker.containers.list() for name in one["Names"]]
    found = await docker.containers.list(filters={"label": [f"scenario={NAME}"]})
    assert [one.id for one in found] == [container.id]
    await attach(container)
    await execute(container)
    await archive(container)
    stats = await container.stats(stream=False)
    assert stats[0]["memory_stats"]["usage"] > 0
    await container.pause()
    assert (await container.show())["State"]["Paused"]
    await container.unpause()
    await container.restart(timeout=0)
    await container.stop(timeout=0)
    assert (await container.wait())["StatusCode"] == 137
    image = await container.commit(repository=NAME, tag="saved")
    assert image["Id"].startswith("sha256:")
    await container.delete(force=True)
    try:
        await docker.containers.get(NAME)
    except aiodocker.exceptions.DockerError as error:
        assert error.status == 404
    else:
        raise AssertionError("it is still there")


async def attach(container: aiodocker.docker.DockerContainer) -> None:
    """What is typed into an attached stream comes back by cat."""
    async with container.attach(stdin=True, stdout=True, stderr=True, logs=False) as stream:
        await stream.write_in(b"typed\n")
        async with asyncio.timeout(60):
            message = await stream.read_out()
    assert message is not None and message.data == b"typed\n" and message.stream == 1, message


async def execute(container: aiodocker.docker.DockerContainer) -> None:
    """exec with and without a terminal; its exit code."""
    plain = await container.exec(["sh", "-c", "echo one; echo two >&2; exit 5"])
    seen = []
    async with plain.start(detach=False) as stream:
        while (message := await stream.read_out()) is not None:
            seen.append((message.stream, message.data))
    assert sorted(seen) == [(1, b"one\n"), (2, b"two\n")], seen
    assert (await plain.inspect())["ExitCode"] == 5
    terminal = await container.exec(["sh", "-c", "read x; echo got $x"], stdin=True, tty=True)
    async with terminal.start(detach=False) as stream:
        await terminal.resize(h=30, w=90)
        await stream.write_in(b"it\n")
        text = b""
        while (message := await stream.read_out()) is not None:
            text += message.data
    assert b"got it\r\n" in text, text


async def archive(container: aiodocker.docker.DockerContainer) -> None:
    """Files go in and come out as tars."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        entry = tarfile.TarInfo("note")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    await container.put_archive("/tmp", made.getvalue())
    tar = await container.get_archive("/tmp/note")
    file = tar.extractfile("note")
    assert file is not None and file.read() == b"hello"


async def main() -> None:
    docker = aiodocker.Docker()
    subscriber = docker.events.subscribe()
    try:
        assert (await docker.version())["ApiVersion"]
        assert (await docker.system.info())["OSType"] == "linux"
        await run(docker)
        actions: list[str] = []
        async with asyncio.timeout(60):
            while "destroy" not in actions:
                event = await subscriber.get()
                if event["Actor"]["Attributes"].get("name") == NAME:
                    actions.append(event["Action"])
        for action in ("create", "start", "pause", "unpause", "die", "stop", "commit", "destroy"):
            assert action in actions, (action, actions)
        volume = await docker.volumes.create({"Name": NAME, "Labels": {"a": "b"}})
        assert (await volume.show())["Labels"] == {"a": "b"}
        await volume.delete()
        images = await docker.images.list()
        assert f"{NAME}:saved" in [tag for image in images for tag in image["RepoTags"] or ()]
        await docker.images.delete(f"{NAME}:saved")
    finally:
        await docker.close()


asyncio.run(main())
