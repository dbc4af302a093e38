"""Reads a container's json-file log: from the beginning, the last lines, or on from where it was. Blocks; no engine.

See `tare.runtime.jsonlog` for the format. A broken line (the machine lost power) is skipped.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import msgspec

from tare.runtime.jsonlog import parse_header, rotated_files

BLOCK_BYTES = 64 * 1024
BATCH_BYTES = 256 * 1024


class Entry(msgspec.Struct):
    """One line of the log."""

    log: str
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] = {}


_decode = msgspec.json.Decoder(Entry).decode


def parse(line: bytes) -> Entry | None:
    """An entry, or None if the line isn't one."""
    try:
        return _decode(line)
    except msgspec.DecodeError:
        return None


class LogReader:
    """Reads entries of a log and its rotated files in order; keeps its place for more."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._rest = b""
        self._file = -1
        self._older = rotated_files(path)

    def close(self) -> None:
        """Closes what is open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def seek_tail(self, count: int) -> None:
        """Moves to the last count entries (over rotated files only as far as whole files are needed)."""
        paths = [*self._older, self._path]
        for index in range(len(paths) - 1, -1, -1):
            offset, found = _tail_offset(paths[index], count)
            if found >= count or index == 0:
                self._older = paths[index + 1 : -1] if index < len(paths) - 1 else []
                if index == len(paths) - 1:
                    self._older = []
                    self._open(paths[index], offset)
                else:
                    self._older = paths[index:-1]
                    self._open(self._older.pop(0), offset)
                return
            count -= found

    def _open(self, path: str, offset: int = 0) -> None:
        self.close()
        try:
            self._file = open_log(path)
        except FileNotFoundError:
            return
        if offset:
            os.lseek(self._file, offset, os.SEEK_SET)

    def read(self) -> list[Entry]:
        """The next entries; an empty list when there are no more just now."""
        while True:
            if self._file < 0:
                self._open(self._older.pop(0) if self._older else self._path)
                if self._file < 0:
                    return []
            data = os.read(self._file, BATCH_BYTES)
            if data:
                lines = (self._rest + data).split(b"\n")
                self._rest = lines.pop()
                entries = [entry for line in lines if line and (entry := parse(line)) is not None]
                if entries:
                    return entries
                continue
            if not self._next_file():
                return []

    def _next_file(self) -> bool:
        """Goes on to the next file when this one was rotated away or truncated."""
        if self._older:
            self._open(self._older.pop(0))
            return True
        here = os.fstat(self._file)
        try:
            current = os.stat(self._path)
        except FileNotFoundError:
            return False
        if (here.st_dev, here.st_ino) != (current.st_dev, current.st_ino):
            self._rest = b""
            self._open(self._path)
            return True
        if os.lseek(self._file, 0, os.SEEK_CUR) > current.st_size:
            os.lseek(self._file, 0, os.SEEK_SET)
            return True
        return False


def open_log(path: str) -> int:
    """A descriptor of a log's file; of one that is compressed, of a nameless copy that isn't.

    Raises FileNotFoundError.
    """
    import tempfile  # here, since an idle engine shouldn't carry it

    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        packed = os.open(f"{path}.gz", flags)
    try:
        with tempfile.TemporaryFile(dir=os.path.dirname(path), buffering=0) as file:
            unpacker = zlib.decompressobj(wbits=31)
            while data := os.read(packed, BLOCK_BYTES):
                while data:
                    file.write(unpacker.decompress(data, BATCH_BYTES))
                    data = unpacker.unconsumed_tail
            file.seek(0)
            return os.dup(file.fileno())
    finally:
        os.close(packed)


def _tail_offset(path: str, count: int) -> tuple[int, int]:
    """(where the last count lines begin, how many lines there are from there)."""
    try:
        fd = open_log(path)
    except FileNotFoundError:
        return 0, 0
    try:
        end = os.fstat(fd).st_size
        if count == 0:
            return end, 0
        lines = 0
        for start, block in _blocks_backwards(fd, end):
            at = len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                if start + at + 1 == end:
                    continue  # the newline that ends the file
                lines += 1
                if lines == count:
                    return start + at + 1, lines
        return 0, lines + (1 if end else 0) - (parse_header(os.pread(fd, 64, 0)) is not None)
    finally:
        os.close(fd)


def _blocks_backwards(fd: int, end: int) -> Iterator[tuple[int, bytes]]:
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        yield start, os.pread(fd, end - start, start)
        end = start
