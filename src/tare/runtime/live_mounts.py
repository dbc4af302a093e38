"""Mounts of a running container, added and taken away by a worker that enters its mount namespace for that alone.

    tared ──MountRequest + [report socket, root, mount namespace]──▶ launcher ──fork──▶ worker: setns, move_mount
    tared ◀──MountReply── worker, which then exits

Sources are taken on the host before the worker enters; inside, every place is resolved with the container's root as `/`
and held by descriptor, as at the start. The worker runs and loads nothing from the root (CVE-2019-14271), and takes
away no mount but the one that it has just identified by its number in the kernel's own list.
"""

from __future__ import annotations

import errno
import os
import posixpath
import socket
import stat
import sys

import msgspec

from tare import faults
from tare.errors import Conflict, Internal, InvalidArgument, KernelError, NotFound, TareError, Unsupported
from tare.kernel import mounts, namespaces, process
from tare.kernel.fds import (
    RESOLVE_NO_SYMLINKS,
    make_directories,
    make_file,
    open_in_root,
    openat2,
)
from tare.oci.runtime_spec import OCI_VERSION, Mount, Spec
from tare.runtime import messages
from tare.runtime.failure import sentence
from tare.runtime.plan import Step
from tare.runtime.plan_mounts import MountPlan
from tare.runtime.steps.filesystems import BindMount, MountFilesystem
from tare.runtime.steps.init import Init

_ERRORS: dict[str, type[TareError]] = {
    kind.__name__: kind for kind in (Conflict, InvalidArgument, NotFound, Unsupported)
}
_ENGINE_TREES = ("/proc/", "/sys/")


class Change(msgspec.Struct, frozen=True):
    """One mount to add (steps: how), or to take away from `target` (no steps).

    again: it may have been done before. kept: places of the engine's own mounts, which nobody takes away by another
    name; others: the user's other mounts. owner: see plan_mount.
    """

    target: str
    early: tuple[Step, ...] = ()
    steps: tuple[Step, ...] = ()
    again: bool = False
    kept: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Change).decode


def plan_mount(mount: Mount, *, again: bool = False, owner: tuple[int, int] | None = None) -> bytes:
    """A request that adds a mount; again: it is well if something is mounted there. Raises InvalidArgument.

    owner: the host's ids of the container's root, where it has a user namespace of its own.
    """
    plan = MountPlan("", early_binds=True, owner=owner)
    plan.add_mounts(Spec(oci_version=OCI_VERSION, mounts=(mount,)), None, cgroup_namespace=False)
    target = posixpath.normpath(mount.destination)
    return _encode(Change(target, tuple(plan.early), tuple(plan.mounts), again, owner=owner))


def plan_unmount(target: str, *, kept: tuple[str, ...], others: tuple[str, ...], again: bool = False) -> bytes:
    """A request that takes a mount away; again: it is well if nothing is mounted there."""
    return _encode(Change(target, again=again, kept=kept, others=others))


def raise_answer(reply: messages.MountReply) -> None:
    """Raises what the worker says: Conflict, InvalidArgument, NotFound, Unsupported or Internal."""
    if reply.kind:
        raise _ERRORS.get(reply.kind, Internal)(reply.error)


def run_worker(request: messages.MountRequest, report: socket.socket, root_fd: int, namespace_fd: int) -> None:
    """Makes the change and says how it went. Call it in a process with one thread that is there for nothing else."""
    try:
        change = _decode(request.change)
        sys.meta_path.clear()  # from now on an import fails: it could find the container's files (CVE-2019-14271)
        process.set_dumpable(False)
        os.umask(0)
        init = Init(report, None)
        if change.owner is not None:
            init.user_fd = namespaces.owner_of(namespace_fd)
        for step in change.early:
            step.apply(init)
        faults.point("runtime.mounts.source")
        place = _Inside(root_fd, namespace_fd)
        init.root_fd = root_fd
        if change.steps and change.owner is not None:
            with namespaces.acting_as(*change.owner):  # else what has to be made had an owner that isn't mapped
                _add(place, init, change)
        elif change.steps:
            _add(place, init, change)
        else:
            _remove(place, change)
        faults.point("runtime.mounts.done")
    except (TareError, OSError) as error:
        kind = type(error).__name__
        text = str(error)
        if isinstance(error, KernelError | OSError):
            kind, text = "InvalidArgument", sentence(error)
        messages.send(report, messages.MountReply(kind, text))
        return
    messages.send(report, messages.MountReply())


