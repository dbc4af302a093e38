"""Streams of real engines, Tare's and Docker's: hijacked answers, WebSockets, wait, and clients that vanish."""

from __future__ import annotations

import http.client
import json
import os
import socket

from test_websocket import HANDSHAKE, masked, received

from support.deadline import wait_until
from support.engine import Engine
from support.rawhttp import UnixConnection, demultiplex, read_all

SLEEP = {"Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}


def started(engine: Engine, body: dict[str, object]) -> str:
    created = engine.create(body)
    assert created.status == 201, created
    container = str(created.json["Id"])
    assert engine.api.request("POST", f"/containers/{container}/start").status == 204
    return container


def test_an_exec_told_in_the_stream_why_it_cannot_run(any_engine: Engine) -> None:
    """Both hijack forms: a command that isn't there is an ordinary stream with a sentence, and exit code 126 or 127."""
    container = started(any_engine, SLEEP)
    for upgrade in (True, False):
        made = any_engine.api.request(
            "POST", f"/containers/{container}/exec", {"Cmd": ["/no/such"], "AttachStdout": True, "AttachStderr": True}
        )
        exec_id = made.json["Id"]
        status, headers, sock, rest = any_engine.api.hijack(
            f"/exec/{exec_id}/start", {"Detach": False}, upgrade=upgrade
        )
        with sock:
            assert status == (101 if upgrade else 200)
            assert (headers.get("upgrade") == "tcp") == upgrade
            assert headers["content-type"].startswith("application/vnd.docker.")
            text = demultiplex(read_all(sock, rest))[1].decode()
        assert "no such file or directory" in text or "not found" in text
        answer = any_engine.api.request("GET", f"/exec/{exec_id}/json")
        assert answer.json["ExitCode"] in (126, 127) and answer.json["Running"] is False
    any_engine.api.request("DELETE", f"/containers/{container}", query={"force": "1"})


def test_docker_py_loses_no_output(any_engine: Engine) -> None:
    """docker-py reads past its own buffer after the head; output that comes at once must not be in there."""
    container = any_engine.sdk.containers.run(any_engine.image, ["sleep", "1000"], detach=True, network_mode="none")
    try:
        for _ in range(15):
            code, (out, err) = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
            assert (code, out, err) == (3, b"out\n", b"err\n")
    finally:
        container.remove(force=True)


def test_attach_in_a_websocket(any_engine: Engine) -> None:
    """Input goes in as frames, output of both kinds comes out without Docker's own frames."""
    body = {**SLEEP, "Cmd": ["sh", "-c", "read x; echo got $x; echo err >&2"], "OpenStdin": True}
    container = started(any_engine, body)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(any_engine.socket))
        path = f"/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1"
        more = "Host: localhost\r\nOrigin: http://localhost\r\n"
        sock.sendall(f"GET {path} HTTP/1.1\r\n{more}{HANDSHAKE}\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        sock.sendall(masked(2, b"hello\n"))
        data = b""
        while not (b"got hello\n" in data and b"err\n" in data):
            opcode, part = received(sock)
            assert opcode in (1, 2), (opcode, data)
            data += part
    assert any_engine.exit_code(container) == 0
    any_engine.api.request("DELETE", f"/containers/{container}")


def test_wait_answers_its_head_at_once(any_engine: Engine) -> None:
    """A client that has wait's head can start what it waits for and won't miss the end."""
    container = str(any_engine.create({**SLEEP, "Cmd": ["sh", "-c", "exit 7"]}).json["Id"])
    connection = UnixConnection(str(any_engine.socket))
    connection.request("POST", f"/containers/{container}/wait?condition=next-exit")
    answer: http.client.HTTPResponse = connection.getresponse()
    assert answer.status == 200
    any_engine.api.request("POST", f"/containers/{container}/start")
    assert json.loads(answer.read())["StatusCode"] == 7
    connection.close()
    any_engine.api.request("DELETE", f"/containers/{container}")


def test_clients_that_vanish_leave_no_descriptor(any_engine: Engine) -> None:
    """Followers of logs, events, stats, attach and wait that just close cost the daemon nothing afterwards."""
    if not any_engine.is_tare:
        return  # how dockerd does it is its own matter
    body = {**SLEEP, "Cmd": ["sh", "-c", "while :; do echo tick; sleep 0.1; done"], "OpenStdin": True}
    container = started(any_engine, body)
    pid = _owner(any_engine)
    before = _descriptors(pid)
    for _ in range(5):
        for method, path in (
            ("GET", f"/containers/{container}/logs?follow=1&stdout=1"),
            ("GET", "/events"),
            ("GET", f"/containers/{container}/stats"),
            ("POST", f"/containers/{container}/attach?stream=1&stdin=1&stdout=1"),
            ("POST", f"/containers/{container}/wait"),
        ):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(60)
                sock.connect(str(any_engine.socket))
                sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert sock.recv(12) == b"HTTP/1.1 200"
    # a few may come and go with the daemon's own pools; 25 clients were there
    wait_until(lambda: _descriptors(pid) <= before + 10, "the daemon has as many descriptors as before", 15)
    any_engine.api.request("DELETE", f"/containers/{container}", query={"force": "1"})


def _owner(engine: Engine) -> int:
    """The daemon's process id, by SO_PEERCRED (unix(7))."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(engine.socket))
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
