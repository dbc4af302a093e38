"""A machine for the runtime's tests, and the check that each test leaves nothing in the kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import Machine

from tare.runtime.cgroups import open_cgroup


def _open_descriptors() -> set[str]:
    return {f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}" for fd in os.listdir("/proc/self/fd") if _is_open(fd)}


def _is_open(fd: str) -> bool:
    try:
        os.readlink(f"/proc/self/fd/{fd}")
        return True
    except OSError:
        return False


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A root file system and a cgroup of the test's own; afterwards no mount, cgroup, child or descriptor is left."""
    before = _open_descriptors()
    made = Machine(tmp_path)
    yield made
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert not open_cgroup(made.cgroup).exists()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert _open_descriptors() - before == set(), "descriptors left"
