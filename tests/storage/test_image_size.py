"""What diff and commit do depends on what a container changed, not on how large its image is."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from engine_store import Store

WATCHED = ("open", "os.scandir", "os.listdir", "os.link", "os.rename", "os.mkdir")
_counts: list[list[int]] = []


def _count(event: str, _: tuple[object, ...]) -> None:
    if _counts and event in WATCHED:
        _counts[-1][0] += 1


@pytest.fixture(scope="module", autouse=True)
def hooked() -> None:
    """An audit hook can't be taken away again; without a counter it does nothing."""
    sys.addaudithook(_count)


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many files and directories are opened or made meanwhile."""
    _counts.append([0])
    try:
        yield _counts[-1]
    finally:
        _counts.pop()


def image(files: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(files):
            entry = tarfile.TarInfo(f"srv/{number % 50}/{number}")
            entry.size = 10
            tar.addfile(entry, io.BytesIO(b"0123456789"))
    return out.getvalue()


def calls(store: Store, files: int, verb: Callable[[str], object]) -> int:
    layer = store.layers.add(io.BytesIO(image(files)))
    name = f"c{files}"
    root = store.snapshots.prepare(name, [layer.diff_id])
    upper = store.snapshots.upper(name)
    (upper / "srv" / "0").mkdir(parents=True)
    (upper / "srv" / "0" / "new").write_text(f"of {files}")
    assert root.upper == str(upper)
    with counted() as count:
        verb(name)
    return count[0]


@pytest.mark.parametrize("verb", ["changes", "commit"])
def test_work_is_the_same_over_a_large_image(store: Store, verb: str) -> None:
    """Over 3,000 files as many calls as over 60."""
    do = getattr(store.snapshots, verb)
    small = calls(store, 60, do)
    assert calls(store, 3000, do) == small > 0
