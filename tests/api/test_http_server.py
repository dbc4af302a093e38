"""The HTTP server as a client's socket sees it: framing, order, limits, back-pressure, and vanished clients."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpserver import CHUNK, RunningServer, Watched, read_all, read_exactly, read_until, running
from hypothesis import given, settings
from hypothesis import strategies as st

from support.deadline import wait_until


@pytest.fixture
def seen() -> Watched:
    return Watched()


@pytest.fixture
def http(seen: Watched, tmp_path: Path) -> Iterator[RunningServer]:
    with running(seen, tmp_path) as server:
        yield server


@pytest.fixture(params=["unix", "tcp"])
def both(request: pytest.FixtureRequest, seen: Watched, tmp_path: Path) -> Iterator[RunningServer]:
    with running(seen, tmp_path, tcp=request.param == "tcp") as server:
        yield server


def get(path: str, more: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def test_a_connection_is_kept_for_many_requests(both: RunningServer) -> None:
    """Ten requests with bodies are answered in order on one connection."""
    with both.connect() as sock:
        for number in range(10):
            body = b"n" * number
            sock.sendall(get("/echo?a=b", f"Content-Length: {number}\r\n", "POST") + body)
            head = read_until(sock, b"\r\n\r\nPOST:")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"X-Query: a=b\r\n" in head
            assert b"Connection" not in head
            rest = head.partition(b"POST:")[2]
            assert rest + read_exactly(sock, number - len(rest)) == body


def test_pipelined_requests_are_answered_in_order(http: RunningServer) -> None:
    """A hundred requests sent at once, with bodies of both framings, get their answers in order."""
    sent = b""
    for number in range(100):
        if number % 2:
            sent += get(f"/echo?{number}", "Transfer-Encoding: chunked\r\n", "POST") + b"3\r\nabc\r\n0\r\n\r\n"
        else:
            sent += get(f"/echo?{number}", "Content-Length: 3\r\n", "POST") + b"abc"
    sent += get("/echo", "Connection: close\r\n")
    answers = http.talk(sent)
    assert answers.count(b"HTTP/1.1 200 OK") == 101 and answers.count(b"POST:abc") == 100
    order = [answers.index(b"X-Query: %d\r\n" % number) for number in range(100)]
    assert order == sorted(order)
    assert answers.endswith(b"GET:")


def test_a_request_may_come_byte_by_byte(http: RunningServer) -> None:
    """Where the bytes are cut doesn't matter."""
    data = get("/echo", "Transfer-Encoding: chunked\r\nConnection: close\r\n", "PUT")
    data += b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n"
    with http.connect() as sock:
        for index in range(len(data)):
            sock.sendall(data[index : index + 1])
        assert read_all(sock).endswith(b"PUT:hello!")


def test_streams_are_chunked_and_the_connection_is_kept(http: RunningServer) -> None:
    """A streamed answer ends with the last chunk; empty chunks don't end it early."""
    answer = http.talk(get("/three") + get("/echo", "Connection: close\r\n"))
    assert b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\nHTTP/1.1 200 OK" in answer


def test_http_1_0_streams_end_with_the_connection(http: RunningServer) -> None:
    """A client of HTTP/1.0 gets no chunks."""
    answer = http.talk(b"GET /three HTTP/1.0\r\n\r\n")
    assert b"Connection: close" in answer and answer.endswith(b"\r\n\r\nonetwothree")


def test_head_has_no_body(http: RunningServer) -> None:
    """HEAD gets the headers alone."""
    answer = http.talk(get("/echo", method="HEAD") + get("/three", "Connection: close\r\n", "HEAD"))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b"HEAD:" not in answer and b"one" not in answer


def test_a_stream_that_fails_is_cut_off(http: RunningServer) -> None:
    """An error in the middle closes the connection without a last chunk, so that the client sees that it is short."""
    with http.connect() as sock:
        sock.sendall(get("/broken"))
        data = b""
        try:
            data = read_all(sock)
        except ConnectionResetError:
            pass
        assert b"0\r\n\r\n" not in data


