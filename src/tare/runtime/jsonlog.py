"""Writes a container's output as Docker's json-file log. Used by the monitor; imports nothing heavy.

One JSON object a line: `{"log":"hello\\n","stream":"stdout","time":"2026-11-24T05:35:02.123456789Z"}`. A line of output
longer than 16 KiB is cut into several entries, of which only the last ends in a newline (as Docker's log copier does).

    NAME    the current file            NAME.1, NAME.2 …    older ones; NAME.1.gz … if they are compressed

Each file of a log that is shipped elsewhere begins with a line `{"first":N}`: how many entries the log had before it.
So a file says for itself what it holds, whatever is renamed, packed or deleted around it, and wherever a crash stops.
"""

from __future__ import annotations

import fcntl
import os
import time

import msgspec

from tare import faults
from tare.runtime.messages import StartRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ENTRY_BYTES = 16 * 1024
BLOCK_BYTES = 256 * 1024
HEADER = b'{"first":'

_encode = msgspec.json.Encoder().encode


class JsonLog:
    """An open log. `written_bytes` counts everything written since it was opened, over all rotations."""

    def __init__(
        self,
        path: str,
        max_bytes: int = 0,
        max_files: int = 1,
        attributes: bytes = b"",
        *,
        compress: bool = False,
        counted: bool = False,
    ) -> None:
        """Opens (appends to) path. max_bytes: rotate when the file would grow beyond it; 0: never.

        max_files: how many files there are at most, the current one included. attributes: a JSON object that every
        entry gets as `attrs`; empty for none. compress: rotated files become `.gz`. counted: files say how many
        entries were before them. Raises OSError as open(2).
        """
        self.compress = compress
        self.counted = counted
        self._compressor = 0
        self._end = b',"attrs":' + attributes + b"}\n" if attributes else b"}\n"
        self.path = path
        self.max_bytes = max_bytes
        self.max_files = max(1, max_files)
        self.written_bytes = 0
        self._partial: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self._open()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size
        if self.counted and not self._size:
            try:
                self._write(b"%s%d}\n" % (HEADER, next_index(self.path)))
            except OSError:
                self._close()  # no entry may come before the header
                raise

    def write(self, stream: str, data: bytes) -> None:
        """Appends output of a stream ("stdout" or "stderr"); an unfinished line waits for its end.

        Raises OSError as write(2), open(2), rename(2); then some of it is lost, and what is in the log is whole.
        """
        data = self._partial[stream] + data
        end = data.rfind(b"\n") + 1
        unfinished = len(data) - end
        if unfinished >= MAX_ENTRY_BYTES:
            end += unfinished - unfinished % MAX_ENTRY_BYTES
        self._partial[stream] = data[end:]
        if end:
            self._append(stream, data[:end])

    def flush(self) -> None:
        """Writes unfinished lines: the streams have ended."""
        for stream, rest in self._partial.items():
            if rest:
                self._partial[stream] = b""
                self._append(stream, rest)

    def close(self) -> None:
        """Flushes and closes."""
        self.flush()
        self._close()

    def clear(self) -> None:
        """Empties the log: the current file, and all that were rotated away."""
        self._wait_compressor()
        clear_files(self.path, counted=self.counted)
        self._close()
        self._open()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _append(self, stream: str, data: bytes) -> None:
        entries = _format_entries(data, f',"stream":"{stream}","time":"{_now()}"'.encode() + self._end)
        if self._fd < 0:
            self._open()  # a rotation failed
        at = 0
        while at < len(entries):
            end = self._fitting(entries, at)
            if end == at and self._size:
                self._rotate()
                end = self._fitting(entries, at)
            end = end if end > at else entries.index(b"\n", at) + 1  # larger than a whole file: it has one to itself
            self._write(entries[at:end])
            at = end

    def _fitting(self, entries: bytes, at: int) -> int:
        """Where those of the entries end, from `at` on, that the current file has room for."""
        room = self.max_bytes - self._size
        if not self.max_bytes or len(entries) - at <= room:
            return len(entries)
        return entries.rfind(b"\n", at, at + room) + 1 or at if room > 0 else at

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, view[done:])
        except OSError:
            whole = data.rfind(b"\n", 0, done) + 1
            # half an entry would take the next one with it; the file may have been emptied by others meanwhile
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - (done - whole))
            done = whole
            raise
        finally:
            self.written_bytes += done
            self._size += done

    def _rotate(self) -> None:
        self._close()
        self._wait_compressor()
        if self.max_files > 1:
            _unlink(f"{self.path}.{self.max_files - 1}")
            faults.point("monitor.log.rotate.unlinked")
            for number in range(self.max_files - 2, 0, -1):
                for suffix in ("", ".gz"):
                    try:
                        os.rename(f"{self.path}.{number}{suffix}", f"{self.path}.{number + 1}{suffix}")
                    except FileNotFoundError:
                        pass
                faults.point("monitor.log.rotate.shifted")
            os.rename(self.path, f"{self.path}.1")
            faults.point("monitor.log.rotate.moved")
        else:
            empty_file(self.path, counted=self.counted)
            faults.point("monitor.log.rotate.emptied")
        if self.compress and self.max_files > 1:
            self._compress(f"{self.path}.1")
        self._open()

    def _compress(self, path: str) -> None:
        """In a child, so that the container doesn't wait; it closes what the monitor holds, and exits by itself.

        Until then it holds a lock on the file: a monitor that comes after this one must not rename it, either.
        """
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        fcntl.flock(source, fcntl.LOCK_EX)
        pid = os.fork()
        if pid:
            self._compressor = pid
            os.close(source)
            return
        try:
            os.dup2(source, 3)
            os.closerange(4, 1 << 16)
            os.nice(10)
            compress_file(3, path)
        finally:
            os._exit(0)

    def _wait_compressor(self) -> None:
        """Nothing is renamed while a file is being compressed, by this monitor's child or by an earlier one's."""
        if self.compress:
            try:
                fd = os.open(f"{self.path}.1", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                pass
            else:
                fcntl.flock(fd, fcntl.LOCK_EX)
                os.close(fd)
        pid, self._compressor = self._compressor, 0
        if pid:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass


def open_log(request: StartRequest) -> JsonLog:
    """The log that a request asks for. Raises OSError as open(2)."""
    options = {"compress": request.log_compress, "counted": request.log_counted}
    return JsonLog(request.log_path, request.log_max_bytes, request.log_max_files, request.log_attributes, **options)


def compress_file(source: int, path: str) -> None:
    """Makes path.gz of path, which source has open; whole or not at all."""
    import zlib  # only here: a monitor whose log isn't compressed needs none

    packer = zlib.compressobj(6, wbits=31)
    aside = f"{path}.gz.new"
    target = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    while data := os.read(source, BLOCK_BYTES):
        _write_all(target, packer.compress(data))
    _write_all(target, packer.flush())
    status = os.fstat(source)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))  # readers that have the file open know it by that
    faults.point("monitor.log.compress.written")
    os.rename(aside, f"{path}.gz")
    faults.point("monitor.log.compress.renamed")
    os.unlink(path)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def rotated_files(path: str) -> list[str]:
    """The older files of a log that are there, the oldest first, without `.gz`."""
    directory, name = os.path.split(path)
    try:
        found = {entry.removesuffix(".gz") for entry in os.listdir(directory or ".") if entry.startswith(f"{name}.")}
    except FileNotFoundError:
        return []
    numbers = (entry[len(name) + 1 :] for entry in found)
    return [f"{path}.{number}" for number in sorted((int(text) for text in numbers if text.isdigit()), reverse=True)]


