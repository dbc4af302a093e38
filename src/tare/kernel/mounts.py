"""Mounts: the mount-descriptor calls and the few classic ones. Decides nothing about what goes where.

A detached mount is a descriptor (from fsmount or open_tree) until move_mount attaches it; closed before, it is gone.
"""

from __future__ import annotations

import errno
import os
import struct

from tare.errors import KernelError, Unsupported
from tare.kernel.libc import syscall

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6

_attributes = struct.Struct("QQQQ")


def mount(source: str, target: str, type: str, flags: int, data: str = "") -> None:
    """mount(2), the classic call."""
    syscall(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        type.encode() or None,
        flags,
        os.fsencode(data) if data else None,
        about=target,
    )


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    syscall("umount2", os.fsencode(target), flags, about=target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old), about=new_root)


def clone_tree(path: str, recursive: bool = False, directory_fd: int = AT_FDCWD) -> int:
    """A detached copy of the mount (with `recursive`, of all mounts) at `path`; the source of a bind mount."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", directory_fd, os.fsencode(path), flags, about=path)


def clone_fd(fd: int, recursive: bool = False) -> int:
    """A detached copy of the mount at the very file or directory that `fd` holds."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", fd, b"", flags)


def move_mount(mount_fd: int, target_fd: int, about: str | None = None) -> None:
    """Attaches a detached mount on top of the file or directory that `target_fd` holds."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", mount_fd, b"", target_fd, b"", flags, about=about)


def mount_setattr(
    fd: int, set: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False, userns_fd: int = 0
) -> None:
    """Changes attributes or propagation of the mount that `fd` holds."""
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", fd, b"", flags, _attributes.pack(set, clear, propagation, userns_fd), _attributes.size)


def map_ids(fd: int, userns_fd: int, recursive: bool = False, about: str = "") -> None:
    """Has a detached mount show its files' owners as a user namespace's ids (mount_setattr(2), "ID-mapped mounts").

    Raises Unsupported where the file system can't, or one that is mounted below with `recursive`.
    """
    try:
        mount_setattr(fd, set=MOUNT_ATTR_IDMAP, recursive=recursive, userns_fd=userns_fd)
    except KernelError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
            raise
        # EINVAL: a file system without FS_ALLOW_IDMAP. EPERM: it is mapped already.
        raise Unsupported(
            f"{about or 'a mount'} with user namespaces: its file system, or one mounted below it, can't map ids"
        ) from error


def _explain(context_fd: int) -> str | None:
    """What the kernel says about the last failure of a file system context (fsopen(2), "message retrieval")."""
    try:
        return os.read(context_fd, 8192).decode("utf-8", "replace").strip()[2:] or None
    except OSError:
        return None


class FilesystemContext:
    """A file system that is being configured (fsopen(2)); make it a detached mount with `mount`, then `close`."""

    __slots__ = ("fd", "type")

    def __init__(self, type: str) -> None:
        self.type = type
        self.fd = syscall("fsopen", type.encode(), FSOPEN_CLOEXEC, about=type)

    def _config(self, command: int, key: str | None, value: bytes | None, aux: int, about: str) -> None:
        try:
            syscall("fsconfig", self.fd, command, key.encode() if key else None, value, aux, about=about)
        except KernelError as error:
            raise KernelError(error.errno, error.call, about, _explain(self.fd)) from None

    def set(self, key: str, value: str) -> None:
        """Sets an option that has a value."""
        self._config(_FSCONFIG_SET_STRING, key, os.fsencode(value), 0, f"{self.type} {key}={value}")

    def set_flag(self, key: str) -> None:
        """Sets an option that has none."""
        self._config(_FSCONFIG_SET_FLAG, key, None, 0, f"{self.type} {key}")

    def set_fd(self, key: str, fd: int) -> None:
        """Sets an option to the file that a descriptor holds."""
        self._config(_FSCONFIG_SET_FD, key, None, fd, f"{self.type} {key}")

    def mount(self, attributes: int = 0) -> int:
        """Makes the file system and returns it as a detached mount with MOUNT_ATTR_* `attributes`."""
        self._config(_FSCONFIG_CMD_CREATE, None, None, 0, self.type)
        return syscall("fsmount", self.fd, FSMOUNT_CLOEXEC, attributes, about=self.type)

    def close(self) -> None:
        """Drops the context; what was mounted stays."""
        os.close(self.fd)


def mount_detached(type: str, source: str = "", options: tuple[str, ...] = (), attributes: int = 0) -> int:
    """A new file system as a detached mount. options: `key` or `key=value`."""
    context = FilesystemContext(type)
    try:
        if source:
            context.set("source", source)
        for option in options:
            key, equals, value = option.partition("=")
            if equals:
                context.set(key, value)
            else:
                context.set_flag(key)
        return context.mount(attributes)
    finally:
        context.close()


def has_overlay_parameters() -> bool:
    """Whether overlay takes its lower layers one by one (Linux 6.8); a context of it is opened, and nothing mounted.

    Before Linux 6.5 overlayfs had no parameters of its own: any name was taken, and refused only at the mount.
    """
    found = []
    for key in ("no-such-parameter", "lowerdir+"):
        try:
            context = FilesystemContext("overlay")
        except (KernelError, Unsupported):
            return False
        try:
            context.set(key, "/")
            found.append(True)
        except KernelError:
            found.append(False)
        finally:
            context.close()
    return found == [False, True]
