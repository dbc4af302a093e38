"""The step that shows other layers than the root's, read-only: an image's files in a container.

Must never follow a link out of the layers: a path in them is resolved with their merged view as `/`, and what was found
is held by descriptor from then on.
"""

from __future__ import annotations

import os

import msgspec

from tare.kernel import mounts
from tare.kernel.fds import open_in_root
from tare.runtime.steps.init import Init
from tare.runtime.steps.roots import MakeOverlay, mounting_aside


class ShowLayers(msgspec.Struct, frozen=True, tag_field="step", tag="show-layers"):
    """Makes an overlay of layer directories, or of what is at `path` in it, detached, for a later BindMount.

    lower: topmost first, two at least; the last is an empty directory. owner: see MakeOverlay. name: for messages.
    """

    slot: int
    lower: tuple[str, ...]
    path: str
    name: str
    owner: tuple[int, int] | None = None

    def describe(self) -> str:
        what = f'"{self.path}" of "{self.name}"' if self.path else f'"{self.name}"'
        return f"error mounting {what}"

    def apply(self, init: Init) -> None:
        overlay = MakeOverlay(self.slot, self.lower, "", "", False, "/", self.owner)
        tree_fd = overlay.detached(init.user_fd)
        if self.path:
            try:
                found_fd = self._beneath(tree_fd)
            finally:
                os.close(tree_fd)
            tree_fd = found_fd
        init.trees[self.slot] = tree_fd

    def _beneath(self, tree_fd: int) -> int:
        """A part of a mount can be copied where the mount is attached only (open_tree(2), until Linux 6.15)."""
        with mounting_aside():
            place_fd = os.open(self.lower[-1], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                mounts.move_mount(tree_fd, place_fd, about=self.name)
                found_fd = open_in_root(tree_fd, self.path)
                try:
                    return mounts.clone_fd(found_fd)
                finally:
                    os.close(found_fd)
            finally:
                os.close(place_fd)
