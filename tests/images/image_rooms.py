"""One engine's storage and images below a directory, for tests."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from tare.images.images import Images
from tare.images.import_image import import_image
from tare.images.records import Image
from tare.storage.content import Content
from tare.storage.database import Database
from tare.storage.layers import Layers
from tare.storage.snapshots import Snapshots
from tare.values.reference import parse_reference


class Rooms:
    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.db = Database(root / "state.db")
        self.layers = Layers(root / "storage", self.db)
        self.snapshots = Snapshots(root / "snapshots", self.layers, self.db)
        self.content = Content(root / "content")
        self.images = Images(self.db, self.content, self.layers)

    def close(self) -> None:
        self.db.close()

    def make(self, name: str | None, content: str = "hello", changes: tuple[str, ...] = ()) -> Image:
        """Imports an image of one file; equal content is an equal layer."""
        reference = parse_reference(name) if name else None
        return import_image(self.images, io.BytesIO(small_tar(content)), reference=reference, changes=changes)


def small_tar(content: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("etc/file")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content.encode()))
    return out.getvalue()
