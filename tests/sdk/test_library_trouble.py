"""The library when things go wrong: engines that restart, streams left alone, cancelled tasks, threads, bad answers."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tare
from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared
from tare.sdk.errors import BadHost, CannotConnect, ProtocolError


def open_sockets() -> int:
    """How many sockets this process has."""
    gc.collect()
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.islink(link))


def test_an_engine_that_was_restarted(daemon: Tared) -> None:
    """A kept connection that the engine has dropped is replaced, also for calls that must not be made twice."""
    daemon.start()
    daemon.engine.prepare()
    loop = asyncio.new_event_loop()
    after = tare.AsyncClient(f"unix://{daemon.socket}")
    with tare.connect(f"unix://{daemon.socket}") as engine:
        loop.run_until_complete(after.ping())
        daemon.restart()
        loop.run_until_complete(after.ping())
        assert engine.volumes.create("one").name == "one"
        daemon.restart()
        assert engine.run(daemon.engine.image, "echo back").output == "back\n"
        assert loop.run_until_complete(after.run(daemon.engine.image, "echo back")).output == "back\n"
    loop.run_until_complete(after.close())
    loop.close()


def test_a_cancelled_run_removes_its_container(engine: Engine) -> None:
    """Cancelling the task that waits in run leaves no container."""

    async def story() -> None:
        client = tare.AsyncClient(f"unix://{engine.socket}")
        async with client, client.events(type="container", event="start") as events:
            task = asyncio.create_task(client.run(engine.image, "sleep 1000"))
            await anext(events)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(story())
    assert engine.containers() == []


def test_many_tasks_at_once(engine: Engine) -> None:
    """Six runs side by side in one loop each get their own output."""

    async def story() -> list[str]:
        async with tare.AsyncClient(f"unix://{engine.socket}") as client:
            runs = (client.run(engine.image, ["echo", str(number)]) for number in range(6))
            return [result.output for result in await asyncio.gather(*runs)]

    assert asyncio.run(story()) == [f"{number}\n" for number in range(6)]


def test_many_threads_at_once(engine: Engine) -> None:
    """One blocking client serves several threads."""
    with tare.connect(f"unix://{engine.socket}") as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: client.run(engine.image, ["echo", str(number)]).output, range(6)))
    assert found == [f"{number}\n" for number in range(6)]


def test_streams_that_are_left_alone_are_closed(engine: Engine) -> None:
    """Leaving a stream early, by break or by an error, leaves no connection behind, in either face."""
    before = open_sockets()
    endless = ["sh", "-c", "while :; do echo line; done"]
    with tare.connect(f"unix://{engine.socket}") as client, client.container(engine.image, endless) as c:
        with c.stream_logs() as chunks:
            next(chunks)
        with pytest.raises(ZeroDivisionError), c.open_exec("cat"):
            _ = 1 / 0
        with client.events(), c.stream_stats():
            pass

    async def story() -> None:
        client = tare.AsyncClient(f"unix://{engine.socket}")
        async with client, client.container(engine.image, endless) as c:
            async with c.stream_logs() as chunks:
                await anext(chunks)
            async with await c.open_exec("cat"), client.events():
                pass

    asyncio.run(story())
    assert open_sockets() == before


def test_a_slow_reader_holds_memory_flat(engine: Engine) -> None:
    """What isn't read waits in the engine, not in this process: 64 MB of output cost a few."""

    async def story() -> int:
        async with tare.AsyncClient(f"unix://{engine.socket}") as client:
            c = await client.containers.create(engine.image, "head -c 64000000 /dev/zero", tty=False)
            async with c, await c.attach(stdin=False) as talk:
                await c.start()
                before, total = resident_bytes(), 0
                async for chunk in talk:
                    total += len(chunk.data)
                    if total < 1 << 20:
                        await asyncio.sleep(0.02)
                        assert resident_bytes() - before < 40 << 20
                assert resident_bytes() - before < 40 << 20
                return total

    assert asyncio.run(story()) == 64_000_000


