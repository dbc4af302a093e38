"""The ledger of the data root: one walk over all of it, in which every file and directory has one owner.

Must never leave the data root's file system (a volume may have another mounted), nor count a byte twice.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import msgspec

from tare.engine.engine import Engine
from tare.storage.usage import Measured, measure

OWNERS = {
    "images": "layers of images, and those that containers keep of images that were removed",
    "containers": "what containers have changed",
    "volumes": "volumes",
    "logs": "containers' logs and files beside their layers",
    "trash": "what was removed and can be restored",
    "recipes": "what it takes to give layers back as the tars that they were, bit for bit",
    "originals": "compressed layers kept as they came, since they can't be made again; `system thin` gives them up",
    "documents": "images' configs and manifests",
    "database": "the engine's records",
    "leftovers": "what is being made or deleted just now",
    "engine": "what is made ahead, and the directories that hold it all",
}
LISTED = ("images", "containers", "volumes", "logs", "trash")
"""Owners that have a line of their own in what Docker shows, or beside it."""


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """An owner's share. size_bytes: apparent, of files. disk_bytes: blocks, directories' too, as du counts them."""

    owner: str
    count: int
    size_bytes: int
    disk_bytes: int


def only_in_trash(engine: Engine) -> set[str]:
    """The layers that nothing but the trash holds."""
    waiting: set[str] = set()
    held: set[str] = set()
    for holder, diff_ids in engine.layers.holders():
        (waiting if engine.trash.holds_layers(holder) else held).update(diff_ids)
    return waiting - held


class _Book:
    """The sums while the walk goes on."""

    def __init__(self) -> None:
        self.sums = {owner: Measured() for owner in OWNERS}
        self.counts: Counter[str] = Counter()

    def add(self, owner: str, path: Path, *, things: int = 0) -> None:
        """All that is at and below a path."""
        try:
            self.sums[owner] = self.sums[owner].plus(measure(path))
        except FileNotFoundError:
            return  # removed meanwhile
        self.counts[owner] += things

    def add_itself(self, path: Path) -> list[Path]:
        """A directory that holds what belongs to several: its own blocks are the engine's; returns what is in it."""
        try:
            entries = [Path(entry.path) for entry in os.scandir(path)]
            disk_bytes = os.lstat(path).st_blocks * 512
        except FileNotFoundError:
            return []
        self.sums["engine"] = self.sums["engine"].plus(Measured(0, disk_bytes))
        return entries


def ledger(engine: Engine) -> tuple[Owned, ...]:
    """Who owns what of the data root. Slow, for a thread; what changes meanwhile is counted as it was or as it is."""
    book = _Book()
    root = engine.settings.data_root
    places = {"layers": _layers, "snapshots": _snapshots, "containers": _container_files, "volumes": _volumes}
    for path in book.add_itself(root):
        if path.name in places and path.is_dir():
            places[path.name](engine, book, path)
        elif path.name == "content":
            book.add("documents", path)
        elif path.name == "registry":
            book.add("leftovers", path)  # blobs of pulls that broke off, which the next one goes on with
        else:
            book.add("database" if path.name.startswith("tare.db") else "engine", path)
    book.counts["trash"] = len(engine.trash)
    return tuple(
        Owned(owner=owner, count=book.counts[owner], size_bytes=found.size_bytes, disk_bytes=found.disk_bytes)
        for owner, found in book.sums.items()
    )


def _layers(engine: Engine, book: _Book, place: Path) -> None:
    waiting = only_in_trash(engine)
    for path in book.add_itself(place):
        if path.name in ("staging", "trash"):
            book.add("leftovers", path)
        elif path.name == "packs":
            book.add("images", path)
        elif path.name == "originals":
            book.add("originals", path)
        elif path.name != "layers":
            book.add("engine", path)
        else:
            for layer in book.add_itself(path):
                for part in book.add_itself(layer):
                    is_waiting = f"sha256:{layer.name}" in waiting
                    book.add(("trash" if is_waiting else "images") if part.name == "tree" else "recipes", part)
                book.counts["images"] += f"sha256:{layer.name}" not in waiting


def _snapshots(engine: Engine, book: _Book, place: Path) -> None:
    for path in book.add_itself(place):
        if path.name == ".trash":
            book.add("leftovers", path)
        elif path.name.startswith("."):
            book.add("engine", path)
        else:
            book.add("trash" if engine.trash.holds(path.name) else "containers", path, things=1)


def _container_files(engine: Engine, book: _Book, place: Path) -> None:
    for path in book.add_itself(place):
        if path.name.startswith("."):
            book.add("leftovers", path)
        else:
            book.add("trash" if engine.trash.holds(path.name) else "logs", path, things=1)


def _volumes(_engine: Engine, book: _Book, place: Path) -> None:
    for path in book.add_itself(place):
        owner = {".trash": "leftovers", ".removed": "trash"}.get(path.name, "volumes")
        book.add(owner, path, things=int(owner == "volumes"))
