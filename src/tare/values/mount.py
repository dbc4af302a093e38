"""What a root file system is made of: the one value that storage hands to the runtime."""

from __future__ import annotations

import msgspec


class OverlayRoot(msgspec.Struct, frozen=True, tag="overlay"):
    """A root file system that overlayfs makes of directories.

    lower: read-only layer directories, topmost first (overlayfs order). upper, work: directories on one file system,
    or both None for a read-only view. volatile: skip syncing (only for roots that are thrown away at exit). project,
    limit_bytes: the quota project of upper and work, and what it may take; 0: none.
    """

    lower: tuple[str, ...]
    upper: str | None = None
    work: str | None = None
    volatile: bool = False
    project: int = 0
    limit_bytes: int = 0


class DirectoryRoot(msgspec.Struct, frozen=True, tag="directory"):
    """A root file system that is a plain directory (an OCI bundle's rootfs, a native copy)."""

    path: str


RootFilesystem = OverlayRoot | DirectoryRoot
