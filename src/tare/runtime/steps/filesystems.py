"""Steps that mount file systems, directories and files inside the container's root.

Every target is resolved, and made where it is missing, with openat2(RESOLVE_IN_ROOT) and mounted on by descriptor:
no path inside a container is walked as a string (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579).
"""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from tare.errors import InvalidArgument, KernelError
from tare.kernel import mounts
from tare.kernel.fds import PROC_SUPER_MAGIC, RESOLVE_NO_SYMLINKS, file_system_type, make_directories, make_file
from tare.runtime.steps.init import Init

# What may be mounted over a file of /proc (lxcfs, and build tools that fake these): nothing that holds security state.
PROC_TARGETS_ALLOWED = frozenset(
    "/proc/" + name
    for name in (
        *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev"),
        *("sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
)


class MountFilesystem(msgspec.Struct, frozen=True, tag_field="step", tag="filesystem"):
    """Mounts a new file system. options: `key` or `key=value` for the file system. attributes: MOUNT_ATTR_*."""

    type: str
    source: str
    target: str
    options: tuple[str, ...] = ()
    attributes: int = 0
    propagation: int = 0

    def describe(self) -> str:
        return f'error mounting "{self.source or self.type}" to rootfs at "{self.target}"'

    def apply(self, init: Init) -> None:
        target_fd, existed = self._open_target(init)
        try:
            tree_fd = self._make(os.fstat(target_fd) if existed else None)
            if self.propagation:
                mounts.mount_setattr(tree_fd, propagation=self.propagation)
            mounts.move_mount(tree_fd, target_fd, about=self.target)
        finally:
            os.close(target_fd)
        if self.type == "proc" and init.proc_fd < 0:
            init.proc_fd = tree_fd
        elif self.type == "devpts" and init.devpts_fd < 0:
            init.devpts_fd = tree_fd
        else:
            os.close(tree_fd)

    def _open_target(self, init: Init) -> tuple[int, bool]:
        # proc and sysfs on a symlink would let an image choose where the masks go (CVE-2019-19921, CVE-2023-27561).
        resolve = RESOLVE_NO_SYMLINKS if self.type in ("proc", "sysfs") else 0
        try:
            target_fd = init.resolve(self.target, resolve)
        except KernelError as error:
            if error.errno == errno.ELOOP and resolve:
                raise InvalidArgument(f'filesystem "{self.type}" must be mounted on ordinary directory') from error
            if error.errno != errno.ENOENT:
                raise
            return make_directories(init.root_fd, self.target), False
        if not stat.S_ISDIR(os.fstat(target_fd).st_mode):
            os.close(target_fd)
            raise InvalidArgument(f'filesystem "{self.type}" must be mounted on ordinary directory')
        return target_fd, True

    def _make(self, existing: os.stat_result | None) -> int:
        options = self.options
        if self.type == "tmpfs" and existing is not None and not any(o.startswith("mode=") for o in options):
            # The directory's own mode stays what it was under a tmpfs (as runc does for `--tmpfs`).
            options = (*options, f"mode={stat.S_IMODE(existing.st_mode):04o}")
        try:
            return mounts.mount_detached(self.type, self.source, options, self.attributes)
        except KernelError as error:
            if self.type != "sysfs" or error.errno != errno.EPERM:
                raise
            # A user namespace that doesn't own its network namespace may not mount sysfs: show the host's (read-only).
            tree_fd = mounts.clone_tree("/sys", recursive=True)
            mounts.mount_setattr(tree_fd, set=self.attributes, recursive=True)
            return tree_fd


class BindMount(msgspec.Struct, frozen=True, tag_field="step", tag="bind"):
    """Mounts a file or directory of the host. slot: where CloneSource left it, or -1."""

    source: str
    target: str
    recursive: bool = True
    slot: int = -1
    set: int = 0
    clear: int = 0
    recursive_set: int = 0
    recursive_clear: int = 0
    propagation: int = 0
    recursive_propagation: bool = False

    def describe(self) -> str:
        return f'error mounting "{self.source}" to rootfs at "{self.target}"'

    def apply(self, init: Init) -> None:
        tree_fd = init.trees.pop(self.slot) if self.slot >= 0 else mounts.clone_tree(self.source, self.recursive)
        try:
            directory = stat.S_ISDIR(os.fstat(tree_fd).st_mode)
            make = make_directories if directory else make_file
            target_fd = make(init.root_fd, self.target)
            try:
                self._check(tree_fd, target_fd)
                if not directory and stat.S_ISDIR(os.fstat(target_fd).st_mode):
                    raise KernelError(errno.ENOTDIR, "mount", self.target)  # move_mount(2) says EINVAL
                self._set_attributes(tree_fd)
                mounts.move_mount(tree_fd, target_fd, about=self.target)
            finally:
                os.close(target_fd)
        finally:
            os.close(tree_fd)

    def _set_attributes(self, tree_fd: int) -> None:
        if self.recursive_set or self.recursive_clear:
            mounts.mount_setattr(tree_fd, self.recursive_set, self.recursive_clear, recursive=True)
        if self.set or self.clear:
            mounts.mount_setattr(tree_fd, self.set, self.clear)
        if self.propagation:
            mounts.mount_setattr(tree_fd, propagation=self.propagation, recursive=self.recursive_propagation)
        elif self.slot >= 0:
            mounts.mount_setattr(tree_fd, propagation=mounts.MS_PRIVATE, recursive=True)

    def _check(self, tree_fd: int, target_fd: int) -> None:
        """Nothing may hide or replace parts of /proc, whatever name or link leads there (CVE-2019-16884)."""
        path = os.path.normpath(self.target)
        if path == "/proc":
            if file_system_type(tree_fd) != PROC_SUPER_MAGIC:
                raise InvalidArgument(f'"{self.target}" cannot be mounted because it is not of type proc')
        elif file_system_type(target_fd) == PROC_SUPER_MAGIC and path not in PROC_TARGETS_ALLOWED:
            raise InvalidArgument(f'"{self.target}" cannot be mounted because it is inside /proc')


class Cgroup1Hierarchy(msgspec.Struct, frozen=True):
    """name: its directory inside. directory: the container's cgroup on the host. options: of a mount of its own."""

    name: str
    directory: str
    options: tuple[str, ...]


class MountCgroup1(msgspec.Struct, frozen=True, tag_field="step", tag="cgroup1"):
    """Shows the container's own cgroups of each v1 hierarchy below `target`, and nothing of other cgroups."""

    target: str
    hierarchies: tuple[Cgroup1Hierarchy, ...]
    links: dict[str, str]
    attributes: int
    namespaced: bool

    def describe(self) -> str:
        return f'error mounting "cgroup" to rootfs at "{self.target}"'

    def apply(self, init: Init) -> None:
        init.join_cgroup()
        target_fd = make_directories(init.root_fd, self.target)
        tmpfs_fd = mounts.mount_detached("tmpfs", "tmpfs", ("mode=755",))
        mounts.move_mount(tmpfs_fd, target_fd, about=self.target)
        os.close(target_fd)
        for hierarchy in self.hierarchies:
            os.mkdir(hierarchy.name, 0o755, dir_fd=tmpfs_fd)
            place_fd = os.open(hierarchy.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tmpfs_fd)
            tree_fd = self._tree(hierarchy)
            mounts.move_mount(tree_fd, place_fd, about=f"{self.target}/{hierarchy.name}")
            os.close(tree_fd)
            os.close(place_fd)
        for name, link in self.links.items():
            os.symlink(link, name, dir_fd=tmpfs_fd)
        mounts.mount_setattr(tmpfs_fd, set=self.attributes, recursive=True)
        os.close(tmpfs_fd)

    def _tree(self, hierarchy: Cgroup1Hierarchy) -> int:
        if self.namespaced:
            return mounts.mount_detached("cgroup", "cgroup", hierarchy.options)
        return mounts.clone_tree(hierarchy.directory)


class MountCgroup2(msgspec.Struct, frozen=True, tag_field="step", tag="cgroup2"):
    """Mounts cgroup2 at `target`: its own view in a cgroup namespace, else the container's own cgroup bound there."""

    target: str
    directory: str
    attributes: int
    namespaced: bool

    def describe(self) -> str:
        return f'error mounting "cgroup" to rootfs at "{self.target}"'

    def apply(self, init: Init) -> None:
        init.join_cgroup()
        if self.namespaced:
            tree_fd = mounts.mount_detached("cgroup2", "cgroup", (), self.attributes)
        else:
            # The whole tree would be the host's (CVE-2023-25809).
            tree_fd = mounts.clone_tree(self.directory)
            mounts.mount_setattr(tree_fd, set=self.attributes)
        target_fd = make_directories(init.root_fd, self.target)
        mounts.move_mount(tree_fd, target_fd, about=self.target)
        os.close(target_fd)
        os.close(tree_fd)
