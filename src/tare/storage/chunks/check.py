"""Looks whether every packed file can be had as it was: the part of a check of the store that is about packing.

Must never change anything.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator

import msgspec

from tare import errors
from tare.storage.chunks.mark import NoLongerPacked
from tare.storage.chunks.packing import Packing


class PackUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What packing costs and saves.

    files, plain_bytes: how many are packed, and what they show as their sizes. pack_bytes: of all packs on the disk.
    layer_bytes: by layer, what its own chunks took; the rest of pack_bytes is shared or waits to be given back.
    """

    files: int
    plain_bytes: int
    pack_bytes: int
    layer_bytes: dict[str, int]


def pack_usage(packing: Packing) -> PackUsage:
    files = packing.rows.all()
    layer_bytes: Counter[str] = Counter()
    for file in files:
        layer_bytes[file.diff_id] += file.stored_bytes
    return PackUsage(
        files=len(files),
        plain_bytes=sum(file.size for file in files),
        pack_bytes=packing.packs.used_bytes(),
        layer_bytes=dict(layer_bytes),
    )


def check_packing(packing: Packing, *, contents: bool = True) -> list[str]:
    """A line for each thing that is wrong, naming layer and path, or pack and offset.

    contents: reads all bytes, too.
    """
    return [*_counts(packing), *(_contents(packing) if contents else ())]


def _counts(packing: Packing) -> Iterator[str]:
    found: Counter[int] = Counter()
    for file in packing.rows.all():
        name = f"packed file {os.fsdecode(file.path)!r} of layer {file.diff_id}"
        try:
            entries = file.entries()
            found.update(entry.source for entry in entries if entry.source > 0)
            if sum(entry.length for entry in entries) != file.size:
                yield f"{name}: its map has another size than {file.size}"
            packing.rows.resolved(file)
        except errors.Internal as error:
            yield f"{name}: {error}"
        if not packing.tree(file.diff_id).is_dir():
            yield f"{name}: there is no such layer"
    for row in packing.chunks.all():
        used = found.pop(row["chunk_id"], 0)
        if used != row["uses"]:
            yield f"chunk {row['sha256'].hex()[:12]} counts {row['uses']} uses, but has {used}"
    if found:
        yield f"{len(found)} chunks that maps name are not recorded"


def _contents(packing: Packing) -> Iterator[str]:
    for file in packing.rows.all():
        name = f"packed file {os.fsdecode(file.path)!r} of layer {file.diff_id}"
        digest = hashlib.sha256()
        try:
            for piece in packing.reading.read(file.mark):
                digest.update(piece)
        except NoLongerPacked:
            continue
        except (errors.TareError, OSError) as error:
            yield str(error) if name in str(error) else f"{name}: {error}"
            continue
        if digest.digest() != file.sha256:
            yield f"{name}: its content has another digest"
