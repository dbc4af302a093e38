"""Root file systems: directories and overlays, and what of them is seen inside and changed outside."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest
from bundles import Machine

from tare.errors import KernelError
from tare.kernel import mounts
from tare.runtime.create import StartFailed
from tare.values.mount import DirectoryRoot, OverlayRoot


def make(path: Path, *names: str) -> str:
    """A layer with some files that hold its name."""
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_text(path.name)
    return str(path)


def overlay(machine: Machine, tmp_path: Path, *lower: str, volatile: bool = False) -> OverlayRoot:
    upper, work = make(tmp_path / "upper"), make(tmp_path / "work")
    return OverlayRoot((*lower, str(machine.rootfs)), upper, work, volatile)


def test_an_overlay_keeps_changes_in_its_upper_layer(machine: Machine, tmp_path: Path) -> None:
    """The topmost layer is seen, lower ones are not changed; no redirects, so that the upper one is a plain diff."""
    top, low = make(tmp_path / "top", "a", "b"), make(tmp_path / "low", "a", "c")
    script = "cat /a /b /c; echo new > /c; rm /b; mkdir /d; mv /etc /etc2 2>/dev/null || cp -r /etc /etc2"
    spec = msgspec.structs.replace(machine.shell(script), root=None)
    assert machine.run(spec, rootfs=overlay(machine, tmp_path, top, low)) == (0, "toptoplow")
    upper = tmp_path / "upper"
    assert (upper / "c").read_text() == "new\n" and (tmp_path / "low/c").read_text() == "low"
    assert (upper / "b").is_char_device() and (upper / "d").is_dir() and (upper / "etc2/passwd").is_file()
    assert not any("redirect" in name for name in os.listxattr(upper / "etc2"))


def test_an_overlay_without_an_upper_layer_is_read_only(machine: Machine, tmp_path: Path) -> None:
    """A view of an image."""
    root = OverlayRoot((make(tmp_path / "top", "a"), str(machine.rootfs)))
    spec = msgspec.structs.replace(machine.shell("cat /a; touch /x"), root=None)
    code, output = machine.run(spec, rootfs=root)
    assert code != 0 and output.startswith("top")


def test_a_volatile_overlay_works_and_says_so(machine: Machine, tmp_path: Path) -> None:
    """For roots that are thrown away."""
    spec = msgspec.structs.replace(machine.shell("touch /x; grep -c ' / .*volatile' /proc/self/mountinfo"), root=None)
    assert machine.run(spec, rootfs=overlay(machine, tmp_path, volatile=True)) == (0, "1\n")


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a b", "ü"])
def test_layers_may_have_any_name(machine: Machine, tmp_path: Path, name: str) -> None:
    """Colons, commas and backslashes separate nothing."""
    layer = make(tmp_path / name / "layer", "a")
    spec = msgspec.structs.replace(machine.spec("cat", "/a"), root=None)
    assert machine.run(spec, rootfs=overlay(machine, tmp_path / name, layer)) == (0, "layer")


def test_an_overlay_may_have_many_layers(machine: Machine, tmp_path: Path) -> None:
    """Docker's limit is 125; one page of mount options holds far fewer long paths."""
    layers = [make(tmp_path / ("layer" * 20 + str(n)), f"f{n}") for n in range(125)]
    spec = msgspec.structs.replace(machine.shell("ls / | grep -c ^f"), root=None)
    assert machine.run(spec, rootfs=overlay(machine, tmp_path, *layers)) == (0, "125\n")


def test_a_directory_root_is_used_as_it_is(machine: Machine) -> None:
    """Changes go to the directory."""
    spec = msgspec.structs.replace(machine.spec("touch", "/x"), root=None)
    assert machine.run(spec, rootfs=DirectoryRoot(str(machine.rootfs)))[0] == 0
    assert (machine.rootfs / "x").exists()


def test_a_missing_root_is_told(machine: Machine) -> None:
    """And leaves nothing."""
    spec = msgspec.structs.replace(machine.spec("true"), root=None)
    with pytest.raises(StartFailed, match="no such file or directory"):
        machine.run(spec, rootfs=DirectoryRoot(str(machine.rootfs / "missing")))


@pytest.mark.parametrize("missing", ["fsopen", "lowerdir+"])
def test_an_older_kernel_mounts_the_overlay_the_way_it_can(
    machine: Machine, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `lowerdir+` by one list, without the mount-descriptor calls by mount(2)."""
    new, set_option = mounts.FilesystemContext.__init__, mounts.FilesystemContext.set

    def refuse(self: mounts.FilesystemContext, type: str) -> None:
        if type == "overlay" and missing == "fsopen":
            raise KernelError(errno.ENOSYS, "fsopen", type)
        new(self, type)

    def set(self: mounts.FilesystemContext, key: str, value: str) -> None:
        if key == missing:
            raise KernelError(errno.EINVAL, "fsconfig", key)
        set_option(self, key, value)

    monkeypatch.setattr(mounts.FilesystemContext, "__init__", refuse)
    monkeypatch.setattr(mounts.FilesystemContext, "set", set)
    layer = make(tmp_path / "a:b,c" / "layer", "a")
    spec = msgspec.structs.replace(machine.shell("cat /a; touch /x"), root=None)
    assert machine.run(spec, rootfs=overlay(machine, tmp_path / "a:b,c", layer)) == (0, "layer")
    assert (tmp_path / "a:b,c/upper/x").exists()


def test_a_root_can_be_moved_instead_of_pivoted_to(machine: Machine) -> None:
    """runc's `--no-pivot`, for hosts that run from a ramdisk: the container still sees its own root only."""
    code, output = machine.run(machine.shell("ls /; cat /proc/self/mountinfo | head -1; cd ..; pwd"), pivot=False)
    assert code == 0
    assert "etc" in output.split() and "lost+found" not in output.split()
