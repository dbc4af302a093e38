"""Archives of random hostile entries in random order: nothing outside of the root changes, no error is untyped.

Each is unpacked as a layer (`Layers.add`) and into a live root (`overwrite`, what `cp` and PUT archive do).
TARE_SWEEP=all tries many more.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_store import Store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tare import errors
from tare.storage.overwrite import overwrite

EXAMPLES = 1000 if os.environ.get("TARE_SWEEP") == "all" else 150
PARTS = st.sampled_from(
    [
        "a",
        "b",
        "c",
        "d",
        "d/e",
        "..",
        ".",
        "",
        ".wh.a",
        ".wh.d",
        ".wh..wh..opq",
        ".wh..wh.plnk",
        ".wh...",
        "./",
        "{out}",
    ]
)
NAMES = st.one_of(
    st.lists(PARTS, min_size=1, max_size=4).map("/".join),
    st.sampled_from(["/{out}/victim", "{up}{out}/victim", "{up}{out}/made", "a/{up}{out}/made", "/", ".", "../x"]),
)
TARGETS = st.one_of(
    NAMES,
    st.sampled_from(
        ["{out}", "/{out}", "/{out}/victim", "{up}{out}", "/", "..", "../..", "/proc/self/root", "/dev/fd/3", "d"]
    ),
)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
ENTRIES = st.lists(st.tuples(KINDS, NAMES, TARGETS, st.integers(0, 0o7777), st.booleans()), min_size=1, max_size=9)
Entry = tuple[bytes, str, str, int, bool]
TYPED = (errors.InvalidArgument, errors.Forbidden, errors.Unsupported)


def archive(entries: list[Entry], outside: Path) -> bytes:
    """The tar; `{out}` is the directory that must not change, `{up}` leads to the host's root."""
    made = io.BytesIO()
    words = {"out": str(outside).lstrip("/"), "up": "../" * 30}
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for kind, name, target, mode, by_pax in entries:
            name, target = name.format(**words), target.format(**words)
            info = tarfile.TarInfo("plain" if by_pax else name)
            info.type, info.mode, info.linkname = kind, mode, target
            info.devmajor, info.devminor = 1, 3
            if by_pax:
                info.pax_headers = {"path": name, "linkpath": target, "SCHILY.xattr.user.x": "y"}
            data = b"evil" if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def facts(root: Path) -> list[tuple[object, ...]]:
    """All that an extractor could change of a tree, itself included."""
    found = []
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        attributes = os.listxattr(path, follow_symlinks=False)
        found.append(
            (str(path), status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns, content, attributes)
        )
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory that must stay as it is."""
    place = tmp_path / "outside"
    (place / "below").mkdir(parents=True)
    (place / "victim").write_text("same")
    (place / "victim").chmod(0o600)
    (place / "below/link").symlink_to("../victim")
    before = facts(place)
    yield place
    assert facts(place) == before


FEW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(ENTRIES)
def test_as_a_layer(store: Store, outside: Path, entries: list[Entry]) -> None:
    """It is a layer that comes back bit for bit, or refused; then nothing is left of it."""
    before, data = facts(outside), archive(entries, outside)
    try:
        layer = store.layers.add(io.BytesIO(data))
    except TYPED:
        assert store.layers.all() == []
    else:
        assert b"".join(store.layers.reassemble(layer.diff_id)) == data
        store.layers.collect()
        store.layers.empty_trash()
    assert store.leftovers() == []
    assert os.listdir(store.root / "storage/layers") == []
    assert facts(outside) == before


@FEW
@given(ENTRIES, st.booleans())
def test_into_a_live_root(tmp_path: Path, outside: Path, entries: list[Entry], keep_kinds: bool) -> None:
    """The root has links that lead out already; a descriptor of one of its directories is the target."""
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    (root / "target/d").mkdir(parents=True)
    (root / "target/a").symlink_to(outside)
    (root / "target/d/b").symlink_to("../../../../outside")
    (root / "target/c").symlink_to("/proc/self/root")
    (root / "beside").write_text("same")
    before, data = facts(outside), archive(entries, outside)
    descriptors = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (root, root / "target")]
    try:
        overwrite(io.BytesIO(data), descriptors[0], descriptors[1], "/target", keep_kinds=keep_kinds)
    except TYPED:
        pass
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert facts(outside) == before
    assert (root / "target").is_dir()
