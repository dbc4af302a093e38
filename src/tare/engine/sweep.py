"""Takes directories away at once and deletes them in their own time: a verb waits for a rename, not for the disk.

What a killed engine left in a trash is deleted at its next start, like every directory of no container.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tare.engine.engine import Engine, in_thread

TRASH = ".trash"
QUIET_S = 0.2
"""How long after a removal deletion begins: what was removed in a row is deleted in one go, after the answers."""
_number = itertools.count()


def discard_directory(engine: Engine, path: Path) -> None:
    """Makes path vanish; nothing to do is fine."""
    trash = path.parent / TRASH
    aside = trash / f"{path.name}.{os.getpid()}.{next(_number)}"
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        if not path.exists():
            return
        trash.mkdir(mode=0o700, exist_ok=True)
        os.rename(path, aside)
    engine.discarded.append(aside)
    if len(engine.discarded) == 1:
        engine.spawn(_delete_discarded(engine), "delete directories")


async def _delete_discarded(engine: Engine) -> None:
    try:
        await asyncio.sleep(QUIET_S)
    except asyncio.CancelledError:  # the engine shuts down
        _delete(engine.discarded)
        raise
    found, engine.discarded = engine.discarded, []
    await in_thread(_delete, found)


def _delete(directories: Sequence[Path]) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def empty_trash_soon(engine: Engine) -> None:
    """Deletes the trees of what was removed, packs older versions of files.

    One sweep at a time, however often it is asked for.
    """
    engine.trash_is_full = True
    if not engine.sweeping:
        engine.sweeping = True
        engine.spawn(_empty_trash(engine), "empty the trash")


async def _empty_trash(engine: Engine) -> None:
    try:
        while engine.trash_is_full:
            try:
                await asyncio.sleep(QUIET_S)
            except asyncio.CancelledError:  # the engine shuts down
                _empty(engine)
                raise
            engine.trash_is_full = False
            await in_thread(_empty, engine)
            await in_thread(engine.layers.tidy)
    finally:
        engine.sweeping = False


def _empty(engine: Engine) -> None:
    engine.snapshots.empty_trash()
    engine.layers.empty_trash()
    engine.images.delete_leftovers()
    engine.volumes.empty_trash()
