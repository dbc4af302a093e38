"""Cgroups of this machine for the tests, by implementation; all are removed afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tare.runtime.cgroups import Cgroup, Hierarchies, detect_hierarchies, open_cgroup

KINDS = ("v1", "v2", "hybrid")
_numbers = count()
MakeCgroup = Callable[[], Cgroup]


def real_hierarchies(kind: str) -> Hierarchies:
    """What this machine has for one implementation; skips where it has nothing."""
    found = detect_hierarchies()
    if kind == "v1" and found.v1:
        return Hierarchies(found.v1, None)
    if kind == "v2" and found.v2:
        return Hierarchies((), found.v2)
    if kind == "hybrid" and found.mode == "hybrid":
        return found
    pytest.skip(f"this machine's cgroups are version {2 if found.mode == 'v2' else 1}")


@pytest.fixture
def parent() -> Iterator[str]:
    """A path of our own, removed with all below it."""
    path = f"/tare-test-cgroups-{os.getpid()}-{next(_numbers)}"
    yield path
    open_cgroup(path).kill(9)
    open_cgroup(path).remove()


@pytest.fixture(params=KINDS)
def make_cgroup(request: pytest.FixtureRequest, parent: str) -> MakeCgroup:
    """Opens (but doesn't create) new cgroups of one implementation."""
    hierarchies = real_hierarchies(request.param)
    return lambda: open_cgroup(f"{parent}/{next(_numbers)}", hierarchies)


@pytest.fixture
def cgroup(make_cgroup: MakeCgroup) -> Cgroup:
    """A created cgroup of one implementation."""
    made = make_cgroup()
    made.create()
    return made


@pytest.fixture
def machine_cgroup(parent: str) -> Cgroup:
    """A created cgroup with all controllers that this machine has."""
    made = open_cgroup(f"{parent}/machine")
    made.create()
    return made
