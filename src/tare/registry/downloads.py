"""Blobs on their way in, each into a file of its own (`partials.py`): what broke off goes on where it was.

Must never call a file whole before its digest has been checked, nor let one grow beyond the size that was promised.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from tare import faults
from tare.errors import InvalidArgument, TareError, TooLarge, Unavailable
from tare.registry.patience import SLOW_BYTES
from tare.registry.records import Interrupted
from tare.registry.repository import Repository
from tare.registry.transport import Answer
from tare.storage.limits import DEFAULT_LIMITS

_READ_BYTES = 1 << 20
MAX_BLOB_BYTES = 1 << 40
CHOOSY_BYTES = 1 << 20
"""What a source must send in SLOW_WINDOW_S where another registry may have the blob as well."""

Progress = Callable[[int], None]


class Download:
    """One blob from one repository (or from the next, where one fails). size: as the manifest says.

    sources may grow meanwhile.
    """

    def __init__(self, digest: str, size: int, sources: list[Repository]) -> None:
        if not 0 <= size <= MAX_BLOB_BYTES:
            raise InvalidArgument(f"layer {digest} claims to have {size} bytes")
        self._digest = digest
        self._size = size
        self._sources = sources

    def fill(self, fd: int, progress: Progress, wait_retry: Callable[[int], None], attempts: int) -> None:
        """Fills the file. wait_retry(s) waits before the next attempt, or raises Cancelled.

        Raises Interrupted, Unavailable when all attempts failed, InvalidArgument for a wrong length.
        """
        DEFAULT_LIMITS.check_space(fd, self._size, f"layer {self._digest}")
        failed, source = 0, 0
        while True:
            before = os.fstat(fd).st_size
            try:
                self._append(fd, self._sources[source % len(self._sources)], progress)
                break
            except (Interrupted, Unavailable):
                # Progress made is a registry that lives: only fruitless attempts count, and those that trickled.
                failed = 0 if os.fstat(fd).st_size - before >= min(SLOW_BYTES, self._size) else failed + 1
                if failed >= attempts:
                    raise
                source += 1
                if failed and source % len(self._sources) == 0:
                    wait_retry(min(2 ** (failed - 1), 30))
            except TareError:
                source += 1
                if source >= len(self._sources):
                    raise
        faults.point("registry.download.written")

    def _append(self, fd: int, source: Repository, progress: Progress) -> None:
        have = os.fstat(fd).st_size
        if have > self._size:
            os.ftruncate(fd, 0)
            have = 0
        progress(have)
        if have == self._size:
            return
        answer = source.open_blob(self._digest, have)
        try:
            if answer.status == 200:
                os.ftruncate(fd, 0)
                have = 0
            self._refuse_wrong_length(answer, have)
            os.lseek(fd, have, os.SEEK_SET)
            for piece in answer.pieces(self._least):
                have += len(piece)
                if have > self._size:
                    os.ftruncate(fd, 0)
                    raise TooLarge(f"layer {self._digest} is larger than the {self._size} bytes that were promised")
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
                progress(have)
                faults.point("registry.download.piece")
        finally:
            answer.close()
        if have < self._size:
            raise Interrupted(f"{answer.url}: unexpected EOF")

    def _least(self) -> int:
        several = len({source.endpoint.domain for source in self._sources}) > 1
        return CHOOSY_BYTES if several else SLOW_BYTES

    def _refuse_wrong_length(self, answer: Answer, have: int) -> None:
        text = answer.headers.get("content-length", "")
        if text.isascii() and text.isdigit() and len(text) < 18 and have + int(text) != self._size:
            raise InvalidArgument(f"layer {self._digest} should have {self._size} bytes, not {have + int(text)}")

    def check(self, fd: int) -> None:
        """Raises InvalidArgument, and empties the file, unless its bytes have the digest."""
        sha256 = hashlib.sha256()
        os.lseek(fd, 0, os.SEEK_SET)
        while piece := os.read(fd, _READ_BYTES):
            sha256.update(piece)
        if f"sha256:{sha256.hexdigest()}" != self._digest:
            os.ftruncate(fd, 0)
            raise InvalidArgument(f"filesystem layer verification failed for digest {self._digest}")
        faults.point("registry.download.checked")
