"""A registry in a few lines that answers as a test scripts it: tokens, broken bodies, lies, redirects, silence.

It serves what is put into it by the distribution specification; a test overrides single paths.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Heard(NamedTuple):
    """A request that came in."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


Answerer = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request, which a test's function may answer as it likes."""

    protocol_version = "HTTP/1.1"
    registry: ScriptedRegistry
    body: bytes = b""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        self.registry.handle(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole answer; _ in a header's name stands for -."""
        self.send_response(status)
        shown = {name.replace("_", "-"): value for name, value in headers.items()}
        if "Content-Length" not in shown:
            shown["Content-Length"] = str(len(body))
        for name, value in shown.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str, **headers: str) -> None:
        """An error by the specification."""
        self.answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), **headers)


class Built(NamedTuple):
    """An image as documents and blobs."""

    manifest: dict[str, Any]
    blobs: dict[str, bytes]
    diff_ids: list[str]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(**files: bytes) -> bytes:
    """A tar of files, with times that don't change."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def build(*tars: bytes, architecture: str = "amd64", level: int = 9, **config: Any) -> Built:
    """An image of gzipped layers."""
    packed = [gzip.compress(tar, level, mtime=7) for tar in tars]
    diff_ids = [digest_of(tar) for tar in tars]
    document = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    raw = json.dumps({**document, **config}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(raw), "size": len(raw)},
        "layers": [{"mediaType": LAYER, "digest": digest_of(one), "size": len(one)} for one in packed],
    }
    return Built(manifest, {digest_of(raw): raw} | {digest_of(one): one for one in packed}, diff_ids)


class ScriptedRegistry:
    """Serves `documents` (by path below /v2/) and `blobs`; `script` has functions for paths that come first."""

    def __init__(self) -> None:
        self.documents: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.script: dict[str, Answerer] = {}
        self.heard: list[Heard] = []
        self.stopping = threading.Event()
        handler = type("Bound", (Exchange,), {"registry": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, name: str, tag: str, document: dict[str, Any] | bytes, media_type: str = MANIFEST) -> str:
        """Serves a manifest or index under a tag and its digest; returns that."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        for key in (tag, digest_of(raw)):
            self.documents[f"{name}/manifests/{key}"] = (media_type, raw)
        return digest_of(raw)

    def put_image(self, name: str, tag: str, built: Built) -> str:
        self.blobs |= built.blobs
        return self.put(name, tag, built.manifest)

    def asked(self, part: str, method: str = "GET") -> list[Heard]:
        """Requests with this in their path."""
        return [one for one in self.heard if part in one.path and one.method == method]

    def handle(self, exchange: Exchange) -> None:
        parts = urlsplit(exchange.path)
        headers = {name.lower(): value for name, value in exchange.headers.items()}
        self.heard.append(Heard(exchange.command, parts.path, parse_qs(parts.query), headers))
        length = int(headers.get("content-length", 0) or 0)
        exchange.body = exchange.rfile.read(length) if length else b""
        for path, answerer in self.script.items():
            if path in parts.path:
                return answerer(exchange)
        self.serve(exchange)

    def serve(self, exchange: Exchange) -> None:
        """By the specification."""
        path = urlsplit(exchange.path).path.removeprefix("/v2/")
        if path == "":
            return exchange.answer(200, b"{}")
        if path in self.documents:
            media_type, raw = self.documents[path]
            return exchange.answer(200, raw, Content_Type=media_type, Docker_Content_Digest=digest_of(raw))
        digest = path.rpartition("/")[2]
        if "/blobs/" in path and digest in self.blobs:
            data = self.blobs[digest]
            wanted = exchange.headers.get("Range", "")
            if wanted.startswith("bytes=") and wanted.endswith("-"):
                start = int(wanted[6:-1])
                shown = f"bytes {start}-{len(data) - 1}/{len(data)}"
                return exchange.answer(206, data[start:], Content_Range=shown)
            return exchange.answer(200, data)
        exchange.refuse(404, "MANIFEST_UNKNOWN" if "/manifests/" in path else "BLOB_UNKNOWN", "it isn't here")
