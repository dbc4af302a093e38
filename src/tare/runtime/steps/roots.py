"""Steps that make the root file system and enter it.

Only in the container's own mount namespace, or detached: there is never anything to unmount on the host.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from tare.errors import KernelError, Unsupported
from tare.kernel import mounts, quotas
from tare.kernel.fds import OVERLAYFS_SUPER_MAGIC, file_system_type, make_directories
from tare.kernel.namespaces import CLONE_NEWNS, acting_as, open_namespace, setns, unshare
from tare.runtime.steps.init import Init

_PROPAGATION = {
    "private": mounts.MS_PRIVATE,
    "shared": mounts.MS_SHARED,
    "slave": mounts.MS_SLAVE,
    "unbindable": mounts.MS_UNBINDABLE,
}

_LONGEST_VALUE = 256
"""Bytes from which on fsconfig(2) takes no string."""


class CloneSource(msgspec.Struct, frozen=True, tag_field="step", tag="clone"):
    """Copies the mounts at a host path, detached.

    Early, while they still have the host's propagation (`shared`, `slave` binds), or while we still have the host's
    rights over the way there (a user namespace). mapped: its owners are shown as the user namespace's ids.
    """

    slot: int
    source: str
    recursive: bool
    mapped: bool = False

    def describe(self) -> str:
        return f'error mounting "{self.source}"'

    def apply(self, init: Init) -> None:
        init.trees[self.slot] = tree_fd = mounts.clone_tree(self.source, self.recursive)
        if self.mapped:
            mounts.map_ids(tree_fd, init.user_fd, self.recursive, self.source)


class IsolateMounts(msgspec.Struct, frozen=True, tag_field="step", tag="isolate"):
    """Cuts this mount namespace off: nothing that is mounted in it shows on the host, nor the other way round."""

    def describe(self) -> str:
        return "make mounts private"

    def apply(self, init: Init) -> None:
        mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_PRIVATE)


class MakeOverlay(msgspec.Struct, frozen=True, tag_field="step", tag="overlay"):
    """Makes the root file system of layer directories (overlayfs), detached.

    lower: topmost first. upper, work: empty for a read-only view. mount_point: for kernels without the mount-descriptor
    calls, which must mount it somewhere. owner: the host's ids of the user namespace's root, if the layers' owners are
    to be shown as its ids; then the overlay's own work is done as that owner, for the host's root has no id there.
    limit: the quota project of upper and work, and the bytes that it may take.
    """

    slot: int
    lower: tuple[str, ...]
    upper: str
    work: str
    volatile: bool
    mount_point: str
    owner: tuple[int, int] | None = None
    limit: tuple[int, int] | None = None

    def describe(self) -> str:
        return f"mount overlay of {len(self.lower)} layers"

    def apply(self, init: Init) -> None:
        if self.limit is None:
            self._make(init)
            return
        upper_fd = os.open(self.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with quotas.loosened(upper_fd, *self.limit):
                self._make(init)
        finally:
            os.close(upper_fd)

    def _make(self, init: Init) -> None:
        if self.owner is not None:
            init.trees[self.slot] = self._writable(self._mount_mapped(init.user_fd, self.owner))
            return
        try:
            init.trees[self.slot] = self._writable(self._mount_new())
        except KernelError as error:
            if not self._is_for_mount2(error):
                raise
            # Not on "/": a path that begins there doesn't see what is mounted on it.
            place = self.mount_point if self.mount_point != "/" else self.lower[0]
            self._mount_classic(place)
            init.root_fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if file_system_type(init.root_fd) != OVERLAYFS_SUPER_MAGIC:
                raise KernelError(errno.ENODEV, "mount", place, "not an overlay") from error
            self._writable(init.root_fd)

    def detached(self, user_fd: int) -> int:
        """The overlay as a detached mount, on any kernel; nothing else happens."""
        if self.owner is not None:
            return self._mount_mapped(user_fd, self.owner)
        try:
            return self._mount_new()
        except KernelError as error:
            if not self._is_for_mount2(error):
                raise
        with mounting_aside():
            self._mount_classic(self.lower[0])
            return mounts.clone_tree(self.lower[0])

    def _writable(self, tree_fd: int) -> int:
        """Where overlayfs can't make its work directory, as on a full disk, it warns, and nothing can be written."""
        if not self.upper or not os.fstatvfs(tree_fd).f_flag & os.ST_RDONLY:
            return tree_fd
        os.close(tree_fd)
        try:
            os.rmdir(f"{self.work}/work")
        except OSError:
            pass  # it isn't there, as a rule
        try:
            os.mkdir(f"{self.work}/work", 0)  # what the kernel tried: now it says why not
        except OSError as error:
            raise KernelError(error.errno or 0, "mkdir", f"{self.work}/work") from error
        raise KernelError(errno.EROFS, "mount", self.upper)

    def _is_for_mount2(self, error: KernelError) -> bool:
        """Whether the old call may succeed: a kernel (or a sandbox that hides calls) without what the new one needs."""
        if error.call == "fsopen":
            return error.errno in (errno.ENOSYS, errno.EPERM)  # before Linux 5.2
        if error.call != "fsconfig" or error.errno != errno.EINVAL:
            return False
        longest = max(len(os.fsencode(path)) for path in (*self.lower, self.upper, self.work))
        return longest >= _LONGEST_VALUE or not mounts.has_overlay_parameters()

    def _options(self) -> list[tuple[str, str]]:
        """What both ways set. Off: features that make an upper directory unreadable as a plain diff."""
        options = [("redirect_dir", "off"), ("index", "off"), ("metacopy", "off")]
        if self.upper:
            options += [("upperdir", self.upper), ("workdir", self.work)]
        return options

    def _mount_new(self) -> int:
        context = mounts.FilesystemContext("overlay")
        try:
            context.set("source", "overlay")
            for path in self.lower:
                context.set("lowerdir+", path)
            for key, value in self._options():
                context.set(key, value.replace("\\", "\\\\"))  # overlayfs undoes escapes here, but not in lowerdir+
            if self.volatile:
                context.set_flag("volatile")
            return context.mount()
        finally:
            context.close()

    def _mount_mapped(self, user_fd: int, owner: tuple[int, int]) -> int:
        """Of ID-mapped clones of the layers' mounts, by descriptor (Linux 6.15; overlayfs.rst, "Layers via fds")."""
        context = mounts.FilesystemContext("overlay")
        opened: list[int] = []
        try:
            context.set("source", "overlay")
            for path in self.lower:
                opened.append(mounts.clone_tree(path))
                mounts.map_ids(opened[-1], user_fd, about=path)
                context.set_fd("lowerdir+", opened[-1])
            if self.upper:
                # Both are on one mount, as overlayfs wants it.
                above = os.path.dirname(self.upper)
                opened.append(mounts.clone_tree(above))
                mounts.map_ids(opened[-1], user_fd, about=above)
                tree_fd = opened[-1]
                for key, path in (("upperdir", self.upper), ("workdir", self.work)):
                    fd = os.open(
                        os.path.relpath(path, above), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree_fd
                    )
                    opened.append(fd)
                    context.set_fd(key, fd)
            for key, value in self._options()[:3]:
                context.set(key, value)
            if self.volatile:
                context.set_flag("volatile")
            with acting_as(*owner):
                return context.mount()
        except KernelError as error:
            # Overlay takes layers by descriptor since Linux 6.13, and detached ones since 6.15; before 6.5 nothing can
            # be set to a descriptor.
            if not opened or error.call != "fsconfig" or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
        finally:
            context.close()
            for fd in opened:
                os.close(fd)
        return self._mount_mapped_in_place(user_fd, owner)

    def _mount_mapped_in_place(self, user_fd: int, owner: tuple[int, int]) -> int:
        """As above, for older kernels (5.19), whose overlayfs wants layers that are mounted somewhere.

        The clones stand over the layers themselves, in a mount namespace that goes at once: overlay has its own then.
        """
        host_fd = open_namespace("/proc/thread-self/ns/mnt")
        try:
            unshare(CLONE_NEWNS)
            try:
                mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_PRIVATE)
                for path in dict.fromkeys((*self.lower, *([os.path.dirname(self.upper)] if self.upper else []))):
                    _map_in_place(path, user_fd)
                with acting_as(*owner):
                    self._mount_classic(self.lower[0])
                return mounts.clone_tree(self.lower[0])
            finally:
                setns(host_fd, CLONE_NEWNS)
        except KernelError as error:
            if error.call != "mount" or error.errno != errno.EINVAL:
                raise
            raise Unsupported("user namespaces on this kernel, whose overlayfs takes no mapped layers") from error
        finally:
            os.close(host_fd)

    def _mount_classic(self, place: str) -> None:
        """By mount(2), which copies a page of options: where layers' paths are longer, descriptors stand for them."""
        opened: list[int] = []
        try:
            data = self._classic_options([escape_layer(path) for path in self.lower])
            if len(os.fsencode(data)) >= os.sysconf("SC_PAGE_SIZE"):
                opened += [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in self.lower]
                data = self._classic_options([f"/proc/self/fd/{fd}" for fd in opened])
            if len(os.fsencode(data)) >= os.sysconf("SC_PAGE_SIZE"):
                raise KernelError(errno.E2BIG, "mount", place, "too many layers for this kernel's mount call")
            mounts.mount("overlay", place, "overlay", 0, data)
        finally:
            for fd in opened:
                os.close(fd)

    def _classic_options(self, layers: list[str]) -> str:
        options = [f"lowerdir={':'.join(layers)}"]
        options += [f"{key}={escape_comma(value)}" for key, value in self._options()]
        return ",".join([*options, "volatile"] if self.volatile else options)


