"""The layers of an archive on their way into the store, each unpacked in a thread of its own while the next comes in.

Must never hold more of an archive than AHEAD_BYTES in memory, nor leave a thread behind that still works.

    caller's thread ── reads the archive, chunks of the layer that it stands on ──→ that layer's thread ──→ the store
                    ←── what became of it, in the archive's order ──
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from tare.storage.decompress import Readable
from tare.storage.layers import Blob

AHEAD_BYTES = 32 << 20
_MOST_AT_ONCE = 4

Store = Callable[[Readable], Blob]


class _Abandoned(Exception):
    """The archive ended, or was refused, before this layer was whole."""


class Arriving:
    """Use: `take` for each layer, then `settle`; where anything fails, `abandon`. All in one thread."""

    def __init__(self, at_once: int | None = None) -> None:
        self._at_once = at_once or min(_MOST_AT_ONCE, len(os.sched_getaffinity(0)))
        self._shared = _Shared()
        self._under_way: deque[_Arrival] = deque()

    def take(self, read: Callable[[], bytes], store: Store, done: Callable[[Blob], None]) -> None:
        """Reads a layer to its end (b"") and has it stored. `done` hears of it by the end of `settle`, in this thread.

        Raises what became of an earlier layer.
        """
        while len(self._under_way) >= self._at_once:
            self._finish_first()
        arrival = _Arrival(self._shared, store, done)
        self._under_way.append(arrival)
        while chunk := read():
            if not arrival.put(chunk):
                self.settle()
        arrival.end()

    def settle(self) -> None:
        """Waits for every layer; raises what became of the first that failed."""
        while self._under_way:
            self._finish_first()

    def _finish_first(self) -> None:
        arrival = self._under_way[0]
        arrival.thread.join()
        if arrival.error is not None:
            raise arrival.error
        assert arrival.blob is not None
        self._under_way.popleft()
        arrival.done(arrival.blob)

    def abandon(self) -> BaseException | None:
        """Ends what is under way; returns what the first layer failed of, which tells more than what came after it."""
        for arrival in self._under_way:
            arrival.abandon()
        for arrival in self._under_way:
            arrival.thread.join()
        failures = [arrival.error for arrival in self._under_way if arrival.error is not None]
        self._under_way.clear()
        return next((error for error in failures if not isinstance(error, _Abandoned)), None)


class _Shared:
    """What all layers of one archive share. waiting_bytes: read, but not yet taken by their threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting_bytes = 0


class _Arrival:
    """One layer: a stream that its own thread reads and stores."""

    def __init__(self, shared: _Shared, store: Store, done: Callable[[Blob], None]) -> None:
        self.done = done
        self.blob: Blob | None = None
        self.error: BaseException | None = None
        self._shared = shared
        self._store = store
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._abandoned = False
        self.thread = threading.Thread(target=self._work, name="tare-layer", daemon=True)
        self.thread.start()

    # -- the caller's side --------------------------------------------------------------------------------------------

    def put(self, chunk: bytes) -> bool:
        """Hands a chunk on, waiting for room. False if the layer has failed."""
        shared = self._shared
        with shared.changed:
            while shared.waiting_bytes > AHEAD_BYTES - len(chunk) and shared.waiting_bytes and self.error is None:
                shared.changed.wait()
            if self.error is not None:
                return False
            self._chunks.append(chunk)
            shared.waiting_bytes += len(chunk)
            shared.changed.notify_all()
        return True

    def end(self) -> None:
        with self._shared.changed:
            self._ended = True
            self._shared.changed.notify_all()

    def abandon(self) -> None:
        with self._shared.changed:
            self._abandoned = not self._ended
            self._shared.changed.notify_all()

    # -- its thread's side --------------------------------------------------------------------------------------------

    def read(self, size: int, /) -> bytes:
        """At least one byte, at most size; b"" at the end."""
        shared = self._shared
        with shared.changed:
            while not self._chunks and not self._ended and not self._abandoned:
                shared.changed.wait()
            if self._abandoned:
                raise _Abandoned
            if not self._chunks:
                return b""
            chunk = self._chunks.popleft()
            if len(chunk) > size:
                self._chunks.appendleft(chunk[size:])
                chunk = chunk[:size]
            shared.waiting_bytes -= len(chunk)
            shared.changed.notify_all()
        return chunk

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            self.blob = self._store(self)
        except BaseException as raised:  # raised again in the caller's thread
            error = raised
        with self._shared.changed:
            self.error = error
            self._shared.waiting_bytes -= sum(map(len, self._chunks))
            self._chunks.clear()
            self._shared.changed.notify_all()
