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


class Older(mounts.FilesystemContext):
    """A context of overlay as older kernels have it: none at all (Linux 5.1), or one without parameters of its own,
    which takes whatever it is told and refuses it at the end (6.4), or with them, but without `lowerdir+` (6.7)."""

    kernel = ""

    def __init__(self, type: str) -> None:
        if type == "overlay" and self.kernel == "5.1":
            raise KernelError(errno.ENOSYS, "fsopen", type)
        super().__init__(type)

    def set(self, key: str, value: str) -> None:
        if self.type != "overlay" or (self.kernel == "6.7" and key != "lowerdir+"):
            super().set(key, value)
        elif self.kernel == "6.7":
            raise KernelError(errno.EINVAL, "fsconfig", key)

    def mount(self, attributes: int = 0) -> int:
        if self.type == "overlay":
            raise KernelError(errno.EINVAL, "fsconfig", self.type)
        return super().mount(attributes)


@pytest.mark.parametrize("kernel", ["5.1", "6.4", "6.7"])
@pytest.mark.parametrize("layers", [1, 110])
def test_an_older_kernel_mounts_the_overlay_by_the_old_call(
    machine: Machine, tmp_path: Path, kernel: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many layers there are, and whatever their names hold: mount(2) takes no more than a page of options."""
    monkeypatch.setattr(Older, "kernel", kernel)
    monkeypatch.setattr(mounts, "FilesystemContext", Older)
    names = [f"layer{number}" for number in range(layers)]
    made = [make(tmp_path / "a:b,c" / "directories-with-long-names" / name, "a", name) for name in names]
    spec = msgspec.structs.replace(machine.shell(f"cat /a /{names[-1]}; touch /x"), root=None)
    assert machine.run(spec, rootfs=overlay(machine, tmp_path / "a:b,c", *made)) == (0, names[0] + names[-1])
    assert (tmp_path / "a:b,c/upper/x").exists()


def test_an_overlay_of_long_paths_is_mounted(machine: Machine, tmp_path: Path) -> None:
    """fsconfig(2) takes strings of up to 255 bytes only."""
    deep = tmp_path.joinpath(*(["d" * 50] * 6))
    layer = make(deep / "layer", "a")
    spec = msgspec.structs.replace(machine.shell("cat /a; touch /x"), root=None)
    assert machine.run(spec, rootfs=overlay(machine, deep, layer)) == (0, "layer")
    assert (deep / "upper/x").exists()


def test_a_root_can_be_moved_instead_of_pivoted_to(machine: Machine) -> None:
    """runc's `--no-pivot`, for hosts that run from a ramdisk: the container still sees its own root only."""
    code, output = machine.run(machine.shell("ls /; cat /proc/self/mountinfo | head -1; cd ..; pwd"), pivot=False)
    assert code == 0
    assert "etc" in output.split() and "lost+found" not in output.split()
