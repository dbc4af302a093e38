"""Volumes whose options mount a file system of a block device: on the host, once, while a container has them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engine import Engine, run


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[str]:
    """A block device with an empty ext4 on it."""
    if not (Path("/dev/loop-control").exists() and shutil.which("losetup") and shutil.which("mkfs.ext4")):
        pytest.skip("no loop devices, losetup or mkfs.ext4")
    image = tmp_path / "disk"
    image.write_bytes(b"")
    os.truncate(image, 8 << 20)
    run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", str(image)])
    device = run(["losetup", "--show", "-f", str(image)]).out.strip()
    yield device
    run(["losetup", "-d", device])


def test_a_file_system_on_a_device(engine: Engine, loop_device: str) -> None:
    """`type=ext4`: filled if it is empty, mounted while a container has it, the same files for all, then unmounted."""
    name = engine.unique("v")
    engine.docker("volume", "create", "-o", "type=ext4", "-o", f"device={loop_device}", "-o", "o=noatime", name)
    first = engine.start(flags=["-v", f"{name}:/data"])
    second = engine.start(flags=["-v", f"{name}:/d:ro"])
    engine.docker("exec", first, "sh", "-c", "mkdir /data/sub; echo shared > /data/sub/new")
    assert engine.docker("exec", second, "cat", "/d/sub/new").out == "shared\n"
    line = engine.docker("exec", second, "grep", " /d ", "/proc/mounts").out
    assert line.startswith(f"{loop_device} /d ext4 ro,noatime")
    if engine.is_tare:
        mount = f"type=volume,src={name},dst=/s,volume-subpath=sub"
        assert engine.run("--mount", mount, "@", "cat", "/s/new").out == "shared\n"
    engine.docker("rm", "-f", first, second)
    assert loop_device not in Path("/proc/self/mounts").read_text(errors="surrogateescape")
    assert engine.run("-v", f"{name}:/d", "@", "cat", "/d/sub/new").out == "shared\n"
    engine.docker("volume", "rm", name)


def test_a_device_is_filled(tare: Engine, loop_device: str) -> None:
    """Copy-up into a new file system: what mkfs puts there (lost+found) counts as content, as for Docker."""
    name, image = tare.unique("v"), tare.hostile_image({"data/link": b"image"}, ['CMD ["sh"]'])
    tare.docker("volume", "create", "-o", "type=ext4", "-o", f"device={loop_device}", name)
    assert tare.run("-v", f"{name}:/d:nocopy", "@", "rmdir", "/d/lost+found").code == 0
    assert tare.docker("run", "--rm", "-v", f"{name}:/data", image, "cat", "/data/link").out == "image"
    assert loop_device not in Path("/proc/self/mounts").read_text(errors="surrogateescape")
    tare.docker("volume", "rm", name)
