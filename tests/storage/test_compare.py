"""What differs between two stacks of layers, on real files."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.trees import overlay
from tare.storage import compare as comparing
from tare.storage.compare import Difference, compare
from tare.storage.merged import OPAQUE_XATTR, Stack


def write(root: Path, name: str, text: str = "x", mode: int = 0o644) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def whiteout(root: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    os.mknod(root / name, 0o20600, 0)


def opaque(root: Path, name: str) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    os.setxattr(root / name, OPAQUE_XATTR, b"y")


def differences(old: list[Path], new: list[Path], *, patches: bool = False) -> list[Difference]:
    """Layers are given topmost first."""
    with Stack(old) as before, Stack(new) as after:
        return compare(before, after, patches=patches)


def short(found: list[Difference]) -> list[str]:
    return [f"{one.kind} {one.path} {','.join(one.what)}".strip() for one in found]


@pytest.fixture
def layer(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    return make


def test_every_kind_of_change(layer: Callable[[str], Path]) -> None:
    """Added, deleted, and each property that can change, above a layer that both share."""
    base, one, two = layer("base"), layer("one"), layer("two")
    for name in ("same", "content", "mode", "owner", "gone", "d/deep", "type", "xattr", "touched", "old/a", "old/b/c"):
        write(base, name)
    (base / "link").symlink_to("same")
    write(one, "content", "1")
    write(two, "content", "2")
    write(two, "mode", mode=0o755)
    os.chown(write(two, "owner"), 5, 6)
    whiteout(two, "gone")
    write(two, "new", "abc", 0o600)
    write(two, "d/more")
    (two / "type").mkdir()
    write(two, "type/inside")
    os.setxattr(write(two, "xattr"), "user.x", b"y")
    os.utime(write(two, "touched"), (1, 1))
    (two / "link").symlink_to("other")
    opaque(two, "old")
    write(two, "old/a", "changed")
    found = differences([one, base], [two, base])
    assert short(found) == [
        "C /content content", "A /d/more", "D /gone", "C /link target", "C /mode mode", "A /new", "C /old/a content",
        "D /old/b", "D /old/b/c", "C /owner owner", "C /type type", "A /type/inside", "C /xattr attributes",
    ]  # fmt: skip
    facts = {one.path: one for one in found}
    new = facts["/new"].new
    assert new is not None and (new.type, new.mode, new.size, facts["/new"].old) == ("file", 0o600, 3, None)
    assert facts["/link"].new is not None and facts["/link"].new.target == "other"
    backward = {one.path: one for one in differences([two, base], [one, base])}
    assert set(backward) == set(facts)
    opposite = {"A": "D", "D": "A", "C": "C"}
    assert all(backward[path].kind == opposite[facts[path].kind] for path in facts)


def test_nothing_differs(layer: Callable[[str], Path]) -> None:
    """The same stack, and stacks of other layers with equal content."""
    base, top, copy = layer("base"), layer("top"), layer("copy")
    write(base, "a/b/c")
    write(top, "a/x")
    write(copy, "a/x")
    write(copy, "a/b/c")
    assert differences([top, base], [top, base]) == []
    assert differences([top, base], [copy]) == []


def test_shared_layers_are_not_read(layer: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """However much the shared layers hold, only what stands above them is listed."""
    base, one, two = layer("base"), layer("one"), layer("two")
    for number in range(300):
        write(base, f"many/{number}/file")
    write(two, "many/7/new")
    write(one, "other")
    listed: list[object] = []
    real = os.listdir
    monkeypatch.setattr(comparing.os, "listdir", lambda fd: listed.append(fd) or real(fd))
    assert short(differences([one, base], [two, base])) == ["A /many/7/new", "D /other"]
    assert len(listed) <= 5


def test_patches(layer: Callable[[str], Path], tmp_path: Path) -> None:
    """Text as a unified diff that patch(1) applies; what isn't text is said to differ."""
    one, two = layer("one"), layer("two")
    write(one, "text", "a\nb\nc\n")
    write(two, "text", "a\nB\nc\nno newline")
    write(two, "new", "fresh\n")
    write(one, "gone", "old\n")
    (one / "data").write_bytes(b"\0\1")
    (two / "data").write_bytes(b"\0\2")
    write(one, "huge", "x" * 300_000)
    write(two, "huge", "y" * 300_000)
    write(two, "empty", "")
    found = {difference.path: difference for difference in differences([one], [two], patches=True)}
    assert found["/text"].patch == (
        "--- a/text\n+++ b/text\n@@ -1,3 +1,4 @@\n a\n-b\n+B\n c\n+no newline\n\\ No newline at end of file\n"
    )
    assert found["/new"].patch == "--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+fresh\n"
    assert found["/gone"].patch == "--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-old\n"
    assert found["/data"].binary and found["/huge"].binary and not found["/empty"].binary
    tree = tmp_path / "patched"
    shutil.copytree(one, tree)
    text = "".join(difference.patch for difference in found.values())
    if shutil.which("patch"):
        subprocess.run(["patch", "-p1", "-s"], input=text.encode(), cwd=tree, check=True)
        assert (tree / "text").read_text() == (two / "text").read_text()
        assert (tree / "new").read_text() == "fresh\n"
        assert not (tree / "gone").exists()


