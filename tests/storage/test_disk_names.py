"""A disk is named by the mount that a directory is on, whatever else is mounted on the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tare.storage.full_disk import disk_of


def test_mounts_with_odd_names(tmp_path: Path) -> None:
    """Names that are no UTF-8, or have letters and spaces in them, are mounts like others, and hinder none."""
    odd = tmp_path / os.fsdecode(b"\xff odd"), tmp_path / "größe\r\u2028 \\ x"
    for place in odd:
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    try:
        for place in odd:
            (place / "below").mkdir()
            assert disk_of(place / "below") == f"tmpfs on {place}"
        assert disk_of(tmp_path) != ""
    finally:
        for place in odd:
            subprocess.run(["umount", str(place)], check=True)
