"""What the storage tests stand on: real directories below tmp_path, removed afterwards whatever depth they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.storage.database import Database
from tare.storage.layers import Layers
from tare.storage.snapshots import Snapshots


class Store:
    """One engine's storage below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.db = Database(root / "state.db")
        self.layers = Layers(root / "storage", self.db)
        self.snapshots = Snapshots(root / "snapshots", self.layers, self.db)

    def close(self) -> None:
        self.db.close()

    def leftovers(self) -> list[str]:
        """Whatever isn't a finished layer or snapshot."""
        found = []
        for directory in ("storage/staging", "storage/trash", "snapshots/.trash"):
            found += [f"{directory}/{entry.name}" for entry in (self.root / directory).iterdir()]
        return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "data")
    yield made
    made.close()
