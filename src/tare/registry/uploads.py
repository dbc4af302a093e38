"""Blobs on their way out: asked for first, mounted from a sister repository where one has it, else sent.

Must never send a byte that the registry has, nor tell it a digest that wasn't computed from what was sent.

    small   POST uploads/ ─▶ location     PUT location?digest=…  with the whole body
    large   POST uploads/ ─▶ location     PATCH location, Content-Range …   (each answer tells the next location)
                                          GET location after a broken PATCH: how much has arrived
                                          PUT location?digest=…  empty
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tare import faults
from tare.errors import TareError, Unavailable
from tare.registry.records import Interrupted, RegistryFailure
from tare.registry.repository import Repository
from tare.registry.transport import Answer, same_origin
from tare.registry.words import failure_of

CHUNK_BYTES = 32 << 20
MAX_CHUNK_BYTES = 256 << 20
_PIECE_BYTES = 128 << 10
_SMALL_ANSWER = 64 << 10
# The slowest line that an upload is waited for: 16 KiB a second.
_MIN_RATE = 16 << 10
_CANNOT = (404, 405)

Progress = Callable[[int], None]


class Upload:
    """One blob, of a file, to one repository."""

    def __init__(self, repository: Repository, digest: str, fd: int, progress: Progress) -> None:
        self._repository = repository
        self._digest = digest
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._progress = progress
        self._chunk = CHUNK_BYTES

    def send(self, wait_retry: Callable[[int], None], attempts: int) -> None:
        """Sends the blob. Raises what the registry refuses; Interrupted, Unavailable when all attempts failed."""
        failed = 0
        while True:
            try:
                return self._send()
            except (Interrupted, Unavailable):
                failed += 1
                if failed >= attempts:
                    raise
                wait_retry(min(2 ** (failed - 1), 30))

    def _send(self) -> None:
        answer = self._repository.write("POST", self._repository.url("blobs/uploads/"), {"Content-Length": "0"})
        if answer.status != 202:
            raise failure_of(answer)
        location = self._next(answer)
        least = answer.headers.get("oci-chunk-min-length", "")
        if least.isascii() and least.isdigit() and len(least) < 12:
            self._chunk = min(max(self._chunk, int(least)), MAX_CHUNK_BYTES)
        answer.document(_SMALL_ANSWER)
        faults.point("registry.upload.begun")
        if self._size <= self._chunk:
            self._finish(location, self._pieces(0, self._size), self._size)
            return
        self._finish(self._patch_all(location), None, 0)

    def _patch_all(self, location: str) -> str:
        done, broken = 0, 0
        while done < self._size:
            until = min(done + self._chunk, self._size)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{done}-{until - 1}",
                "Content-Length": str(until - done),
            }
            try:
                answer = self._repository.write(
                    "PATCH", location, headers, self._pieces(done, until), timeout_s=self._patience_s(until - done)
                )
                if answer.status in (202, 201, 204):
                    location = self._next(answer)
                    answer.document(_SMALL_ANSWER)
                    done, broken = until, 0
                    faults.point("registry.upload.chunk")
                    continue
                error: TareError = failure_of(answer)
                if answer.status != 416:
                    raise error
            except Interrupted as interrupted:
                error = interrupted
            broken += 1
            if broken > 2:
                raise error
            location, done = self._where(location, error)
        return location

    def _where(self, location: str, error: TareError) -> tuple[str, int]:
        """After a broken chunk: (where to go on, how many bytes have arrived)."""
        answer = self._repository.read("GET", location)
        if answer.status != 204:
            answer.close()
            raise error
        first, _, last = answer.headers.get("range", "").replace("bytes=", "").partition("-")
        if first != "0" or not (last.isascii() and last.isdigit() and len(last) < 18):
            return location, 0
        arrived = int(last) + 1 if int(last) else 0
        return self._next(answer), min(arrived, self._size)

    def _finish(self, location: str, body: Iterator[bytes] | None, size: int) -> None:
        parts = urlsplit(location)
        query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("digest", self._digest)], safe="")
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        url = urlunsplit(parts._replace(query=query))
        answer = self._repository.write("PUT", url, headers, body, timeout_s=self._patience_s(size))
        if answer.status not in (201, 204):
            raise failure_of(answer)
        answer.document(_SMALL_ANSWER)
        faults.point("registry.upload.finished")

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            piece = os.pread(self._fd, min(_PIECE_BYTES, end - start), start)
            if not piece:
                raise RegistryFailure(f"{self._digest}: the file to upload has become shorter")
            start += len(piece)
            yield piece
            self._progress(start)

    @staticmethod
    def _patience_s(size: int) -> float:
        return 120.0 + size / _MIN_RATE

    def _next(self, answer: Answer) -> str:
        return self._repository.transport.location(self._repository.endpoint, answer)


def mount_blob(repository: Repository, digest: str, source: str) -> bool:
    """Asks for a blob that another repository of the registry has; says whether it is here now."""
    query = urlencode({"mount": digest, "from": source})
    answer = repository.write(
        "POST",
        repository.url(f"blobs/uploads/?{query}"),
        {"Content-Length": "0"},
        more_scopes=(f"repository:{source}:pull",),
    )
    if answer.status == 201:
        answer.document(_SMALL_ANSWER)
        return True
    if answer.status == 202:  # an upload was begun instead: taken back
        location = repository.transport.location(repository.endpoint, answer)
        answer.document(_SMALL_ANSWER)
        if same_origin(location, repository.endpoint.url):
            repository.write("DELETE", location).close()
        return False
    error = failure_of(answer)
    if answer.status in _CANNOT or answer.status in (400, 401, 403):
        return False
    raise error


def wait_s(seconds: float, cancelled: Callable[[], bool]) -> bool:
    """Waits in steps; False as soon as nobody wants it any more."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if cancelled():
            return False
        time.sleep(min(left, 0.1))
    return True