class MountEntry(msgspec.Struct, frozen=True):
    """A line of mountinfo (proc_pid_mountinfo(5)). place: where the mount is, as seen from the root."""

    id: int
    place: str
    shared: bool


class _Inside:
    """The container's mount namespace, entered; looked at through the host's /proc, since the container's may lie."""

    def __init__(self, root_fd: int, namespace_fd: int) -> None:
        self.root_fd = root_fd
        self._proc_fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        namespaces.setns(namespace_fd, namespaces.CLONE_NEWNS, about="the container's mount namespace")
        os.fchdir(root_fd)
        os.chroot(".")  # paths in mountinfo are the container's from here on

    def _read(self, name: str) -> str:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc_fd)
        with open(fd, "rb") as file:
            return file.read().decode("utf-8", "surrogateescape")

    def mounts(self) -> dict[int, MountEntry]:
        """All mounts that the container sees, by number."""
        found = {}
        for line in self._read("mountinfo").rstrip("\n").split("\n"):
            words = line.split(" ")
            shared = any(word.startswith("shared:") for word in words[6 : words.index("-")])
            entry = MountEntry(int(words[0]), _unescaped(words[4]), shared)
            found[entry.id] = entry
        return found

    def path_of(self, fd: int) -> str:
        """Where a descriptor's file is now."""
        return os.readlink(f"fd/{fd}", dir_fd=self._proc_fd)

    def mount_id(self, fd: int) -> int:
        """The number of the mount that a descriptor's file is on."""
        lines = self._read(f"fdinfo/{fd}").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))

    def mount_at(self, fd: int) -> MountEntry | None:
        """The mount whose root a descriptor holds; None if it holds something inside one."""
        entry = self.mounts().get(self.mount_id(fd))
        return entry if entry is not None and entry.place == self.path_of(fd) else None


def _unescaped(text: str) -> str:
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, letter)
    return text


def _below(place: str, parent: str) -> bool:
    return place.startswith(parent.rstrip("/") + "/")


def _add(place: _Inside, init: Init, change: Change) -> None:
    if _is_taken(place, change):
        return
    for step in change.steps:
        slot = step.slot if isinstance(step, BindMount) else -1
        spare_fd = os.dup(init.trees[slot]) if slot >= 0 else -1
        try:
            try:
                step.apply(init)
            except KernelError as error:
                if error.errno != errno.EROFS or not isinstance(step, BindMount | MountFilesystem):
                    raise
                _make_in_sealed_root(place, init, step, is_file=spare_fd >= 0 and not _is_directory(spare_fd))
                if spare_fd >= 0:
                    init.trees[slot], spare_fd = spare_fd, -1
                step.apply(init)
        except (KernelError, OSError) as error:
            raise InvalidArgument(f"{step.describe()}: {sentence(error)}") from error
        finally:
            if spare_fd >= 0:
                os.close(spare_fd)


def _is_taken(place: _Inside, change: Change) -> bool:
    """Whether it is mounted already, where that is well. Raises Conflict if the mount would hide another."""
    try:
        target_fd = open_in_root(place.root_fd, change.target)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    try:
        where = place.path_of(target_fd)
        if place.mount_at(target_fd) is not None:
            if change.again:
                return True
            raise Conflict(f"something is mounted at {where} already")
    finally:
        os.close(target_fd)
    hidden = next((entry.place for entry in place.mounts().values() if _below(entry.place, where)), None)
    if hidden is not None:
        raise Conflict(f"a mount at {where} would hide the one at {hidden}")
    return False


