"""Disks with project quotas, on loop devices: where the kernel can, a file system that limits trees of files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KINDS = ("ext4", "xfs")
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"),
    "xfs": ("mkfs.xfs", "-q"),
}
SIZE = 400 << 20


@contextmanager
def quota_disk(kind: str, directory: Path, root: Path | None = None) -> Iterator[Path]:
    """A new file system of that kind, mounted at `root` or below `directory`; gone with the block. Skips without."""
    if shutil.which(_MAKE[kind][0]) is None:
        pytest.skip(f"this kernel has no project quotas on {kind} that a test could see: no {_MAKE[kind][0]}")
    image, root = directory / f"{kind}.image", root or directory / f"{kind}-disk"
    with open(image, "wb") as file:
        file.truncate(SIZE)
    root.mkdir(exist_ok=True)
    subprocess.run([*_MAKE[kind], str(image)], check=True, capture_output=True)
    options = "loop,prjquota"
    mounted = subprocess.run(["mount", "-o", options, str(image), str(root)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this kernel has no project quotas on {kind}")
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", str(root)], check=False)
        image.unlink(missing_ok=True)
