"""pack: all older versions of large files as what differs from newer ones, at once; or all of them plain again."""

from __future__ import annotations

from tare.engine.engine import Engine, in_thread
from tare.storage.chunks.tidy import Tidied, note_everything, tidy


async def pack_versions(engine: Engine, *, unpack: bool = False) -> Tidied:
    """Packs whatever no container sees, lineage or not: of each path the older layers' files over the newer ones'.

    unpack: makes all plain instead, and leaves them so for a day. Raises ResourceExhausted (no space to unpack).
    At the engine's own priority: a thread below it that holds the interpreter's lock would stop the engine.
    """
    return await in_thread(_unpack if unpack else _pack, engine)


def _pack(engine: Engine) -> Tidied:
    layers = sorted(engine.layers.all(), key=lambda layer: layer.created_ns)
    note_everything(engine.layers.packing, [layer.diff_id for layer in layers])
    return tidy(engine.layers.packing, eager=True)


def _unpack(engine: Engine) -> Tidied:
    files = used = 0
    packing = engine.layers.packing
    for file in packing.rows.all():
        if packing.unpack(file.file_id, cool=True):
            files, used = files + 1, used + file.size
    packing.give_back()
    return Tidied(files=files, freed_bytes=-used)
