"""A packed file's content back into the file.

Must never let a file count as plain before all its bytes are in it, on the disk, and have the digest that they had.
"""

from __future__ import annotations

import errno
import hashlib
import os

from tare import errors, faults
from tare.kernel.disks import punch_hole
from tare.storage.chunks import mark
from tare.storage.chunks.reading import Reading
from tare.storage.chunks.rows import PackedFile
from tare.storage.limits import DEFAULT_LIMITS

_ZEROS = bytes(256 << 10)


def unpack_into(descriptor: int, file: PackedFile, reading: Reading) -> None:
    """Fills the file, which stays a hole if that fails. Raises ResourceExhausted, Internal (damaged)."""
    name = f"packed file {os.fsdecode(file.path)!r} of layer {file.diff_id}"
    DEFAULT_LIMITS.check_space(descriptor, file.size, name)
    try:
        digest = hashlib.sha256()
        offset = 0
        for piece in reading.read(file.mark):
            digest.update(piece)
            if piece != _ZEROS[: len(piece)]:
                _write(descriptor, piece, offset)
            offset += len(piece)
            faults.point("storage.unpack.write")
        if digest.digest() != file.sha256:
            raise errors.Internal(f"{name} is damaged: its {offset} bytes have another digest")
        os.utime(descriptor, ns=(file.mtime_ns, file.mtime_ns))
        os.fsync(descriptor)
        faults.point("storage.unpack.synced")
    except BaseException as error:
        punch_hole(descriptor, 0, file.size)
        os.utime(descriptor, ns=(file.mtime_ns, file.mtime_ns))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.ResourceExhausted(f"{name}: no space left on device") from error
        raise
    mark.clear_mark(descriptor)  # from here on the content stays: without a mark nobody would know that it is a hole
    faults.point("storage.unpack.cleared")
    os.fsync(descriptor)  # the mark is gone for good before the row is


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
