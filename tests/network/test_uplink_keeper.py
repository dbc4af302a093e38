"""The keeper of an uplink as a program of its own, and what it refuses."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tare.errors import Unavailable
from tare.network import uplink
from tare.network.uplink_messages import Done, Forward, Message, Refused, Start, Stop, receive, send


class Keeper:
    """One, and the end of its connection that an engine would have."""

    def __init__(self, directory: Path) -> None:
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.settimeout(60)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        words = [sys.executable, "-m", "tare.network.uplink_keeper", str(theirs.fileno()), str(directory)]
        self.process = subprocess.Popen(words, pass_fds=(theirs.fileno(),))
        theirs.close()

    def ask(self, request: Message) -> Message:
        """Its answer."""
        send(self.connection, request)
        received = receive(self.connection)
        assert received is not None
        return received[0]


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    """One whose end is awaited: it leaves nothing."""
    made = Keeper(tmp_path / "uplink")
    with made.connection:
        yield made
    assert made.process.wait(60) == 0
    assert os.listdir(tmp_path) == []


def test_an_answer_bears_its_requests_number(keeper: Keeper) -> None:
    assert keeper.ask(Stop(serial=7)) == Done(serial=7)


def test_a_port_needs_a_program_that_runs(keeper: Keeper) -> None:
    assert keeper.ask(Forward("tcp", "0.0.0.0", 8170, serial=1)) == Refused(
        "unavailable", "the uplink isn't started", 1
    )


def test_it_runs_no_program_but_those_that_it_knows(keeper: Keeper) -> None:
    """Whoever took the engine over can't have anything run in the host's namespaces."""
    for program in ("sh", "/bin/sh", "../sh"):
        refused = keeper.ask(Start(program))
        assert isinstance(refused, Refused) and "networks without root need one of these programs" in refused.text


def test_what_is_no_request_ends_it(keeper: Keeper) -> None:
    keeper.connection.send(b"{}")
    assert receive(keeper.connection) is None


def test_one_that_hangs_holds_the_engine_up_once(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked after that fails at once, however much it is; what it was to end it does once it goes on, and then
    it is asked again."""
    answers: list[Message] = []
    monkeypatch.setattr(uplink.KeptUplink, "_hear", _and_note(uplink.KeptUplink._hear, answers))
    keeper.connection.settimeout(None)
    engines = uplink.KeptUplink(keeper.connection.dup())

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(engines._connection.fileno(), engines._read)
        keeper.process.send_signal(signal.SIGSTOP)
        for number in range(500):  # 5 seconds each would be longer than a test may take
            with pytest.raises(Unavailable, match="the uplink's keeper doesn't answer"):
                engines.forward("tcp", "0.0.0.0", 8000 + number)
            engines.unforward("tcp", "0.0.0.0", 8000 + number)
        (warning,) = engines.warnings()
        assert "doesn't answer" in warning
        keeper.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            while len(answers) < 502:  # of the port that it was asked for, of its end twice, of the other 499
                await asyncio.sleep(0.01)
        assert engines.warnings() == []
        with pytest.raises(Unavailable, match="isn't started"):
            engines.forward("tcp", "0.0.0.0", 8000)
        loop.remove_reader(engines._connection.fileno())
        engines._connection.close()

    asyncio.run(scenario())


def _and_note(hear: Callable[..., None], answers: list[Message]) -> Callable[..., None]:
    def heard(self: uplink.KeptUplink, news: Message) -> None:
        answers.append(news)
        hear(self, news)

    return heard