@contextmanager
def mounting_aside() -> Iterator[None]:
    """A mount namespace for the block, which goes with it; what was copied out of it, detached, stays."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    held = [open_namespace("/proc/thread-self/ns/mnt"), os.open("/", flags), os.open(".", flags)]
    try:
        unshare(CLONE_NEWNS)
        try:
            mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_PRIVATE)
            yield
        finally:
            setns(held[0], CLONE_NEWNS)
            os.fchdir(held[1])
            os.chroot(".")  # setns(2) gave us the namespace's root, which isn't ours in a chroot
            os.fchdir(held[2])
    finally:
        for fd in held:
            os.close(fd)


def _map_in_place(path: str, user_fd: int) -> None:
    """Mounts a directory over itself, with its owners shown as a user namespace's ids."""
    tree_fd = mounts.clone_tree(path)
    target_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.map_ids(tree_fd, user_fd, about=path)
        mounts.move_mount(tree_fd, target_fd, about=path)
    finally:
        os.close(tree_fd)
        os.close(target_fd)


def escape_comma(path: str) -> str:
    """A path as an option of overlayfs in a comma-separated list."""
    return path.replace("\\", "\\\\").replace(",", "\\,")


def escape_layer(path: str) -> str:
    """A path as a part of overlayfs's `lowerdir=`, which separates by colons."""
    return escape_comma(path).replace(":", "\\:")


