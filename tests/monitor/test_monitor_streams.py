"""The monitor's ends of a process's stdio: frames, back-pressure, half-close."""

from __future__ import annotations

import os
import socket

from tare.runtime.messages import StreamWish
from tare.runtime.streams import CLOGGED_BYTES, AttachedStream, Stdin, frame


def attached(wish: StreamWish, framed: bool = True) -> tuple[AttachedStream, socket.socket]:
    """A stream and the client's end of it."""
    ours, theirs = socket.socketpair()
    return AttachedStream(ours.detach(), wish, framed), theirs


def test_frames_name_their_stream() -> None:
    """Output is framed as Docker frames it, and only what was asked for comes."""
    stream, client = attached(StreamWish(False, True, False))
    stream.offer("stdout", b"out")
    stream.offer("stderr", b"err")
    assert client.recv(100) == b"\x01\0\0\0\0\0\0\x03out"
    assert frame("stderr", 256) == b"\x02\0\0\0\0\0\x01\0"
    stream.close()
    client.close()


def test_a_client_that_does_not_read_clogs() -> None:
    """What a client leaves unread waits, whole and in order; beyond a megabyte the process has to wait."""
    stream, client = attached(StreamWish(False, True, True), framed=False)
    sent = b""
    while not stream.is_clogged:
        chunk = os.urandom(50_000)
        stream.offer("stdout", chunk)
        sent += chunk
    assert len(sent) > CLOGGED_BYTES
    stream.end()
    assert not stream.dead
    client.settimeout(60)
    got = b""
    while len(got) < len(sent):
        got += client.recv(1 << 20)
        stream.flush()
    assert got == sent
    assert stream.dead
    stream.close()
    client.close()


def test_a_client_that_leaves_is_dead() -> None:
    """Writing to a client that is gone neither raises nor blocks."""
    stream, client = attached(StreamWish(False, True, True))
    client.close()
    stream.offer("stdout", b"x")
    assert stream.dead
    assert not stream.has_pending
    stream.close()


def test_half_close_ends_the_input_only() -> None:
    """A client that has no more input still gets output."""
    stream, client = attached(StreamWish(True, True, True), framed=False)
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)
    assert stream.read_input() == b"last"
    assert stream.read_input() == b""
    assert not stream.reads_input
    stream.offer("stdout", b"answer")
    assert client.recv(10) == b"answer"
    stream.close()
    client.close()


def test_stdin_waits_for_its_reader_and_closes_after_the_last_byte() -> None:
    """Input that the process hasn't read yet isn't lost when the client closes."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    stdin = Stdin(write, is_terminal=False)
    data = os.urandom(200_000)
    stdin.write(data)
    assert stdin.has_pending
    stdin.close_when_flushed()
    got = b""
    while chunk := os.read(read, 65536):
        got += chunk
        stdin.flush()
    assert got == data
    os.close(read)


def test_stdin_of_a_process_that_is_gone_is_dropped() -> None:
    """No reader: what is written goes nowhere, without an error."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.close(read)
    stdin = Stdin(write, is_terminal=False)
    stdin.write(b"x")
    assert not stdin.has_pending
