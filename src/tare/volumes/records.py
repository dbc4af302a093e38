"""What is stored of a volume, and how the local driver's options read. Pure."""

from __future__ import annotations

import msgspec

LOCAL_DRIVER = "local"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""Docker's mark of a volume that the user gave no name; prune takes these unless it is told to take all."""

MEMORY_TYPES = frozenset(("hugetlbfs", "ramfs", "tmpfs"))
"""File systems that are empty again once they are unmounted."""


class LocalMount(msgspec.Struct, frozen=True, kw_only=True):
    """What the options of a local volume have mounted. options: `o`, split at the commas; it has no empty words."""

    type: str
    device: str
    options: tuple[str, ...] = ()

    @property
    def is_bind(self) -> bool:
        """Whether it shows a directory of the host (`type=none,o=bind`, or `type=bind`)."""
        return self.type == "bind" or "bind" in self.options or "rbind" in self.options

    @property
    def in_memory(self) -> bool:
        """Whether its content goes when it is unmounted."""
        return not self.is_bind and self.type in MEMORY_TYPES


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume as it is stored. options: the driver's, as they were given; None where none were.

    project_id: what its bytes are counted and limited by (storage/quotas.py); 0: nothing.
    """

    name: str
    created_ns: int
    driver: str = LOCAL_DRIVER
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    mount: LocalMount | None = None
    project_id: int = 0

    @property
    def anonymous(self) -> bool:
        """Whether the engine named it."""
        return ANONYMOUS_LABEL in (self.labels or {})
