"""Steps that hide paths or make them read-only. A path that isn't there is passed over; one that leads out can't be."""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from tare.errors import KernelError
from tare.kernel import mounts
from tare.runtime.steps.init import Init

_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def _resolve_if_present(init: Init, path: str) -> int | None:
    try:
        return init.resolve(path)
    except KernelError as error:
        if error.errno in _ABSENT:
            return None
        raise


class ReadonlyPaths(msgspec.Struct, frozen=True, tag_field="step", tag="readonly"):
    """Makes paths read-only by a mount of their own."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return "make paths read-only"

    def apply(self, init: Init) -> None:
        for path in self.paths:
            target_fd = _resolve_if_present(init, path)
            if target_fd is None:
                continue
            tree_fd = mounts.clone_fd(target_fd, recursive=True)
            mounts.mount_setattr(tree_fd, set=mounts.MOUNT_ATTR_RDONLY, recursive=True)
            mounts.move_mount(tree_fd, target_fd, about=path)
            os.close(tree_fd)
            os.close(target_fd)


class MaskPaths(msgspec.Struct, frozen=True, tag_field="step", tag="mask"):
    """Covers files with /dev/null and directories with one empty read-only tmpfs."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return "mask paths"

    def apply(self, init: Init) -> None:
        empty_fd = -1
        for path in self.paths:
            target_fd = _resolve_if_present(init, path)
            if target_fd is None:
                continue
            if stat.S_ISDIR(os.fstat(target_fd).st_mode):
                if empty_fd < 0:
                    options = ("mode=0755", "size=4k", "nr_inodes=2")
                    tree_fd = mounts.mount_detached("tmpfs", "tmpfs", options, mounts.MOUNT_ATTR_RDONLY)
                else:
                    tree_fd = mounts.clone_fd(empty_fd)
                mounts.move_mount(tree_fd, target_fd, about=path)
                if empty_fd < 0:
                    empty_fd = tree_fd
                else:
                    os.close(tree_fd)
            else:
                tree_fd = mounts.clone_fd(init.open_null())
                # So that a chmod of the mask doesn't change the device's mode everywhere.
                mounts.mount_setattr(tree_fd, set=mounts.MOUNT_ATTR_RDONLY)
                mounts.move_mount(tree_fd, target_fd, about=path)
                os.close(tree_fd)
            os.close(target_fd)
        if empty_fd >= 0:
            os.close(empty_fd)