def test_100_continue_is_sent_when_the_body_is_wanted(http: RunningServer) -> None:
    """A client that waits for permission gets it, and only where somebody reads the body."""
    with http.connect() as sock:
        sock.sendall(get("/echo", "Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n", "POST"))
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"ok")
        assert read_all(sock).endswith(b"POST:ok")
    answer = http.talk(get("/nowhere", "Content-Length: 2\r\nExpect: 100-continue\r\n", "POST"))
    assert answer.startswith(b"HTTP/1.1 404") and b"Connection: close" in answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (get("/echo", "Content-Length: 1\r\nContent-Length: 2\r\n", "POST"), 400),
        (get("/echo", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "POST"), 400),
        (get("/echo", "Content-Length: -1\r\n", "POST"), 400),
        (get("/echo", "Content-Length: +1\r\n", "POST"), 400),
        (get("/echo", "Content-Length: 99999999999999999999\r\n", "POST"), 400),
        (get("/echo", "Transfer-Encoding: gzip, chunked\r\n", "POST"), 501),
        (b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (get("/echo", "Transfer-Encoding: chunked\r\n", "POST") + b"zz\r\n", 400),
        (get("/echo", "Transfer-Encoding: chunked\r\n", "POST") + b"2\r\nabc\r\n", 400),
        (get("/echo", "Transfer-Encoding: chunked\r\n", "POST") + b"-1\r\n", 400),
        (get("/echo", "".join(f"H{i}: x\r\n" for i in range(2000))), 431),
    ],
)
def test_what_is_no_request_is_refused(http: RunningServer, data: bytes, status: int) -> None:
    """Malformed heads and ambiguous framing (request smuggling) get an answer and the connection ends."""
    answer = http.talk(data)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_head_of_more_than_1_mib_is_refused(http: RunningServer) -> None:
    """The server doesn't collect headers without end."""
    with http.connect() as sock:
        try:
            sock.sendall(b"GET / HTTP/1.1\r\nX: ")
            for _ in range(40):
                sock.sendall(CHUNK)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            assert sock.recv(12) == b"HTTP/1.1 431"
        except ConnectionResetError:
            pass
    wait_until(lambda: http.connections() == 0, "the connection is gone")


def test_a_body_beyond_its_limit_is_refused_before_it_is_read(http: RunningServer) -> None:
    """read_whole stops at its limit; the client isn't made to send the rest."""
    with http.connect() as sock:
        sock.sendall(get("/echo", "Content-Length: 1000000000\r\n", "POST"))
        try:
            for _ in range(64):
                sock.sendall(CHUNK)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            answer = read_all(sock)
        except ConnectionResetError:
            pass
        assert not answer or b"larger than 1048576 bytes" in answer


def test_a_large_body_arrives_whole(both: RunningServer) -> None:
    """64 MiB have the same digest on the other side."""
    block = os.urandom(1 << 20)
    expected = hashlib.sha256()
    with both.connect() as sock:
        sock.sendall(get("/digest", f"Content-Length: {64 << 20}\r\nConnection: close\r\n", "POST"))
        for _ in range(64):
            sock.sendall(block)
            expected.update(block)
        assert read_all(sock).endswith(expected.hexdigest().encode())


def test_a_body_that_nobody_reads_stays_in_the_socket(http: RunningServer, seen: Watched) -> None:
    """While the handler doesn't read, the client's writes block; when it does, everything arrives."""
    with http.connect() as sock:
        sock.sendall(get("/unread", f"Content-Length: {32 << 20}\r\nConnection: close\r\n", "POST"))
        assert seen.started.wait(60)
        sock.settimeout(0.3)
        sent = 0
        try:
            while sent < 32 << 20:
                sent += sock.send(CHUNK)
        except TimeoutError:
            pass
        assert sent < 8 << 20
        http.loop.call_soon_threadsafe(seen.may_read.set)
        sock.settimeout(60)
        left = (32 << 20) - sent
        while left:
            left -= sock.send(CHUNK[:left])
        assert read_all(sock).endswith(b"%d" % (32 << 20))


