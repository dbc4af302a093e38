"""Connections taken over, spoken by hand: both hijack forms, half-close, framing, versions; on both engines."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.rawhttp import RawClient, demultiplex, read_all


def interactive(engine: Engine, *, tty: bool = False, command: str = "cat; echo done") -> str:
    """A created container with open stdin; its id."""
    body = {"Cmd": ["sh", "-c", command], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True, "Tty": tty}
    answer = engine.create(body)
    assert answer.status == 201, answer
    return str(answer.json["Id"])


ATTACH = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1}


@pytest.mark.parametrize("upgrade", [True, False])
def test_both_forms_of_taking_over(engine: Engine, upgrade: bool) -> None:
    """With Upgrade the answer is 101, without it the older 200; either way raw bytes follow, and half-close works."""
    container = interactive(engine)
    status, headers, sock, rest = engine.api.hijack(f"/containers/{container}/attach", query=ATTACH, upgrade=upgrade)
    assert status == (101 if upgrade else 200)
    if upgrade:
        assert (headers["connection"], headers["upgrade"]) == ("Upgrade", "tcp")
    assert headers["content-type"] in (
        "application/vnd.docker.raw-stream",
        "application/vnd.docker.multiplexed-stream",
    )
    engine.api.request("POST", f"/containers/{container}/start")
    sock.sendall(b"through\n")
    sock.shutdown(socket.SHUT_WR)
    assert demultiplex(read_all(sock, rest)) == {1: b"through\ndone\n", 2: b""}
    sock.close()
    assert engine.exit_code(container) == 0


def test_input_sent_with_the_request(tare: Engine) -> None:
    """Bytes that follow the request's head in the same packet are stdin, not lost (as Docker loses them)."""
    engine = tare
    container = interactive(engine, command="head -c 5")
    engine.api.request("POST", f"/containers/{container}/start")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(engine.socket))
        path = f"/v1.41/containers/{container}/attach?stream=1&stdin=1&stdout=1"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        sock.sendall(head.encode() + b"early")
        received = read_all(sock)
    assert received.partition(b"\r\n\r\n")[2][8:] == b"early"


def test_terminal_streams_are_raw(engine: Engine) -> None:
    """With a terminal the stream has no frames."""
    container = interactive(engine, tty=True, command="echo raw")
    _, headers, sock, rest = engine.api.hijack(f"/containers/{container}/attach", query=ATTACH)
    assert headers["content-type"] == "application/vnd.docker.raw-stream"
    engine.api.request("POST", f"/containers/{container}/start")
    assert read_all(sock, rest) == b"raw\r\n"
    sock.close()


def test_attach_with_logs(engine: Engine) -> None:
    """logs=1 replays what was written before, then the stream goes on."""
    container = engine.start(command=["sh", "-c", "echo past; while [ ! -e /go ]; do sleep 0.05; done; echo future"])
    wait_until(lambda: "past" in engine.logs(container), "the past is written")
    query = {"logs": 1, "stream": 1, "stdout": 1}
    _, _, sock, rest = engine.api.hijack(f"/containers/{container}/attach", query=query)
    engine.docker("exec", container, "touch", "/go")
    assert demultiplex(read_all(sock, rest))[1] == b"past\nfuture\n"
    sock.close()
    _, _, sock, rest = engine.api.hijack(f"/containers/{container}/attach", query={"logs": 1, "stdout": 1})
    assert demultiplex(read_all(sock, rest))[1] == b"past\nfuture\n"
    sock.close()


def test_client_that_leaves_ends_nothing(engine: Engine) -> None:
    """A client that hangs up without a word leaves the program running; the next one can attach."""
    container = engine.start(command=["sh", "-c", "while :; do echo tick; sleep 0.05; done"])
    for _ in range(3):
        _, _, sock, _ = engine.api.hijack(f"/containers/{container}/attach", query={"stream": 1, "stdout": 1})
        sock.recv(20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    assert engine.inspect(container)["State"]["Running"]


def test_reader_that_stalls_blocks_nobody_else(tare: Engine) -> None:
    """A client that doesn't read hinders neither another client nor the container's end and removal.

    Not asked of dockerd: there such a container can't be killed until that client goes away (moby#41827).
    """
    container = tare.start(command=["sh", "-c", "while :; do head -c 65536 /dev/zero | tr '\\0' x; echo; done"])
    _, _, stalled, _ = tare.api.hijack(f"/containers/{container}/attach", query={"stream": 1, "stdout": 1})
    tare.docker("kill", container)
    assert tare.exit_code(container) == 137
    assert container not in tare.docker("ps", "--quiet", "--no-trunc").out
    tare.docker("rm", container)
    stalled.close()


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.40", "1.41", "1.44", "1.50", "1.55"])
def test_version_prefixes(tare: Engine, version: str) -> None:
    """Every version from 1.24 to 1.55 is answered; the header tells the newest."""
    client = RawClient(str(tare.socket), version=version)
    for path in ("/_ping", "/version", "/info", "/containers/json?all=1", "/images/json"):
        answer = client.request("GET", path, check=version == "1.55")
        assert answer.status == 200 and answer.headers["api-version"] == "1.55"


def test_keep_alive_and_pipelining(engine: Engine) -> None:
    """Two requests in one packet get two answers on one connection, in order."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(engine.socket))
        sock.sendall(
            b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        received = read_all(sock)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.index(b"\r\n\r\nOK") < received.index(b'"ApiVersion"')


def test_chunked_request_body(engine: Engine) -> None:
    """A body in chunks, as clients send a tar from a pipe, is read whole."""
    body = json.dumps({"Image": engine.image, "Cmd": ["true"]}).encode()
    chunks = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    head = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(engine.socket))
        sock.sendall(head + b"Content-Type: application/json\r\n\r\n" + chunks)
        assert read_all(sock).startswith(b"HTTP/1.1 201 ")


def test_expect_continue(engine: Engine) -> None:
    """curl's `Expect: 100-continue` is answered before the body is sent."""
    body = json.dumps({"Image": engine.image, "Cmd": ["true"]}).encode()
    head = f"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(engine.socket))
        sock.sendall(head.encode() + b"Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n")
        first = sock.recv(100)
        assert first.startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        assert b"HTTP/1.1 201 " in read_all(sock, first)


def test_many_clients_at_once(engine: Engine) -> None:
    """Fifty connections at a time are all answered."""
    socks = []
    for _ in range(50):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(60)
        sock.connect(str(engine.socket))
        socks.append(sock)
    for sock in socks:
        sock.sendall(b"GET /containers/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    for sock in socks:
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")
        sock.close()
