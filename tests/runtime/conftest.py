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


def _children() -> set[str]:
    """Our children, zombies included: other tests' engines may be among them."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A root file system and a cgroup of the test's own; afterwards no mount, cgroup, child or descriptor is left."""
    before, children = _open_descriptors(), _children()
    made = Machine(tmp_path)
    yield made
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    assert not open_cgroup(made.cgroup).exists()
    assert _children() - children == set(), "processes left"
    assert _open_descriptors() - before == set(), "descriptors left"
