"""The steps that find what others may be changing meanwhile: a directory or file inside a volume, another's mount.

Must never follow a link out of the volume: the path is resolved with the volume's own directory as `/`, and what was
found is held by descriptor from then on (CVE-2024-23651 is the same in builds).
"""

from __future__ import annotations

import os

import msgspec

from tare.kernel import mounts
from tare.kernel.fds import RESOLVE_NO_SYMLINKS, open_in_root
from tare.kernel.namespaces import CLONE_NEWNS, open_namespace, setns
from tare.runtime.steps.init import Init


class CloneBeneath(msgspec.Struct, frozen=True, tag_field="step", tag="clone-beneath"):
    """Copies the mounts at `path` inside the host's directory `source`, detached, for a later BindMount."""

    slot: int
    source: str
    path: str
    recursive: bool
    mapped: bool = False

    def describe(self) -> str:
        return f'error mounting "{self.path}" of "{self.source}"'

    def apply(self, init: Init) -> None:
        source_fd = os.open(self.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found_fd = open_in_root(source_fd, self.path)
            try:
                init.trees[self.slot] = tree_fd = mounts.clone_fd(found_fd, self.recursive)
                if self.mapped:
                    mounts.map_ids(tree_fd, init.user_fd, self.recursive, self.source)
            finally:
                os.close(found_fd)
        finally:
            os.close(source_fd)


class CloneOfProcess(msgspec.Struct, frozen=True, tag_field="step", tag="clone-of-process"):
    """Copies the mount at `path` in another process's mount namespace, detached, for a later BindMount.

    A mount can be copied in its own namespace only (open_tree(2)): this goes there and comes back.
    """

    slot: int
    pid: int
    path: str

    def describe(self) -> str:
        return f'error mounting "{self.path}" of process {self.pid}'

    def apply(self, init: Init) -> None:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        held = [open_namespace("/proc/self/ns/mnt"), os.open("/", flags)]
        try:
            held.append(open_namespace(f"/proc/{self.pid}/ns/mnt"))
            held.append(os.open(f"/proc/{self.pid}/root", flags))
            setns(held[2], CLONE_NEWNS, about=f"mount namespace of process {self.pid}")
            try:
                # No link of the other's is followed: what it leads to could be anything there.
                held.append(open_in_root(held[3], self.path, resolve=RESOLVE_NO_SYMLINKS))
                init.trees[self.slot] = mounts.clone_fd(held[4])
            finally:
                setns(held[0], CLONE_NEWNS, about="own mount namespace")
                os.fchdir(held[1])
                os.chroot(".")  # setns(2) gave us the namespace's root, which isn't ours in a chroot
        finally:
            for fd in held:
                os.close(fd)
