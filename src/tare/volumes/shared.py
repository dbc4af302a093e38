"""What volumes' options mount (NFS, a device, tmpfs …): once for all containers, on the host at the volume's _data.

Mounted when the first container that has it starts, undone after the last. What is mounted is asked of the kernel, so
that a new engine knows what an old one left. Must never mount anywhere else, nor touch what is mounted to find out: a
network file system whose server is away would hang whoever looks.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import msgspec

from tare import faults
from tare.errors import InvalidArgument, KernelError, system_text
from tare.kernel import mounts
from tare.volumes.records import LocalMount

NETWORK_TYPES = frozenset(("cifs", "nfs", "nfs4", "smb3"))
_ATTRIBUTES = {
    "ro": mounts.MOUNT_ATTR_RDONLY,
    "nosuid": mounts.MOUNT_ATTR_NOSUID,
    "nodev": mounts.MOUNT_ATTR_NODEV,
    "noexec": mounts.MOUNT_ATTR_NOEXEC,
    "noatime": mounts.MOUNT_ATTR_NOATIME,
    "strictatime": mounts.MOUNT_ATTR_STRICTATIME,
    "nodiratime": mounts.MOUNT_ATTR_NODIRATIME,
}
_DEFAULTS = frozenset(("rw", "suid", "dev", "exec", "atime", "relatime", "diratime", "defaults", "async"))


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at a volume's _data."""
    place = os.path.join(os.path.realpath(path.parent), path.name)
    escaped = os.fsencode(place).replace(b"\\", b"\\134").replace(b" ", b"\\040").replace(b"\t", b"\\011")
    escaped = escaped.replace(b"\n", b"\\012")
    with open("/proc/self/mountinfo", "rb") as lines:  # man 5 proc
        return any(line.split(b" ", 5)[4] == escaped for line in lines)


def mount(path: Path, wanted: LocalMount) -> bool:
    """Mounts what a volume's options ask for, unless it is; says whether it had to. Raises InvalidArgument."""
    if is_mounted(path):
        return False
    tree_fd = make(path, wanted)
    try:
        target_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            mounts.move_mount(tree_fd, target_fd, about=str(path))
        finally:
            os.close(target_fd)
    finally:
        os.close(tree_fd)
    faults.point("volumes.shared.mounted")
    return True


def make(path: Path, wanted: LocalMount) -> int:
    """What a volume's options ask for as a detached mount, gone when its descriptor is closed. path: for messages."""
    wanted = _with_address(wanted)
    attributes = 0
    for word in wanted.options:
        attributes |= _ATTRIBUTES.get(word, 0)
    data = tuple(word for word in wanted.options if word not in _ATTRIBUTES and word not in _DEFAULTS)
    try:
        return mounts.mount_detached(wanted.type, wanted.device, data, attributes)
    except KernelError as error:
        why = f"{error.context}: " if error.context else ""
        raise InvalidArgument(
            f"error while mounting volume '{path}': failed to mount local volume: mount {wanted.device}:{path}, "
            f"data: {','.join(data)}: {why}{system_text(error.errno).lower()}"
        ) from error


def _with_address(wanted: LocalMount) -> LocalMount:
    """The kernel wants an address where users write a host's name (nfs(5), `addr`)."""
    if wanted.type not in NETWORK_TYPES:
        return wanted
    options = []
    for word in wanted.options:
        key, _, value = word.partition("=")
        if key == "addr" and value:
            try:
                word = f"addr={socket.getaddrinfo(value, None)[0][4][0]}"
            except OSError as error:
                raise InvalidArgument(
                    f"failed to mount local volume: error resolving passed in network volume address: {error}"
                ) from error
        options.append(word)
    return msgspec.structs.replace(wanted, options=tuple(options))


def unmount(path: Path) -> bool:
    """Takes away what is mounted at a volume's _data; says whether something was."""
    if not is_mounted(path):
        return False
    try:
        mounts.umount2(str(path), mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
    except KernelError as error:
        if error.errno != errno.EINVAL:  # not mounted any more
            raise
    faults.point("volumes.shared.unmounted")
    return True
