"""Reads a log that is shipped elsewhere from where it was left, over rotation, compression and restarts. Blocks.

The position is how many entries the log ever had up to there, and is found again by counting: files are renamed, packed
and emptied, and inode numbers come back. Entries that were deleted before they were read are counted: the monitor keeps
how many it has deleted (`NAME.dropped`).
"""

from __future__ import annotations

import os

import msgspec

from tare.engine.log_files import BATCH_BYTES, Entry, open_log, parse
from tare.runtime.jsonlog import BLOCK_BYTES, count_entries, read_dropped

POSITION_NAME = "shipped.json"
BATCH_ENTRIES = 256


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go on. index: entries before it since the log began; lost: how many of them were never read."""

    index: int = 0
    lost: int = 0


def load_position(directory: str) -> Position:
    """The stored position; the log's beginning if there is none, or none that can be read."""
    try:
        with open(f"{directory}/{POSITION_NAME}", "rb") as file:
            return msgspec.json.decode(file.read(), type=Position)
    except (OSError, msgspec.DecodeError):
        return Position()


def save_position(directory: str, position: Position) -> None:
    """Stores a position, whole or not at all. Not synced: after a power cut some entries are sent twice."""
    aside = f"{directory}/.{POSITION_NAME}.new"
    with open(aside, "wb") as file:
        file.write(msgspec.json.encode(position))
    os.rename(aside, f"{directory}/{POSITION_NAME}")


class PositionedReader:
    """Reads on from a position. What was read counts as done only when `position` is stored after it was sent."""

    def __init__(self, path: str, position: Position) -> None:
        self._path = path
        self._file = -1
        self._dropped = -1
        self._pending = b""
        self.position = position

    def close(self) -> None:
        """Closes what is open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self) -> list[Entry]:
        """The next entries; an empty list when there are no more just now. Moves `position` behind them."""
        self._follow()
        while self._file >= 0:
            entries = self._read_here()
            if entries:
                return entries
            if not self._next_file():
                return []
        return []

    def _follow(self) -> None:
        """Finds the place in the files as they are now."""
        dropped = read_dropped(self._path)
        if self._file >= 0 and dropped == self._dropped:
            return
        self._dropped = dropped
        self._seek(dropped)

    def _files(self) -> list[str]:
        """The log's files, the oldest first, without `.gz`."""
        found = [self._path]
        number = 1
        while any(os.path.exists(f"{self._path}.{number}{suffix}") for suffix in ("", ".gz")):
            found.insert(0, f"{self._path}.{number}")
            number += 1
        return found

    def _seek(self, dropped: int) -> None:
        """Finds the place by counting, from the oldest entry that is left."""
        here = self.position
        missed = max(0, dropped - here.index)
        index = max(here.index, dropped)
        skip = index - dropped
        files = self._files()
        for path in files:
            count = count_entries(path) if skip or path != files[-1] else 0
            if skip < count or path == files[-1]:
                try:
                    fd = open_log(path)
                except FileNotFoundError:
                    break  # rotated away in this moment: the next read looks again
                _skip_entries(fd, min(skip, count))
                self._take(fd)
                self.position = Position(index=index, lost=here.lost + missed)
                return
            skip -= count
        self.close()
        self._dropped = -1

    def _take(self, fd: int) -> None:
        self.close()
        self._file = fd
        self._pending = b""

    def _read_here(self) -> list[Entry]:
        """Entries of the open file; an empty list at its end."""
        while True:
            lines, rest = _split(self._pending)
            if lines:
                self._pending = rest
                self.position = Position(index=self.position.index + len(lines), lost=self.position.lost)
                entries = [entry for line in lines if (entry := parse(line)) is not None]
                if entries:
                    return entries
                continue
            data = os.read(self._file, BATCH_BYTES)
            if not data:
                return []
            self._pending += data

    def _next_file(self) -> bool:
        """Goes on to the next file if this one was rotated away; resynchronises if it was emptied."""
        here = os.fstat(self._file)
        try:
            current = os.stat(self._path)
        except FileNotFoundError:
            return False
        if (here.st_dev, here.st_ino) == (current.st_dev, current.st_ino):
            if os.lseek(self._file, 0, os.SEEK_CUR) > current.st_size:
                self._seek(read_dropped(self._path))
                return True
            return False
        if data := os.read(self._file, BATCH_BYTES):  # written between the end that was seen and the rotation
            self._pending += data
            return True
        files = self._files()
        for index, path in enumerate(files[:-1]):
            if os.path.exists(path) and os.stat(path).st_ino == here.st_ino:
                self._take(open_log(files[index + 1]))
                return True
        self._dropped = read_dropped(self._path)
        self._seek(self._dropped)
        return True


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """At most BATCH_ENTRIES whole lines, and what is behind them."""
    if b"\n" not in data:
        return [], data
    *lines, rest = data.split(b"\n", BATCH_ENTRIES)
    return lines, rest


def _skip_entries(fd: int, count: int) -> None:
    """Moves behind count lines."""
    offset = 0
    while count:
        block = os.read(fd, BLOCK_BYTES)
        if not block:
            break
        lines = block.count(b"\n")
        if lines < count:
            count -= lines
            offset += len(block)
            continue
        at = 0
        for _ in range(count):
            at = block.index(b"\n", at) + 1
        offset += at
        count = 0
    os.lseek(fd, offset, os.SEEK_SET)
