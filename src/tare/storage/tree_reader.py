"""Opening files of a tree below a descriptor, without following any symbolic link.

Must never be given a path as a string from the root of the host; trees may change under the reader.
"""

from __future__ import annotations

import errno
import os

from tare import errors

_STEP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_beneath(root_fd: int, path: bytes, flags: int) -> int:
    """Opens the clean relative `path`, component by component; b"" is the root itself."""
    parts = path.split(b"/") if path else [b"."]
    descriptor = root_fd
    try:
        for part in parts[:-1]:
            below = os.open(part, _STEP, dir_fd=descriptor)
            if descriptor != root_fd:
                os.close(descriptor)
            descriptor = below
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise errors.InvalidArgument(f"{path!r}: a component is not a directory") from error
        raise
    finally:
        if descriptor != root_fd:
            os.close(descriptor)


def open_directory(path: os.PathLike[str] | str) -> int:
    """A descriptor of a directory that the engine itself owns."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
