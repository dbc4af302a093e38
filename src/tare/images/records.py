"""The records that the images room hands out and takes. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from tare.oci.image_spec import ImageConfig, ImageSpec
from tare.storage.database import Transaction


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image. id: digest of its OCI config. repo_tags, repo_digests: its names in the form users read, sorted.

    previous_id: the commit before it of the same container. part_of: ids of images by whose index it is held.
    damaged: why it can't be used; "": it can.
    """

    id: str
    manifest_digest: str
    parent_id: str | None
    previous_id: str | None = None
    diff_ids: tuple[str, ...]
    size_bytes: int
    created_ns: int
    last_tagged_ns: int
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    spec: ImageSpec
    part_of: tuple[str, ...] = ()
    damaged: str = ""

    @property
    def config(self) -> ImageConfig:
        return self.spec.config

    @property
    def dangling(self) -> bool:
        return not self.repo_tags and not self.repo_digests and not self.part_of


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A container that uses an image; the engine tells."""

    container_id: str
    image_id: str
    running: bool


Uses = Callable[[], Iterable[Use]]


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """One line of what a removal did.

    untagged: value is a reference. deleted: value is an image's id, or with layer set a layer's chain ID.
    """

    kind: Literal["untagged", "deleted"]
    value: str
    image_id: str
    layer: bool = False


class RemovedImage(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to make an image again while something holds its layers. names: in the form users read."""

    id: str
    document: bytes
    manifest: bytes
    parent_id: str | None
    previous_id: str | None
    diff_ids: tuple[str, ...]
    created_ns: int
    names: tuple[str, ...]


Keep = Callable[[Transaction, RemovedImage], None]
"""Takes over an image that is being removed, in the transaction that forgets it."""


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an image's history, newest first. id: "<missing>" where no image of this engine ends there."""

    id: str
    created_ns: int
    created_by: str
    size_bytes: int
    comment: str
    tags: tuple[str, ...]


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    removed: tuple[Removed, ...]
    reclaimed_bytes: int


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What machine an image is for, in Go's names."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""
