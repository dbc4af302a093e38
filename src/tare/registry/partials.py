"""The files of blobs on their way in.

Must never be two writers' at once: whoever opens one sees to that.

    <root>/partial/<64 hex>      grows; kept for a day after it was last touched
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tare.storage.digests import checked_hex
from tare.storage.durable import make_private_directory

KEPT_S = 24 * 3600


class Partials:
    """The directory of blobs on their way in. One writer a digest is the caller's duty."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_private_directory(root)
        self.expire()

    def path(self, digest: str) -> Path:
        return self.root / checked_hex(digest)

    def expire(self) -> None:
        """Deletes what nobody has gone on with for a day."""
        for entry in os.scandir(self.root):
            try:
                if entry.stat(follow_symlinks=False).st_mtime < time.time() - KEPT_S:
                    os.unlink(entry.path)
            except FileNotFoundError:
                pass

    def drop(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)

    @contextmanager
    def opened(self, digest: str) -> Iterator[int]:
        """The blob's file, made if need be."""
        self.expire()
        fd = os.open(self.path(digest), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)