def test_a_slow_client_holds_the_stream_back(http: RunningServer, seen: Watched) -> None:
    """While the client doesn't read, the producer waits: little more than the buffers is made."""
    with http.connect() as sock:
        sock.sendall(get("/endless"))
        assert seen.started.wait(60)
        read_exactly(sock, 1 << 20)
        last = -1

        def settled() -> bool:
            nonlocal last
            same, last = last == seen.sent_bytes, seen.sent_bytes
            return same

        wait_until(settled, "the producer stops")
        assert seen.sent_bytes < 4 << 20
        before = seen.sent_bytes
        read_exactly(sock, 2 << 20)
        wait_until(lambda: seen.sent_bytes > before, "the producer goes on")
    assert seen.closed.wait(60)


def test_a_fast_stream_leaves_room_for_others(http: RunningServer) -> None:
    """While one client takes an endless stream as fast as it comes, another gets its answers."""
    stop = threading.Event()

    def take() -> None:
        with http.connect() as sock:
            sock.sendall(get("/endless"))
            while not stop.is_set():
                sock.recv(1 << 20)

    taker = threading.Thread(target=take)
    taker.start()
    try:
        for _ in range(20):
            assert http.talk(get("/echo", "Connection: close\r\n")).endswith(b"GET:")
    finally:
        stop.set()
        taker.join(60)


@pytest.mark.parametrize("path", ["/hang", "/quiet", "/endless"])
def test_a_vanished_client_costs_nothing(both: RunningServer, seen: Watched, path: str) -> None:
    """When a client closes, its request is cancelled and its stream let go, even if the stream was silent."""
    with both.connect() as sock:
        sock.sendall(get(path))
        assert seen.started.wait(60)
    assert (seen.cancelled if path == "/hang" else seen.closed).wait(60)
    wait_until(lambda: both.connections() == 0, "the connection is gone")


def test_a_half_closed_client_still_gets_its_answer(both: RunningServer) -> None:
    """`printf … | nc -N`: the end of the input is not the end of the client."""
    assert both.talk(get("/three"), end=True).endswith(b"0\r\n\r\n")


def test_a_half_closed_unix_client_is_noticed_when_it_closes(http: RunningServer, seen: Watched) -> None:
    """A silent stream whose client had half-closed ends when the client closes for good."""
    with http.connect() as sock:
        sock.sendall(get("/quiet"))
        sock.shutdown(socket.SHUT_WR)
        assert seen.started.wait(60)
        read_until(sock, b"\r\n\r\n")
        assert not seen.closed.is_set()
    assert seen.closed.wait(60)


def test_a_body_that_breaks_off_is_an_error(http: RunningServer) -> None:
    """A client that half-closes in the middle of its body is told so."""
    answer = http.talk(get("/echo", "Content-Length: 10\r\n", "POST") + b"abc", end=True)
    assert answer.startswith(b"HTTP/1.1 400") and answer.endswith(b"unexpected EOF")


@pytest.mark.parametrize("upgrade", [True, False])
def test_hijacking_with_input_sent_ahead(both: RunningServer, upgrade: bool) -> None:
    """Bytes behind the request belong to the raw stream, even before the answer; a half-close ends only one way."""
    more = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
    with both.connect() as sock:
        sock.sendall(get("/raw", more + "Content-Length: 0\r\n", "POST") + b"GET / HTTP/1.1\r\n\r\nnot http")
        head = read_until(sock, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n" if upgrade else b"HTTP/1.1 200 OK\r\n")
        sock.sendall(b"more")
        sock.shutdown(socket.SHUT_WR)
        raw = head.partition(b"\r\n\r\n")[2] + read_all(sock)
        assert raw == b"GET / HTTP/1.1\r\n\r\nnot httpmorebye"


def test_hijacked_streams_push_back_both_ways(http: RunningServer) -> None:
    """64 MiB echoed through a raw stream, by a client that reads and writes at once, come back whole."""
    block = os.urandom(1 << 20)
    with http.connect() as sock:
        sock.sendall(get("/raw", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "POST"))
        read_until(sock, b"\r\n\r\n")

        def send() -> None:
            for _ in range(64):
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=send)
        writer.start()
        back = hashlib.sha256()
        expected = hashlib.sha256(block * 64).hexdigest()
        left = 64 << 20
        while left:
            chunk = sock.recv(min(left, 1 << 20))
            assert chunk
            back.update(chunk)
            left -= len(chunk)
        writer.join(60)
        assert back.hexdigest() == expected and read_all(sock) == b"bye"