def test_a_name_that_is_no_text(layer: Callable[[str], Path]) -> None:
    """Bytes that aren't UTF-8 are kept as surrogates; a link is never followed."""
    one, two = layer("one"), layer("two")
    (two / os.fsdecode(b"\xff")).symlink_to("/etc")
    assert [os.fsencode(difference.path) for difference in differences([one], [two])] == [b"/\xff"]


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """A tree as a plain walk sees it."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(folder, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # a whiteout in a directory that isn't merged: overlayfs lists its name, but nothing is there
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found["/" + str(path.relative_to(root))] = (status.st_mode, content)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_as_the_kernel_shows_it(tmp_path: Path, seed: int) -> None:
    """Random layers, mounted by overlayfs: the same differences as a walk of both mounts finds."""
    choose = random.Random(seed)
    names = ["a", "b", "c"]

    def fill(root: Path, *, below: bool) -> None:
        for _ in range(14):
            path = root.joinpath(*choose.choices(names, k=choose.randint(1, 3)))
            kind = choose.choice(["file", "file", "directory", "whiteout", "opaque"])
            if any(parent.exists() and not parent.is_dir() for parent in [*path.parents, path] if parent != root):
                continue
            if any(parent.is_dir() is False and parent.exists() for parent in path.parents) or path.exists():
                continue
            relative = str(path.relative_to(root))
            if kind == "file":
                write(root, relative, choose.choice("xyz"), choose.choice([0o644, 0o600]))
            elif kind == "directory":
                path.mkdir(parents=True)
            elif kind == "whiteout" and below:
                whiteout(root, relative)
            elif kind == "opaque" and below:
                opaque(root, relative)

    layers = {name: tmp_path / name for name in ("base", "shared", "one", "two")}
    for name, path in layers.items():
        path.mkdir()
        fill(path, below=name != "base")
    views = [[layers[top], layers["shared"], layers["base"]] for top in ("one", "two")]
    shown = []
    for number, stack in enumerate(views):
        point = tmp_path / f"mount{number}"
        point.mkdir()
        lower = ":".join(map(str, stack))
        with overlay(point, f"ro,lowerdir={lower}"):
            shown.append(listing(point))
    expected = []
    for path in sorted({*shown[0], *shown[1]}):
        old, new = shown[0].get(path), shown[1].get(path)
        if old != new:
            expected.append(f"{'C' if old and new else 'A' if new else 'D'} {path}")
    assert [f"{one.kind} {one.path}" for one in differences(*views)] == expected
