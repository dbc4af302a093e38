"""What is below a directory that a running engine changes meanwhile, however deep (find(1) minds neither); overlays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def overlay(point: Path, options: str) -> Iterator[Path]:
    """An overlay mounted at a directory that is there.

    By mount(2): the newer mount(8) makes a call for each option, and there the kernel takes no more than 255 bytes of
    lowerdir (man 2 fsconfig).
    """
    environment = {**os.environ, "LIBMOUNT_FORCE_MOUNT2": "always"}
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(point)], check=True, env=environment)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)
