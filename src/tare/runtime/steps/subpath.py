"""The step that finds a directory or file inside a volume which other containers may be changing meanwhile.

Must never follow a link out of the volume: the path is resolved with the volume's own directory as `/`, and what was
found is held by descriptor from then on (CVE-2024-23651 is the same in builds).
"""

from __future__ import annotations

import os

import msgspec

from tare.kernel import mounts
from tare.kernel.fds import open_in_root
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