def resident_bytes() -> int:
    """This process' memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_nobody_there() -> None:
    """connect tells at once; a client when it is first used; addresses that can't be are told apart."""
    with pytest.raises(CannotConnect, match="No such file"):
        tare.connect("unix:///nonexistent/sock")
    client = tare.Client("unix:///nonexistent/sock")
    with pytest.raises(CannotConnect):
        client.info()
    with pytest.raises(BadHost):
        tare.connect("gopher://here")

    async def story() -> None:
        async with tare.AsyncClient("unix:///nonexistent/sock") as client:
            await client.ping()

    with pytest.raises(CannotConnect):
        asyncio.run(story())


def test_a_closed_client_is_closed(engine: Engine) -> None:
    """After close nothing is sent any more."""
    client = tare.connect(f"unix://{engine.socket}")
    client.close()
    with pytest.raises(ProtocolError, match="closed"):
        client.info()


def test_the_environment_names_the_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """connect() without arguments goes where the command line would: TARE_HOST, DOCKER_HOST, contexts."""
    for name in ("TARE_HOST", "DOCKER_HOST", "DOCKER_CONTEXT", "TARE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine.socket}")
    with tare.connect() as client:
        assert client.address == f"unix://{engine.socket}"
    monkeypatch.setenv("TARE_HOST", "unix:///other")
    assert tare.Client().address == "unix:///other"
    monkeypatch.delenv("TARE_HOST")
    monkeypatch.delenv("DOCKER_HOST")
    with pytest.raises(tare.ClientError, match="context not found"):
        tare.connect(context="nosuch")


@contextmanager
def scripted(path: Path, *answers: bytes) -> Iterator[str]:
    """A server that gives one answer per connection, whatever is asked, and hangs up."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"unix://{path}"
    finally:
        listener.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000,
    ],
)
@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_answers_that_are_none(answer: bytes, face: str, tmp_path: Path) -> None:
    """What isn't HTTP, isn't JSON or breaks off is a ProtocolError: never a hang, never half a document."""

    async def story(address: str) -> Any:
        async with tare.AsyncClient(address, version="1.41", timeout_s=10) as client:
            return await client.info()

    with scripted(tmp_path / "s", answer) as address, pytest.raises(ProtocolError):
        if face == "asyncio":
            asyncio.run(story(address))
        else:
            tare.Client(address, version="1.41", timeout_s=10).info()


def test_an_engine_that_says_nothing(tmp_path: Path) -> None:
    """timeout_s of the client bounds every answer, in either face."""

    async def story(address: str) -> None:
        async with tare.AsyncClient(address, timeout_s=0.2) as client:
            await client.ping()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            tare.connect(f"unix://{tmp_path}/s", timeout_s=0.2)
        with pytest.raises(TimeoutError):
            asyncio.run(story(f"unix://{tmp_path}/s"))
        assert time.monotonic() - began < 30, "another limit ended it"


def test_a_machine_that_does_not_answer() -> None:
    """timeout_s bounds connecting, too: a full queue of connections is waited for no longer than that."""

    async def story(address: str) -> None:
        async with tare.AsyncClient(address, timeout_s=0.2) as client:
            await client.ping()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:  # more than the queue has: the next SYN gets no answer (man 2 listen)
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        with pytest.raises(TimeoutError):
            tare.connect(address, timeout_s=0.2)
        with pytest.raises(TimeoutError):
            asyncio.run(story(address))
        for one in waiting:
            one.close()


@pytest.fixture(scope="module", autouse=True)
def sockets_before() -> int:
    """How many sockets other tests of this process have open."""
    return open_sockets()


def test_nothing_is_left_open(sockets_before: int) -> None:
    """At the end of this module no connection of the library is open in this process."""
    wait_until(lambda: open_sockets() < sockets_before + 20, "sockets are closed")
