"""The keeper of an uplink as a program of its own, and what it refuses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
