"""The datagrams between tared, launcher and monitors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tare.runtime import messages


def test_descriptors_travel_with_the_message() -> None:
    """A descriptor arrives as another of the same file, close-on-exec."""
    left, right = messages.socket_pair()
    read, write = os.pipe()
    messages.send(left, messages.Attach(messages.StreamWish(True, False, True)), (write,))
    received = messages.receive(right)
    assert received is not None
    message, (fd,) = received
    assert message == messages.Attach(messages.StreamWish(True, False, True))
    assert not os.get_inheritable(fd)
    os.write(fd, b"x")
    assert os.read(read, 1) == b"x"
    for each in (read, write, fd):
        os.close(each)
    left.close()
    right.close()


@pytest.mark.parametrize("size", [10, messages.MAX_MESSAGE_BYTES - 200, messages.MAX_MESSAGE_BYTES, 5_000_000])
def test_messages_of_any_size_arrive_whole(size: int) -> None:
    """What doesn't fit a datagram goes through memory, with no difference for the reader."""
    left, right = messages.socket_pair()
    request = messages.StartRequest(name="n", directory="/d", plan=os.urandom(size))
    messages.send(left, request, (0,))
    received = messages.receive(right)
    assert received is not None
    assert received[0] == request
    assert len(received[1]) == 1
    os.close(received[1][0])
    left.close()
    right.close()


def test_end_of_connection_is_none() -> None:
    """A peer that is gone is an end, not an error."""
    left, right = messages.socket_pair()
    left.close()
    assert messages.receive(right) is None
    right.close()


def test_socket_below_a_long_path(tmp_path: Path) -> None:
    """A directory deeper than a socket's path may be is no obstacle, and the socket is its owner's alone."""
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    listener = messages.listen_in(str(directory), "x.sock")
    assert (directory / "x.sock").stat().st_mode & 0o777 == 0o600
    client = messages.connect_in(str(directory), "x.sock")
    server, _ = listener.accept()
    messages.send(client, messages.Resize(1, 2))
    assert messages.receive(server) == (messages.Resize(1, 2), [])
    for each in (client, server, listener):
        each.close()
