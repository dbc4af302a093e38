"""Decompression in a second thread while the first writes files.

Must never let the second thread read the caller's stream (a read may block for ever), nor outlive `close`.

    caller's thread ── packed chunks, at most 4 ahead ──→ unpacking thread
                    ←── plain chunks, at most 4 ahead; None for each packed chunk taken, so that one more is read ──
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

_CHUNKS_AHEAD = 4
_END = b""


class Ahead:
    """Iterates over `unpack(source)`, where unpack runs in a thread of its own and source in the caller's."""

    def __init__(self, source: Iterator[bytes], unpack: Callable[[Iterator[bytes]], Iterator[bytes]]) -> None:
        self._source = source
        self._unpack = unpack
        self._packed: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._plain: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_CHUNKS_AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="tare-unpack", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(_CHUNKS_AHEAD):
            self._feed()
        while (item := self._plain.get()) != _END:
            if item is None:
                self._feed()
            elif isinstance(item, BaseException):
                raise item
            else:
                self._room.release()
                yield item

    def close(self) -> None:
        """Ends the thread after the chunk that it is at."""
        self._stopped = True
        self._packed.put(_END)
        self._room.release()
        self._thread.join()

    def _feed(self) -> None:
        self._packed.put(next(self._source, _END))

    def _taken(self) -> Iterator[bytes]:
        while not self._stopped and (chunk := self._packed.get()):
            self._plain.put(None)
            yield chunk

    def _work(self) -> None:
        try:
            for chunk in self._unpack(self._taken()):
                self._room.acquire()
                if self._stopped:
                    return
                self._plain.put(chunk)
            self._plain.put(_END)
        except BaseException as error:  # raised again in the caller's thread
            self._plain.put(error)
