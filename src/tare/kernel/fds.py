"""File descriptors: opening foreign paths only inside a given root, closing what must not leak.

Follows no path outside.

Every function takes the descriptor of a root directory; `/`, `..`, absolute symlinks all stay below it (openat2(2),
RESOLVE_IN_ROOT), so that a container's path is never walked as a string.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from tare.errors import InvalidArgument, KernelError
from tare.kernel.libc import syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

CLOSE_RANGE_CLOEXEC = 4
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
OVERLAYFS_SUPER_MAGIC = 0x794C7630

_O_PATH = os.O_PATH | os.O_CLOEXEC
_how = struct.Struct("QQQ")
_LINKS_MAX = 40  # as the kernel's MAXSYMLINKS


def openat2(directory_fd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2). EAGAIN, which a concurrent rename causes, is tried again a few times."""
    how = _how.pack(flags | os.O_CLOEXEC, mode, resolve)
    if "\0" in path:
        raise InvalidArgument(f"path holds a NUL byte: {path!r}")
    encoded = os.fsencode(path)
    for _ in range(32):
        try:
            return syscall("openat2", directory_fd, encoded, how, 24, about=path)
        except KernelError as error:
            if error.errno != errno.EAGAIN:
                raise
    raise KernelError(errno.EAGAIN, "openat2", path)


def open_in_root(root_fd: int, path: str, flags: int = _O_PATH, mode: int = 0, resolve: int = 0) -> int:
    """Opens `path` with `root_fd` as its `/`. Magic links (/proc/self/fd/N …) are refused with ELOOP."""
    return openat2(root_fd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve)


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rstrip("/").rpartition("/")
    return parent or "/", name


def make_directories(root_fd: int, path: str, mode: int = 0o755) -> int:
    """An O_PATH descriptor of the directory `path` inside the root, made with its parents where it is missing."""
    return _make(root_fd, path, mode, None, 0)


def make_file(root_fd: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH descriptor of what `path` is inside the root; if nothing, an empty file is made, with its parents."""
    return _make(root_fd, path, 0o755, mode, 0)


def _make(root_fd: int, path: str, directory_mode: int, file_mode: int | None, depth: int) -> int:
    directory = os.O_DIRECTORY if file_mode is None else 0
    try:
        return open_in_root(root_fd, path, _O_PATH | directory)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    if depth > _LINKS_MAX:
        raise KernelError(errno.ELOOP, "openat2", path)
    parent, name = _split(path)
    if not name:
        raise KernelError(errno.ENOENT, "openat2", path)
    parent_fd = _make(root_fd, parent, directory_mode, None, depth + 1)
    try:
        if name in (".", ".."):
            return open_in_root(root_fd, path, _O_PATH | directory)
        target = _read_link(parent_fd, name)
        if target is not None:
            # A link to nothing: make what it names, as seen from inside. The kernel resolves the `..` in it.
            follow = target if target.startswith("/") else f"{parent}/{target}"
            return _make(root_fd, follow, directory_mode, file_mode, depth + 1)
        _create(parent_fd, name, path, directory_mode, file_mode)
        return openat2(parent_fd, name, _O_PATH | os.O_NOFOLLOW | directory, 0, RESOLVE_BENEATH)
    finally:
        os.close(parent_fd)


def _create(parent_fd: int, name: str, path: str, directory_mode: int, file_mode: int | None) -> None:
    try:
        if file_mode is None:
            os.mkdir(name, directory_mode, dir_fd=parent_fd)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, file_mode, dir_fd=parent_fd))
    except FileExistsError:
        pass  # made meanwhile by somebody else: the open that follows tells what it is
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "mkdir" if file_mode is None else "open", path) from error


def _read_link(parent_fd: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent_fd)
    except OSError:
        return None


def read_in_root(root_fd: int, path: str, limit_bytes: int) -> bytes | None:
    """The content of a regular file inside the root; None if there is none. Refuses other kinds and larger files.

    CVE-2024-9676: a symlink or a fifo in place of /etc/passwd must neither read the host's nor hang.
    """
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise InvalidArgument(f"{path}: not a regular file")
        if facts.st_size > limit_bytes:
            raise InvalidArgument(f"{path}: larger than {limit_bytes} bytes")
        return os.read(fd, limit_bytes + 1)[:limit_bytes]
    finally:
        os.close(fd)


def file_system_type(fd: int) -> int:
    """The magic number of the file system that `fd` lies on (fstatfs(2), f_type)."""
    buffer = bytearray(256)
    syscall("fstatfs", fd, buffer)
    return int.from_bytes(buffer[:8], "little")


def close_from(first_fd: int) -> None:
    """Closes `first_fd` and every descriptor above."""
    try:
        syscall("close_range", first_fd, 0xFFFFFFFF, 0)
    except KernelError as error:
        if error.errno != errno.ENOSYS:
            raise
        os.closerange(first_fd, 65536)


def close_others(keep: set[int]) -> None:
    """Closes every descriptor above 2 that isn't in `keep`."""
    first = 3
    for fd in sorted(fd for fd in keep if fd > 2):
        if fd > first:
            _close_range(first, fd - 1)
        first = fd + 1
    close_from(first)


def _close_range(first_fd: int, last_fd: int) -> None:
    try:
        syscall("close_range", first_fd, last_fd, 0)
    except KernelError as error:
        if error.errno != errno.ENOSYS:
            raise
        os.closerange(first_fd, last_fd + 1)


def set_cloexec_from(first_fd: int) -> None:
    """Marks `first_fd` and every descriptor above close-on-exec."""
    try:
        syscall("close_range", first_fd, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)
    except KernelError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL):  # EINVAL: before Linux 5.11
            raise
        for name in os.listdir("/proc/self/fd"):
            if int(name) >= first_fd:
                try:
                    os.set_inheritable(int(name), False)
                except OSError as error_of_one:
                    if error_of_one.errno != errno.EBADF:  # the listing's own descriptor
                        raise


def sealed_copy(name: str, content: bytes) -> int:
    """A memfd with `content` that nobody can change any more (memfd_create(2), F_SEAL_*)."""
    import fcntl

    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd
