"""What the image tests stand on: all rooms of storage and images below tmp_path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from image_rooms import Rooms


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    made = Rooms(tmp_path / "data")
    yield made
    made.close()