def _make_in_sealed_root(place: _Inside, init: Init, step: BindMount | MountFilesystem, *, is_file: bool) -> None:
    """Makes a mount's place though the root is read-only, as at the start, where it is sealed only afterwards.

    The seal is an attribute of the mount: a copy of it without the seal, that nobody else sees, is written through.
    """
    parent = posixpath.dirname(step.target)
    missing = [posixpath.basename(step.target)]
    while True:
        try:
            parent_fd = open_in_root(init.root_fd, parent)
            break
        except KernelError as error:
            if error.errno != errno.ENOENT or parent == "/":
                raise
        missing.insert(0, posixpath.basename(parent))
        parent = posixpath.dirname(parent)
    try:
        if place.mount_id(parent_fd) != place.mount_id(init.root_fd):
            raise KernelError(errno.EROFS, "mkdir", step.target)  # the user's own read-only mount
        copy_fd = mounts.clone_fd(parent_fd)
    finally:
        os.close(parent_fd)
    try:
        mounts.mount_setattr(copy_fd, clear=mounts.MOUNT_ATTR_RDONLY)
        path = "/".join(missing)
        if is_file:
            os.close(make_file(copy_fd, path))
        else:
            mode = 0o755 if isinstance(step, BindMount) else 0o1777  # a tmpfs takes its place's mode
            os.close(make_directories(copy_fd, path, mode))
    finally:
        os.close(copy_fd)


def _is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _remove(place: _Inside, change: Change) -> None:
    entry = _found(place, change)
    if entry is None:
        return
    below = [one for one in place.mounts().values() if _below(one.place, entry.place)]
    mine = next((one.place for one in below if one.place in change.others), None)
    if mine is not None:
        raise Conflict(f"the mount at {mine} lies on the one at {change.target}: take that away first")
    if below and entry.shared:
        raise Conflict(f"the mount at {change.target} shares what is mounted on it with the host: stop the container")
    removed: list[tuple[MountEntry, int]] = []
    try:
        for one in sorted(below, key=lambda one: (one.place.count("/"), one.id), reverse=True):
            removed.append((one, _detach(place, one, change.target, keep=True)))
        _detach(place, entry, change.target, keep=False)
    except BaseException:
        for one, copy_fd in reversed(removed):
            target_fd = open_in_root(place.root_fd, one.place, resolve=RESOLVE_NO_SYMLINKS)
            mounts.move_mount(copy_fd, target_fd, about=one.place)
            os.close(target_fd)
        raise
    finally:
        for _, copy_fd in removed:
            os.close(copy_fd)


def _found(place: _Inside, change: Change) -> MountEntry | None:
    """The user's mount at a place; None if it is gone, where that is well. Raises NotFound, Conflict."""
    missing = NotFound(f"nothing is mounted at {change.target}")
    try:
        target_fd = open_in_root(place.root_fd, change.target)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            if change.again:
                return None
            raise missing from error
        raise
    try:
        entry = place.mount_at(target_fd)
    finally:
        os.close(target_fd)
    engines_own = change.target in change.kept
    if engines_own and entry is not None:  # the user's mount lies over it
        same = [one for one in place.mounts().values() if one.place == entry.place]
        entry = entry if len(same) > 1 else None
    if entry is None:
        if change.again:
            return None
        raise missing
    if entry.place != change.target and (
        entry.place in (*change.kept, *change.others) or entry.place.startswith(_ENGINE_TREES)
    ):
        raise Conflict(f"{change.target} leads to {entry.place} now, which is another mount")
    return entry


def _detach(place: _Inside, entry: MountEntry, target: str, *, keep: bool) -> int:
    """Takes one mount away; keep: returns a detached copy of it, else -1. Raises Conflict if it is in use."""
    parent, name = posixpath.split(entry.place)
    parent_fd = open_in_root(place.root_fd, parent, resolve=RESOLVE_NO_SYMLINKS)
    copy_fd = -1
    try:
        mount_fd = openat2(parent_fd, name, os.O_PATH | os.O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS)
        try:
            if place.mount_id(mount_fd) != entry.id:
                raise Conflict(f"the mounts at {target} are being changed")
            if keep:
                copy_fd = mounts.clone_fd(mount_fd)
        finally:
            os.close(mount_fd)
        os.fchdir(parent_fd)
        mounts.umount2(name, mounts.UMOUNT_NOFOLLOW)
        if entry.id in place.mounts():
            raise Conflict(f"the mounts at {target} are being changed")
    except BaseException as error:
        if copy_fd >= 0:
            os.close(copy_fd)
        if isinstance(error, KernelError) and error.errno == errno.EBUSY:
            raise Conflict(f"the mount at {target} is in use by a process of the container") from error
        raise
    finally:
        os.chdir("/")
        os.close(parent_fd)
    return copy_fd
