"""Writes a container's output as Docker's json-file log. Used by the monitor; imports nothing heavy.

One JSON object a line: `{"log":"hello\\n","stream":"stdout","time":"2026-11-24T05:35:02.123456789Z"}`. A line of output
longer than 16 KiB is cut into several entries, of which only the last ends in a newline (as Docker's log copier does).
"""

from __future__ import annotations

import os
import time

import msgspec

MAX_ENTRY_BYTES = 16 * 1024

_encode = msgspec.json.Encoder().encode


class JsonLog:
    """An open log. `written_bytes` counts everything written since it was opened, over all rotations."""

    def __init__(self, path: str, max_bytes: int = 0, max_files: int = 1, attributes: bytes = b"") -> None:
        """Opens (appends to) path. max_bytes: rotate when the file would grow beyond it; 0: never.

        max_files: how many files there are at most, the current one included. attributes: a JSON object that every
        entry gets as `attrs`; empty for none. Raises OSError as open(2).
        """
        self._end = b',"attrs":' + attributes + b"}\n" if attributes else b"}\n"
        self.path = path
        self.max_bytes = max_bytes
        self.max_files = max(1, max_files)
        self.written_bytes = 0
        self._partial: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Appends output of a stream ("stdout" or "stderr"); an unfinished line waits for its end."""
        data = self._partial[stream] + data
        lines = data.splitlines(keepends=True) if b"\r" not in data else _split_newlines(data)
        rest = b""
        if lines and not lines[-1].endswith(b"\n"):
            rest = lines.pop()
            if len(rest) >= MAX_ENTRY_BYTES:
                whole = len(rest) - len(rest) % MAX_ENTRY_BYTES
                lines.append(rest[:whole])
                rest = rest[whole:]
        self._partial[stream] = rest
        if lines:
            self._append(stream, lines)

    def flush(self) -> None:
        """Writes unfinished lines: the streams have ended."""
        for stream, rest in self._partial.items():
            if rest:
                self._partial[stream] = b""
                self._append(stream, [rest])

    def close(self) -> None:
        """Flushes and closes."""
        self.flush()
        os.close(self._fd)

    def clear(self) -> None:
        """Empties the log: the current file, and all that were rotated away."""
        clear_files(self.path)
        self._size = 0

    def _append(self, stream: str, lines: list[bytes]) -> None:
        tail = f',"stream":"{stream}","time":"{_now()}"'.encode() + self._end
        out = []
        for line in lines:
            for at in range(0, len(line), MAX_ENTRY_BYTES):
                text = line[at : at + MAX_ENTRY_BYTES].decode("utf-8", "replace")
                out.append(b'{"log":' + _encode(text) + tail)
        if not self.max_bytes:
            self._write(b"".join(out))
            return
        for entry in out:
            if self._size and self._size + len(entry) > self.max_bytes:
                self._rotate()
            self._write(entry)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = os.write(self._fd, view)
            self.written_bytes += count
            self._size += count
            view = view[count:]

    def _rotate(self) -> None:
        os.close(self._fd)
        if self.max_files > 1:
            for number in range(self.max_files - 2, 0, -1):
                try:
                    os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
                except FileNotFoundError:
                    pass
            os.rename(self.path, f"{self.path}.1")
        else:
            os.truncate(self.path, 0)
        self._open()


def clear_files(path: str) -> None:
    """Empties a log that may be open (it is appended to), and deletes its rotated files."""
    try:
        os.truncate(path, 0)
    except FileNotFoundError:
        pass
    number = 1
    while True:
        try:
            os.unlink(f"{path}.{number}")
        except FileNotFoundError:
            return
        number += 1


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
