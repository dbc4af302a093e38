"""The files that chunks lie in: appended to, read at an offset, given back range by range.

Must never write where something was written before: a range that a reader knows keeps its bytes or is given back.

    <root>/<number>
"""

from __future__ import annotations

import os
from pathlib import Path

from tare import errors, faults
from tare.kernel.disks import punch_hole
from tare.storage import durable
from tare.storage.limits import DEFAULT_LIMITS

_FULL_BYTES = 64 << 20


class Packs:
    """All packs below one root. One thread appends at a time; any may read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        durable.make_private_directory(root)
        self._number = max((int(entry.name) for entry in os.scandir(root) if entry.name.isdigit()), default=0)

    def append(self, data: bytes) -> tuple[int, int]:
        """Writes `data`, not yet synced; returns (pack, offset)."""
        descriptor = self._open_last()
        try:
            offset = os.lseek(descriptor, 0, os.SEEK_END)
            faults.point("storage.pack.append")
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            return self._number, offset
        finally:
            os.close(descriptor)

    def _open_last(self) -> int:
        if self._number:
            path = self._path(self._number)
            try:
                if path.stat().st_size < _FULL_BYTES:
                    return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                pass
        self._number += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._path(self._number), flags, 0o600)

    def sync(self, numbers: set[int]) -> None:
        for number in numbers:
            descriptor = os.open(self._path(number), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if numbers:
            durable.sync_directory(self.root)

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Raises Internal if the pack is gone or shorter."""
        try:
            descriptor = os.open(self._path(number), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise errors.Internal(f"pack {number} is missing") from None
        try:
            data = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
        if len(data) != size:
            raise errors.Internal(f"pack {number} is cut short at byte {offset + len(data)}")
        return data

    def give_back(self, number: int, offset: int, size: int) -> None:
        """The blocks that lie wholly in a range go back to the file system."""
        try:
            descriptor = os.open(self._path(number), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            faults.point("storage.pack.punch")
            punch_hole(descriptor, offset, size)
        finally:
            os.close(descriptor)

    def cut(self, ends: dict[int, int]) -> list[str]:
        """Removes what lies behind the last known byte of each pack, and packs without one (a crash left them).

        Only while nobody appends. Returns a line for each thing it changed.
        """
        changed = []
        for entry in list(os.scandir(self.root)):
            if not entry.name.isdigit():
                continue
            end = ends.get(int(entry.name), 0)
            if not end:
                os.unlink(entry.path)
                changed.append(f"removed unused pack {entry.name}")
            elif entry.stat().st_size > end:
                os.truncate(entry.path, end)
                changed.append(f"cut pack {entry.name} to its {end} bytes")
        return changed

    def check_space(self) -> None:
        """Raises ResourceExhausted where the disk is nearly full."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            DEFAULT_LIMITS.check_space(descriptor, 1 << 20, "packs")
        finally:
            os.close(descriptor)

    def used_bytes(self) -> int:
        """What the packs take on the disk."""
        return sum(entry.stat().st_blocks * 512 for entry in os.scandir(self.root))

    def _path(self, number: int) -> Path:
        return self.root / str(number)