def first_index(path: str) -> int | None:
    """How many entries the log had before this file; None if it doesn't say, or isn't there."""
    for name in (path, f"{path}.gz"):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            return parse_header(next(_blocks(fd, name.endswith(".gz"), 1024), b""))
        finally:
            os.close(fd)
    return None


def parse_header(data: bytes) -> int | None:
    """The number in a file's first line, if that is a header."""
    line = data.partition(b"}\n")[0]
    number = line.removeprefix(HEADER)
    return int(number) if line != number and number.isdigit() else None


def next_index(path: str) -> int:
    """How many entries a counted log ever had: what its newest file that says anything has before it, and in it."""
    for name in (path, *reversed(rotated_files(path))):
        first = first_index(name)
        if first is not None:
            return first + count_lines(name) - 1
    return 0


def count_lines(path: str) -> int:
    """How many lines a file has, compressed or not, its header included; 0 if it isn't there."""
    for name in (path, f"{path}.gz"):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            return sum(block.count(b"\n") for block in _blocks(fd, name.endswith(".gz")))
        finally:
            os.close(fd)
    return 0


def _blocks(fd: int, compressed: bool, size: int = BLOCK_BYTES) -> Iterator[bytes]:
    if not compressed:
        while data := os.read(fd, size):
            yield data
        return
    import zlib

    unpacker = zlib.decompressobj(wbits=31)
    while data := os.read(fd, size):
        while data:
            yield unpacker.decompress(data, size)
            data = unpacker.unconsumed_tail


