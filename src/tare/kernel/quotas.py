"""Project quotas: which project a file belongs to, and how many bytes a project's files may have. Holds no policy.

A directory's new files join its project (FS_XFLAG_PROJINHERIT), so that a project is a tree. ext4 and XFS have them
(quotactl(2), xfs_quota(8), chattr(1) "P"); both take the calls that were XFS's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from tare.errors import KernelError, Unsupported
from tare.kernel.libc import syscall

# include/uapi/linux/fs.h: struct fsxattr { xflags, extsize, nextents, projid, cowextsize, pad[8] }
_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
_FS_XFLAG_PROJINHERIT = 0x200
_attributes = struct.Struct("=5I8x")

# include/uapi/linux/quota.h, dqblk_xfs.h
_PRJQUOTA = 2
_Q_XGETQUOTA, _Q_XSETQLIM, _Q_XGETQSTAT = 0x5803, 0x5804, 0x5805
_FS_DQUOT_VERSION, _FS_PROJ_QUOTA = 1, 2
_FS_DQ_BSOFT, _FS_DQ_BHARD = 1 << 2, 1 << 3
_FS_QUOTA_PDQ_ENFD = 1 << 5
_BLOCK_BYTES = 512
_ROOM_BYTES = 1 << 20
# struct fs_disk_quota: version, flags, fieldmask, id, hard and soft limit of blocks and of inodes, used blocks, inodes
_quota = struct.Struct("=bbHI6Q56x")


def _quotactl(fd: int, command: int, project_id: int, buffer: bytearray) -> None:
    """quotactl_fd(2) for the file system that fd is on; before Linux 5.14, and behind filters, quotactl(2)."""
    numbered = command << 8 | _PRJQUOTA
    try:
        syscall("quotactl_fd", fd, numbered, project_id, buffer, about="project quota")
    except KernelError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        _quotactl_of_device(fd, numbered, project_id, buffer)


def _quotactl_of_device(fd: int, numbered: int, project_id: int, buffer: bytearray) -> None:
    """The old call wants a path of the device: a node of our own, since what /dev has depends on who made it."""
    import tempfile  # here, since an idle engine shouldn't carry it

    with tempfile.TemporaryDirectory(prefix="tare-quota-") as directory:
        node = f"{directory}/device"
        try:
            os.mknod(node, 0o600 | stat.S_IFBLK, os.fstat(fd).st_dev)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, "mknod", node) from error
        syscall("quotactl", numbered, os.fsencode(node), project_id, buffer, about="project quota")


def is_enforced(fd: int) -> bool:
    """Whether the file system that fd is on counts projects' bytes and holds them to their limits."""
    state = bytearray(256)  # struct fs_quota_stat: version, (pad), flags …
    try:
        _quotactl(fd, _Q_XGETQSTAT, 0, state)
    except (KernelError, Unsupported):
        return False
    (flags,) = struct.unpack_from("=H", state, 2)
    return bool(flags & _FS_QUOTA_PDQ_ENFD)


def set_limit(fd: int, project_id: int, size_bytes: int) -> None:
    """How many bytes a project's files may take on the file system that fd is on; 0: as many as they like."""
    blocks = -(-size_bytes // _BLOCK_BYTES)
    mask = _FS_DQ_BSOFT | _FS_DQ_BHARD
    packed = _quota.pack(_FS_DQUOT_VERSION, _FS_PROJ_QUOTA, mask, project_id, blocks, blocks, 0, 0, 0, 0)
    _quotactl(fd, _Q_XSETQLIM, project_id, bytearray(packed))


def usage(fd: int, project_id: int) -> tuple[int, int, int]:
    """(bytes that a project's files take, how many files it has, its limit in bytes, or 0)."""
    answer = bytearray(_quota.size)
    try:
        _quotactl(fd, _Q_XGETQUOTA, project_id, answer)
    except KernelError as error:
        if error.errno == errno.ENOENT:  # XFS knows nothing of a project that has never had anything
            return 0, 0, 0
        raise
    fields = _quota.unpack(answer)
    return fields[8] * _BLOCK_BYTES, fields[9], fields[4] * _BLOCK_BYTES


@contextmanager
def loosened(fd: int, project_id: int, size_bytes: int) -> Iterator[None]:
    """A project that has no room left under its limit of size_bytes gets a little for the block.

    For overlays: one whose work directory can't be made anew (XFS wants some dozen blocks for that) is mounted
    read-only, so that what fills it could never be removed.
    """
    taken = usage(fd, project_id)[0]
    if taken < size_bytes - _ROOM_BYTES:
        yield
        return
    set_limit(fd, project_id, max(taken, size_bytes) + _ROOM_BYTES)
    try:
        yield
    finally:
        set_limit(fd, project_id, size_bytes)


def project_of(fd: int) -> int:
    """The project of an open file or directory; 0: none. Raises KernelError where the file system has no projects."""
    return int(_attributes.unpack(_ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_attributes.size)))[3])


def set_project(fd: int, project_id: int) -> bool:
    """Gives an open file or directory to a project, a directory with all that will be made in it.

    False if it was so already.
    """
    flags, extent, extents, project, cow_extent = _attributes.unpack(
        _ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_attributes.size))
    )
    wanted = flags | _FS_XFLAG_PROJINHERIT if stat.S_ISDIR(os.fstat(fd).st_mode) else flags
    if (flags, project) == (wanted, project_id):
        return False
    _ioctl(fd, _FS_IOC_FSSETXATTR, _attributes.pack(wanted, extent, extents, project_id, cow_extent))
    return True


def _ioctl(fd: int, request: int, content: bytes) -> bytes:
    try:
        return fcntl.ioctl(fd, request, content)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "ioctl FSXATTR") from error