class AttachRoot(msgspec.Struct, frozen=True, tag_field="step", tag="attach_root"):
    """Attaches the root file system at `mount_point` in our own mount namespace; hooks may look for it there."""

    slot: int
    mount_point: str

    def describe(self) -> str:
        return f"attach root file system at {self.mount_point}"

    def apply(self, init: Init) -> None:
        if init.root_fd >= 0:
            return  # mounted the classic way
        target_fd = os.open(self.mount_point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        tree_fd = init.trees.pop(self.slot)
        mounts.mount_setattr(tree_fd, propagation=mounts.MS_PRIVATE, recursive=True)
        mounts.move_mount(tree_fd, target_fd, about=self.mount_point)
        os.close(target_fd)
        init.root_fd = tree_fd


class SealRoot(msgspec.Struct, frozen=True, tag_field="step", tag="seal_root"):
    """Makes the root mount read-only (not what is mounted below it)."""

    def describe(self) -> str:
        return "make the root file system read-only"

    def apply(self, init: Init) -> None:
        mounts.mount_setattr(init.root_fd, set=mounts.MOUNT_ATTR_RDONLY)


class MakeDirectory(msgspec.Struct, frozen=True, tag_field="step", tag="directory"):
    """Makes the working directory where it is missing."""

    path: str

    def describe(self) -> str:
        return f"create working directory {self.path}"

    def apply(self, init: Init) -> None:
        try:
            os.close(make_directories(init.root_fd, self.path))
        except KernelError:
            pass  # told by the chdir that follows, in the words that users know


class Pivot(msgspec.Struct, frozen=True, tag_field="step", tag="pivot"):
    """Makes the container's root the root of this mount namespace, and lets go of the host's."""

    move: bool = False  # MS_MOVE and chroot instead, where the host's root is a ramdisk (runc's --no-pivot)
    propagation: str = ""

    def describe(self) -> str:
        return "pivot_root"

    def apply(self, init: Init) -> None:
        init.join_cgroup()  # its files are on the host's side
        os.fchdir(init.root_fd)
        if self.move:
            mounts.mount(".", "/", "", mounts.MS_MOVE)
            os.chroot(".")
        else:
            # "." twice stacks the old root on the new one (pivot_root(2), "pivot_root(".", ".")"): no directory needed.
            mounts.pivot_root(".", ".")
            mounts.umount2(".", mounts.MNT_DETACH)
        os.chdir("/")
        init.enter_root()
        if self.propagation:
            mounts.mount("", "/", "", _PROPAGATION[self.propagation])
