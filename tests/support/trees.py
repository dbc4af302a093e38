"""What is below a directory that a running engine changes meanwhile, however deep: find(1) minds neither."""

from __future__ import annotations

import subprocess
from pathlib import Path


def found(root: Path, *expression: str) -> list[Path]:
    """The paths below root that find's expression is true for; what goes while it looks may be missing."""
    argv = ["find", str(root), "-mindepth", "1", *expression, "-print0"]
    out = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60).stdout
    return [Path(name.decode("utf-8", "surrogateescape")) for name in out.split(b"\0") if name]


def disk_bytes(root: Path) -> int:
    """What all below root takes on the disk, names of one file counted each."""
    argv = ["find", str(root), "-mindepth", "1", "-printf", "%b\\n"]
    out = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60).stdout
    return sum(map(int, out.split())) * 512
