"""What a check takes for somebody's: it works beside verbs that haven't written everything down yet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tare.engine import fsck
from tare.engine.containers import Containers
from tare.engine.engine import Engine
from tare.engine.trash_store import LAYER_ROOT, Trashed, TrashStore
from tare.images.records import RemovedImage
from tare.storage.database import Database
from tare.values.ids import new_id
from tare.values.timestamps import now_ns


def engine_over(database: Database) -> Engine:
    parts: dict[str, Any] = {
        "database": database,
        "containers": Containers(database),
        "trash": TrashStore(database),
        "making": set(),
    }
    return cast(Engine, SimpleNamespace(**parts))


def test_a_container_in_the_making_owns_its_snapshot(tmp_path: Path) -> None:
    """Its volumes may take minutes to be filled from the image: a repair meanwhile must not take its files away."""
    engine, container_id = engine_over(Database(tmp_path / "state.db")), new_id()
    assert not fsck._has_owner(engine, container_id)
    with Engine.made(engine, container_id):
        assert fsck._has_owner(engine, container_id)
    assert not fsck._has_owner(engine, container_id)


def test_an_image_on_its_way_into_the_trash_keeps_its_layers(tmp_path: Path) -> None:
    """The thread that removes many images tells the engine at its end; what the database says counts before."""
    database = Database(tmp_path / "state.db")
    engine = engine_over(database)
    hexes = "a" * 64
    removed = RemovedImage(
        id=f"sha256:{hexes}",
        document=b"{}",
        manifest=b"{}",
        parent_id=None,
        previous_id=None,
        diff_ids=(),
        created_ns=0,
        names=("a:1",),
    )
    assert not fsck._is_known(engine, LAYER_ROOT + hexes)
    with database.transaction() as tx:
        engine.trash.insert(tx, Trashed(id=hexes, record=removed, removed_ns=now_ns()))
    assert fsck._is_known(engine, LAYER_ROOT + hexes)
