"""Takes directories away at once and deletes them in their own time: a verb waits for a rename, not for the disk.

What a killed engine left in a trash is deleted at its next start, like every directory of no container.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

from tare.engine.engine import Engine, in_thread

TRASH = ".trash"
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
    engine.spawn(in_thread(shutil.rmtree, aside, ignore_errors=True), f"delete {path.name[:12]}")


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
            engine.trash_is_full = False
            await in_thread(engine.snapshots.empty_trash)
            await in_thread(engine.layers.empty_trash)
            await in_thread(engine.volumes.empty_trash)
            await in_thread(engine.layers.tidy)
    finally:
        engine.sweeping = False
