"""A unix-socket server that records the requests of any Docker client and answers just enough to keep it going."""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

CONTAINER_ID = "c" * 64


class Recorded:
    """One request: method, path without version prefix, query as a dict, parsed JSON body (or the bytes)."""

    def __init__(self, method: str, target: str, body: bytes) -> None:
        parts = urlsplit(target)
        self.method = method
        self.version, self.path = _split_version(parts.path)
        self.query = dict(sorted(parse_qsl(parts.query, keep_blank_values=True)))
        self.body: Any = body
        if body[:1] in (b"{", b"["):
            self.body = json.loads(body)

    def key(self) -> tuple[str, str, dict[str, str], Any]:
        return self.method, self.path, self.query, self.body

    def __repr__(self) -> str:
        return f"{self.method} {self.path} {self.query} {self.body!r}"


def _split_version(path: str) -> tuple[str, str]:
    head, _, rest = path[1:].partition("/")
    if head.startswith("v1.") and rest:
        return head, "/" + rest
    return "", path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _serve(self) -> None:
        request = Recorded(self.command, self.path, self._body())
        if request.path != "/_ping":
            self.server.requests.append(request)
        status, answer = self.server.answer(request)
        raw = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Api-Version", self.server.api_version)
        self.send_header("OSType", "linux")
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(raw)
            except BrokenPipeError:
                pass  # the client has read enough

    do_GET = do_HEAD = do_POST = do_DELETE = do_PUT = _serve


class Recorder(socketserver.ThreadingUnixStreamServer):
    """Listens on `path`; `requests` has what came, pings left out."""

    daemon_threads = True

    def __init__(self, path: Path, api_version: str = "1.50") -> None:
        super().__init__(str(path), _Handler)
        self.path = path
        self.api_version = api_version
        self.requests: list[Recorded] = []
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return f"unix://{self.path}"

    def answer(self, request: Recorded) -> tuple[int, Any]:
        found = self.answers.get((request.method, request.path))
        if found is not None:
            return found
        if request.path == "/_ping":
            return 200, "OK"
        if request.path == "/containers/create":
            return 201, {"Id": CONTAINER_ID, "Warnings": []}
        if request.path == "/info":
            return 200, {"OSType": "linux"}
        if request.method in ("POST", "DELETE"):
            return 204, None
        return 404, {"message": f"not recorded: {request.method} {request.path}"}

    def take(self) -> list[Recorded]:
        taken, self.requests = self.requests, []
        return taken

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(5)
