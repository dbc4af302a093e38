"""Symlinks swapped under the runtime's feet, by another container that shares a volume: the host is never touched."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bundles import Machine, with_mounts

from tare.kernel.libc import syscall
from tare.oci.runtime_spec import Mount
from tare.runtime.create import StartFailed

ROUNDS = 40
_RENAME_EXCHANGE = 2


@contextmanager
def swapping(first: Path, second: Path) -> Iterator[None]:
    """A process that exchanges two names as fast as it can while the block runs."""
    pid = os.fork()
    if pid == 0:
        one, two = os.fsencode(first), os.fsencode(second)
        while True:
            syscall("renameat2", -100, one, -100, two, _RENAME_EXCHANGE)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_mount_target_that_is_swapped_with_a_link_stays_inside(machine: Machine, tmp_path: Path, kind: str) -> None:
    """CVE-2021-30465, CVE-2024-45310: neither mounted on nor made outside, however often it is tried."""
    host, volume, source = tmp_path / "host", tmp_path / "volume", tmp_path / "source"
    for path in (host, volume / "place", source):
        path.mkdir(parents=True)
    (source / "mark").write_text("mark")
    (volume / "trap").symlink_to(f"../../../../../../../..{host}")
    what = source if kind == "directory" else source / "mark"
    spec = with_mounts(
        machine.spec("true"),
        Mount("/v", "bind", str(volume), ("rbind",)),
        Mount("/v/place/deep/target", "bind", str(what), ("rbind",)),
    )
    with swapping(volume / "place", volume / "trap"):
        for _ in range(ROUNDS):
            try:
                machine.run(spec)
            except StartFailed:
                pass  # lost the race: an error is fine, an escape isn't
            assert list(host.iterdir()) == []
            assert str(host) not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
