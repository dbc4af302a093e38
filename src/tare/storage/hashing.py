"""A digest computed in a second thread while the first goes on with the data.

Must never be left running: `finish` or `close` ends the thread.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator

_QUEUE_CHUNKS = 32
# Each chunk handed over wakes the other thread, which costs more than its digest if it is a header of 512 bytes.
_GATHERED_BYTES = 64 << 10


class ThreadedDigest:
    """sha256 of the chunks given to `update`, which must not change afterwards."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._queue: queue.Queue[bytes] = queue.Queue(_QUEUE_CHUNKS)
        self._small: list[bytes] = []
        self._small_bytes = 0
        self._thread = threading.Thread(target=self._work, name="tare-digest", daemon=True)
        self._running = True
        self._thread.start()
        self.total = 0

    def _work(self) -> None:
        while chunk := self._queue.get():
            self._sha256.update(chunk)  # releases the interpreter's lock

    def update(self, chunk: bytes) -> None:
        size = len(chunk)
        self.total += size
        if size >= _GATHERED_BYTES and not self._small:
            self._queue.put(chunk)
        elif size:
            self._small.append(chunk)
            self._small_bytes += size
            if self._small_bytes >= _GATHERED_BYTES:
                self._hand_over()

    def _hand_over(self) -> None:
        self._queue.put(b"".join(self._small))
        self._small.clear()
        self._small_bytes = 0

    def passing(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """`chunks`, digested on their way."""
        for chunk in chunks:
            self.update(chunk)
            yield chunk

    def finish(self) -> str:
        if self._small:
            self._hand_over()
        self.close()
        return "sha256:" + self._sha256.hexdigest()

    def close(self) -> None:
        if self._running:
            self._running = False
            self._queue.put(b"")
            self._thread.join()
