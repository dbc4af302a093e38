"""One engine's storage rooms below a directory, for tests."""

from __future__ import annotations

from pathlib import Path

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
