"""Which layers packed files still need, and what becomes of packed files whose layers go.

Must never let a map lose what it goes on from: a base that goes leaves its differences to those over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from tare.storage.chunks.maps import BASE, compose, encode, uses
from tare.storage.chunks.rows import PackedFile, PackedFiles
from tare.storage.chunks.table import Chunks
from tare.storage.database import Transaction

_Links = Mapping[tuple[str, bytes], str | None]


def kept_for_others(links: _Links, held: AbstractSet[str]) -> set[str]:
    """The layers beyond `held` whose plain files are bases.

    links: (layer, path) of each packed file → its base's layer.
    A base that is packed itself isn't needed: what it differs in can go over to those on it.
    """
    alive = set(held)
    waiting = [key for key in links if key[0] in alive]
    while waiting:
        key = waiting.pop()
        path, base = key[1], links[key]
        while base is not None and base not in alive:
            if (base, path) in links:
                base = links[base, path]
                continue
            alive.add(base)
            waiting += [other for other in links if other[0] == base]
    return alive - held


def drop_layers(tx: Transaction, rows: PackedFiles, chunks: Chunks, gone: AbstractSet[str]) -> None:
    """Forgets the packed files of layers that go; those over them get what they had from them."""
    files = rows.all()
    for file in files:
        if file.diff_id not in gone and file.base_diff_id in gone:
            _take_over(tx, rows, chunks, file, gone)
    doomed = [file for file in files if file.diff_id in gone]
    for file in doomed:
        chunks.drop_uses(tx, uses(file.entries()))
    rows.delete(tx, [file.file_id for file in doomed])
    ids = [(diff_id,) for diff_id in gone]
    tx.run_many("DELETE FROM superseded WHERE diff_id = ?", ids)
    tx.run_many("DELETE FROM superseded WHERE by_diff_id = ?", ids)
    tx.run_many("DELETE FROM successors WHERE diff_id = ?", ids)


def _take_over(tx: Transaction, rows: PackedFiles, chunks: Chunks, file: PackedFile, gone: AbstractSet[str]) -> None:
    entries, base = file.entries(), file.base_diff_id
    before = uses(entries)
    while base is not None and base in gone:
        below = rows.find(base, file.path)
        if below is None:
            return  # a plain base of a layer that was lost: `check` tells
        entries, base = compose(entries, below.entries()), below.base_diff_id
    if not any(entry.source == BASE for entry in entries):
        base = None
    chunks.add_uses(tx, uses(entries))
    chunks.drop_uses(tx, before)
    rows.rebase(tx, file, encode(entries), base)
