"""A file's content for a tar stream: exactly the size its header says, whatever happens to the file meanwhile.

Must never block on a fifo or a device that took the file's place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from tare import errors
from tare.storage.chunks import mark

_CHUNK_BYTES = 256 << 10
_ZEROS = bytes(_CHUNK_BYTES)


def open_regular(directory_fd: int, name: bytes) -> int:
    """Opens a regular file for reading; raises FileNotFoundError if something else is there now."""
    return opened_regular(directory_fd, name)[0]


def opened_regular(directory_fd: int, name: bytes) -> tuple[int, os.stat_result]:
    """The same with what fstat(2) says of it."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise FileNotFoundError(name)
    return descriptor, status


def content(descriptor: int, size: int, *, blocks: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, chunk) up to `size` bytes; holes come as zeros without being read, a file cut short is padded.

    Of a packed file too. Raises Internal where that is damaged. blocks: st_blocks; a file with as many as it needs is
    not searched for holes.
    """
    pieces = mark.pieces(descriptor, 0, size) if size > mark.MIN_BYTES else None
    offset = 0
    if pieces is not None:
        try:
            for piece in pieces:
                yield offset, piece
                offset += len(piece)
        except mark.NoLongerPacked:
            pass
    elif blocks * 512 >= size:
        while offset < size and (chunk := os.pread(descriptor, min(_CHUNK_BYTES, size - offset), offset)):
            yield offset, chunk
            offset += len(chunk)
    while offset < size:
        data, end = _next_data(descriptor, offset, size)
        while offset < data:
            yield offset, _ZEROS[: min(_CHUNK_BYTES, data - offset)]
            offset += min(_CHUNK_BYTES, data - offset)
        while offset < end:
            chunk = os.pread(descriptor, min(_CHUNK_BYTES, end - offset), offset)
            if not chunk:
                break  # cut short meanwhile: the rest is a hole in the next round
            yield offset, chunk
            offset += len(chunk)


def is_zeros(chunk: bytes) -> bool:
    return chunk is _ZEROS or chunk == _ZEROS[: len(chunk)]


def _next_data(descriptor: int, offset: int, size: int) -> tuple[int, int]:
    """Where the next data begins and ends (`man 2 lseek`, SEEK_DATA); (size, size) if there is none."""
    try:
        data = os.lseek(descriptor, offset, os.SEEK_DATA)
        if data >= size:
            return size, size
        return data, min(size, os.lseek(descriptor, data, os.SEEK_HOLE))
    except OSError as error:
        if error.errno == 6:  # ENXIO: only a hole is left
            return size, size
        raise errors.KernelError(error.errno or 0, "lseek") from error
