"""Opening and describing files of a tree below a descriptor, without following any symbolic link.

Must never be given a path as a string from the root of the host; trees may change under the reader.
"""

from __future__ import annotations

import errno
import os

from tare import errors
from tare.kernel import fds

_BENEATH = fds.RESOLVE_BENEATH | fds.RESOLVE_NO_SYMLINKS | fds.RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def open_beneath(root_fd: int, path: bytes, flags: int) -> int:
    """Opens the clean relative `path`, none of whose components may be a link; b"" is the root itself.

    Raises OSError as os.open does: ENOENT, ENOTDIR, ELOOP …
    """
    try:
        return fds.openat2(root_fd, os.fsdecode(path) or ".", flags | os.O_NOFOLLOW, 0, _BENEATH)
    except errors.KernelError as error:
        raise OSError(error.errno, errors.system_text(error.errno), path) from error


def open_directory_beneath(root_fd: int, path: bytes) -> int:
    """Raises FileNotFoundError, or NotADirectoryError where a component is something else or a link."""
    try:
        return open_beneath(root_fd, path, _DIRECTORY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, errors.system_text(errno.ENOTDIR), path) from error
        raise


def open_directory(path: os.PathLike[str] | str) -> int:
    """A descriptor of a directory that the engine itself owns."""
    return os.open(path, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def read_xattrs(directory_fd: int, name: bytes) -> dict[bytes, bytes]:
    """Extended attributes of `name` itself (links aren't followed), sorted."""
    return _xattrs(b"/proc/self/fd/%d/%s" % (directory_fd, name))


def xattrs_of(descriptor: int) -> dict[bytes, bytes]:
    """The same of an open file."""
    return _xattrs(descriptor)


def _xattrs(target: int | bytes) -> dict[bytes, bytes]:
    follow = isinstance(target, int)  # a descriptor leads to the file itself
    try:
        names = os.listxattr(target, follow_symlinks=follow)
        if not names:
            return {}
        return {
            encoded: os.getxattr(target, encoded, follow_symlinks=follow)
            for encoded in sorted(os.fsencode(found) for found in names)
        }
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA, errno.EPERM):
            return {}
        raise