def test_a_hijacked_client_that_half_closed_is_noticed_when_it_closes(http: RunningServer, seen: Watched) -> None:
    """A raw stream that says nothing ends when its client, which had half-closed, closes for good."""
    with http.connect() as sock:
        sock.sendall(get("/raw?stay", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "POST"))
        sock.shutdown(socket.SHUT_WR)
        read_until(sock, b"bye")
        assert not seen.closed.is_set()
    assert seen.closed.wait(60)
    wait_until(lambda: http.connections() == 0, "the connection is gone")


def test_a_header_cannot_begin_another(http: RunningServer) -> None:
    """Line ends in a header's value are taken out (response splitting)."""
    assert b"X-Value: a  X-Evil: 1\r\n" in http.talk(get("/header", "Connection: close\r\n"))


def test_an_upgrade_that_is_not_wanted_stays_http(http: RunningServer) -> None:
    """A handler that ignores `Upgrade: h2c` answers in HTTP, and the connection goes on."""
    answer = http.talk(
        get("/echo", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n")
        + get("/echo", "Connection: close\r\n", "PUT")
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 2 and answer.endswith(b"PUT:")


PIECES = [
    b"GET /echo HTTP/1.1\r\n",
    b"POST /echo HTTP/1.1\r\n",
    b"POST /raw HTTP/1.1\r\n",
    b"Host: x\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"abc",
    b"\0",
    b"Upgrade: tcp\r\n",
    b"Connection: Upgrade\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b" ",
    b":",
    b"HEAD /three HTTP/1.0\r\n",
]


def test_no_input_breaks_the_server(http: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever pieces of HTTP come in whatever order and cut, there is no unexpected error, and the server goes on."""

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=5)), max_size=15), st.booleans())
    def check(pieces: list[bytes], at_once: bool) -> None:
        with http.connect() as sock:
            try:
                for piece in [b"".join(pieces)] if at_once else pieces:
                    sock.sendall(piece)
                sock.shutdown(socket.SHUT_WR)
                read_all(sock)
            except ConnectionError:
                pass

    check()
    assert http.talk(get("/echo", "Connection: close\r\n")).endswith(b"GET:")
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_streams_do_not_hold_up_the_end(seen: Watched, tmp_path: Path) -> None:
    """A server that closes cuts endless streams at once, and lets a request that began before answer."""
    with running(seen, tmp_path) as server:
        stream, raw, slow = server.connect(), server.connect(), server.connect()
        stream.sendall(get("/quiet"))
        read_until(stream, b"\r\n\r\n")
        raw.sendall(get("/raw?stay", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "POST"))
        read_until(raw, b"\r\n\r\n")
        slow.sendall(get("/unread", "Content-Length: 2\r\n", "POST"))
        wait_until(lambda: server.connections() == 3, "three connections")
        wait_until(lambda: sum(one.busy for one in server.server.connections) == 3, "three requests run")
        closing = asyncio.run_coroutine_threadsafe(server.server.close(grace_s=20), server.loop)
        assert stream.recv(1) == b"" and raw.recv(100) in (b"", b"bye")
        assert not closing.done()
        slow.sendall(b"ok")
        server.loop.call_soon_threadsafe(seen.may_read.set)
        assert read_all(slow).endswith(b"2")
        closing.result(60)
        for sock in (stream, raw, slow):
            sock.close()


def test_closing_the_server_ends_what_runs(seen: Watched, tmp_path: Path) -> None:
    """Idle connections are closed at once, running requests after the time they are given; nothing is left."""
    with running(seen, tmp_path) as server:
        idle, busy = server.connect(), server.connect()
        busy.sendall(get("/hang"))
        assert seen.started.wait(60)
    assert seen.cancelled.is_set()
    for sock in (idle, busy):
        assert sock.recv(1) == b""
        sock.close()