def empty_file(path: str, *, counted: bool) -> None:
    """Empties the current file; of a counted log, another takes its place that says what was before it."""
    if not counted:
        try:
            os.truncate(path, 0)
        except FileNotFoundError:
            pass
        return
    header = b"%s%d}\n" % (HEADER, next_index(path))
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        _write_all(fd, header)
    finally:
        os.close(fd)
    os.rename(f"{path}.new", path)


def clear_files(path: str, *, counted: bool = False) -> None:
    """Empties a log, and deletes its rotated files. Who has it open, and it is counted, opens it again."""
    empty_file(path, counted=counted)
    faults.point("monitor.log.clear.emptied")
    for rotated in rotated_files(path):
        _unlink(rotated)


def _unlink(path: str) -> None:
    """Deletes a rotated file in either form."""
    for name in (path, f"{path}.gz"):
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass


def _format_entries(data: bytes, tail: bytes) -> bytes:
    """An entry for each line of data, none with more than MAX_ENTRY_BYTES of it; tail: what follows an entry's text.

    Data ends with a newline, or has none after the last whole entry.
    """
    short = len(data) <= MAX_ENTRY_BYTES or max(map(len, data.split(b"\n"))) < MAX_ENTRY_BYTES
    if short and data.endswith(b"\n") and b"\\" not in data:
        # all at once: in the text as JSON, a backslash and an n is a line's end and nothing else
        text = _encode(data[:-1].decode("utf-8", "replace"))
        return b'{"log":' + text[:-1].replace(b"\\n", b'\\n"' + tail + b'{"log":"') + b'\\n"' + tail
    out = []
    for line in data.splitlines(keepends=True) if b"\r" not in data else _split_newlines(data):
        for at in range(0, len(line), MAX_ENTRY_BYTES):
            text = _encode(line[at : at + MAX_ENTRY_BYTES].decode("utf-8", "replace"))
            out.append(b'{"log":' + text + tail)
    return b"".join(out)


def _split_newlines(data: bytes) -> list[bytes]:
    """splitlines() would also split at carriage returns, which a terminal's output is full of."""
    parts = data.split(b"\n")
    last = parts.pop()
    lines = [part + b"\n" for part in parts]
    if last:
        lines.append(last)
    return lines


def _now() -> str:
    seconds, fraction = divmod(time.time_ns(), 10**9)
    t = time.gmtime(seconds)
    return f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}.{fraction:09d}Z"
