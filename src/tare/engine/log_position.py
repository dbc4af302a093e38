"""Reads a log that is shipped elsewhere from where it was left, over rotation, compression and restarts. Blocks.

The position is how many entries the log ever had up to there. Each file says how many were before it (see
`tare.runtime.jsonlog`), so that the place is found again whatever was renamed, packed or emptied, and what was deleted
before it was read can be counted.
"""

from __future__ import annotations

import os

import msgspec

from tare.engine.log_files import BATCH_BYTES, Entry, open_log, parse
from tare.runtime.jsonlog import BLOCK_BYTES, first_index, parse_header, rotated_files

POSITION_NAME = "shipped.json"
BATCH_ENTRIES = 256
PATIENCE = 20
"""How often a place is looked for anew when files move at the same time."""


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
        self._first = -1
        self._pending = b""
        self.position = position

    def close(self) -> None:
        """Closes what is open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self) -> list[Entry]:
        """The next entries; an empty list when there are no more just now. Moves `position` behind them."""
        if self._file < 0 and not self._seek():
            return []
        while True:
            entries = self._read_here()
            if entries or self._is_current():
                return entries
            entries = self._read_here()  # written between the end that was seen and the rotation
            if entries:
                return entries
            here = self._first
            if not self._seek() or self._first == here:
                return []

    def _seek(self) -> bool:
        """Opens the file that has the next entry, or the oldest if that is gone; False if there is none."""
        for _ in range(PATIENCE):
            index = self.position.index
            files = [*rotated_files(self._path), self._path]
            firsts = [(first, path) for path in files if (first := first_index(path)) is not None]
            if not firsts:
                return False
            first, path = max((pair for pair in firsts if pair[0] <= index), default=min(firsts))
            try:
                fd = open_log(path)
            except FileNotFoundError:
                continue
            if parse_header(os.pread(fd, 64, 0)) == first:
                self._take(fd, first)
                return True
            os.close(fd)  # it was rotated in this moment
        return False

    def _take(self, fd: int, first: int) -> None:
        """Goes on in a file, behind what was read of it."""
        self.close()
        self._file, self._first, self._pending = fd, first, b""
        index, lost = self.position.index, self.position.lost
        if index < first:
            self.position = Position(index=first, lost=lost + first - index)
            index = first
        skipped = _skip_lines(fd, index - first + 1) - 1
        if skipped < index - first:  # a power cut took what was not yet on the disk
            self.position = Position(index=first + skipped, lost=lost)

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

    def _is_current(self) -> bool:
        """Whether the open file is the one that is being written."""
        here = os.fstat(self._file)
        try:
            current = os.stat(self._path)
        except FileNotFoundError:
            return True  # another takes its place in this moment
        return (here.st_dev, here.st_ino) == (current.st_dev, current.st_ino)


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """At most BATCH_ENTRIES whole lines, and what is behind them."""
    if b"\n" not in data:
        return [], data
    *lines, rest = data.split(b"\n", BATCH_ENTRIES)
    return lines, rest


def _skip_lines(fd: int, count: int) -> int:
    """Moves behind count lines, or to the end; returns how many there were."""
    left, offset = count, 0
    while left:
        block = os.read(fd, BLOCK_BYTES)
        if not block:
            break
        lines = block.count(b"\n")
        if lines < left:
            left -= lines
            offset += len(block)
            continue
        at = 0
        for _ in range(left):
            at = block.index(b"\n", at) + 1
        offset += at
        left = 0
    os.lseek(fd, offset, os.SEEK_SET)
    return count - left
