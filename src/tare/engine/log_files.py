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
    """Reads entries of a log and its rotated files in order; keeps its place, whatever is rotated meanwhile."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._rest = b""
        self._file = -1
        self._identity = (0, 0)

    def close(self) -> None:
        """Closes what is open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def seek_tail(self, count: int) -> None:
        """Moves to the last count entries (over rotated files only as far as whole files are needed)."""
        name: str | None = self._path
        while name is not None:
            if not self._open(name):
                return
            offset, found = _tail_offset(self._file, count)
            os.lseek(self._file, offset, os.SEEK_SET)
            if found >= count:
                return
            count -= found
            name = self._neighbours()[0]

    def read(self) -> list[Entry]:
        """The next entries; an empty list when there are no more just now."""
        while True:
            if self._file < 0 and not self._open([*rotated_files(self._path), self._path][0]):
                return []
            data = os.read(self._file, BATCH_BYTES)
            if not data:
                following = self._neighbours()[1]
                if following is None and not self._was_emptied():
                    return []
                data = os.read(
                    self._file, BATCH_BYTES
                )  # what came just before it was rotated; now nothing comes any more
                if not data and following is not None and not self._go_on(following):
                    return []
            lines = (self._rest + data).split(b"\n")
            self._rest = lines.pop()
            entries = [entry for line in lines if line and (entry := parse(line)) is not None]
            if entries:
                return entries

    def _open(self, name: str) -> bool:
        try:
            file, identity = _open_identified(name)
        except FileNotFoundError:
            return False
        self.close()
        self._file, self._identity = file, identity
        return True

    def _go_on(self, following: str) -> bool:
        """Opens the file that comes after this one; False if that is to be tried again."""
        try:
            file, identity = _open_identified(following)
        except FileNotFoundError:
            return False
        if self._neighbours()[1] != following or not _is_file(following, identity, file):
            os.close(file)  # renamed between the look and the opening
            return True
        self.close()
        self._file, self._identity, self._rest = file, identity, b""
        return True

    def _neighbours(self) -> tuple[str | None, str | None]:
        """The files before and after the one that is open, by what they are called just now."""
        names = [*rotated_files(self._path), self._path]
        for index in range(len(names) - 1, -1, -1):
            if _is_file(names[index], self._identity, self._file):
                older = names[index - 1] if index else None
                return older, names[index + 1] if index + 1 < len(names) else None
        return None, names[0]  # it has been deleted: all that are left are newer

    def _was_emptied(self) -> bool:
        if os.lseek(self._file, 0, os.SEEK_CUR) <= os.fstat(self._file).st_size:
            return False
        os.lseek(self._file, 0, os.SEEK_SET)
        self._rest = b""
        return True


def _open_identified(name: str) -> tuple[int, tuple[int, int]]:
    """A file of the log and (device, inode) of it, or of its packed form. Raises FileNotFoundError."""
    file = open_log(name)
    status = os.fstat(file)
    if not status.st_nlink:  # the copy of a packed one
        status = os.stat(f"{name}.gz")
    return file, (status.st_dev, status.st_ino)


def _is_file(name: str, identity: tuple[int, int], file: int) -> bool:
    """Whether that is what a file of the log is called just now; it may have been packed meanwhile."""
    try:
        there = os.stat(name)
        packed = False
    except FileNotFoundError:
        try:
            there = os.stat(f"{name}.gz")
            packed = True
        except FileNotFoundError:
            return False
    if (there.st_dev, there.st_ino) == identity:
        return True
    here = os.fstat(file)
    return packed and (there.st_mtime_ns, _unpacked_bytes(f"{name}.gz")) == (here.st_mtime_ns, here.st_size)


def _unpacked_bytes(path: str) -> int:
    """What a gzip file says at its end (RFC 1952, ISIZE; modulo 2**32); 0 if it is gone."""
    try:
        with open(path, "rb") as file:
            file.seek(-4, os.SEEK_END)
            return int.from_bytes(file.read(4), "little")
    except FileNotFoundError:
        return 0


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


def _tail_offset(fd: int, count: int) -> tuple[int, int]:
    """(where the last count lines of a file begin, how many lines there are from there)."""
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


def _blocks_backwards(fd: int, end: int) -> Iterator[tuple[int, bytes]]:
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        yield start, os.pread(fd, end - start, start)
        end = start
