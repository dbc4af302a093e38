"""The virtual machine's script: what of it can be judged without starting one (`make vm` does that)."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "vm"


@pytest.fixture(scope="module")
def vm() -> Any:
    loader = SourceFileLoader("tare_vm_script", str(SCRIPT))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


@pytest.mark.parametrize("name", ["vm", "pristine", "clients", "sdkfaces"])
def test_the_linters_have_nothing_against_it(name: str) -> None:
    """They don't find a script without a suffix by themselves."""
    for argv in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *argv, "--quiet", str(SCRIPT.with_name(name))], check=True)


def test_the_work_tree_goes_in_as_it_is(vm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New and changed files, too; neither what git ignores nor what was deleted."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("kept", "deleted", "changed"):
        (tree / name).write_text("old")
    (tree / ".gitignore").write_text("ignored\n")
    git = ["git", "-C", str(tree), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    (tree / "deleted").unlink()
    (tree / "changed").write_text("new")
    (tree / "added").write_text("new")
    (tree / "ignored").write_text("new")
    monkeypatch.setattr(vm, "ROOT", tree)
    vm.write_tree(tmp_path / "tree.tar", None)
    with tarfile.open(tmp_path / "tree.tar") as archive:
        changed = archive.extractfile("changed")
        assert changed is not None and changed.read() == b"new"
        assert sorted(archive.getnames()) == [".gitignore", "added", "changed", "kept"]
    vm.write_tree(tmp_path / "commit.tar", "HEAD")
    with tarfile.open(tmp_path / "commit.tar") as archive:
        assert sorted(archive.getnames()) == [".gitignore", "changed", "deleted", "kept"]


def test_modules_come_with_what_they_need_and_in_order(vm: Any, tmp_path: Path) -> None:
    """As man 5 modules.dep has it: what is needed first stands last."""
    release, target = tmp_path / "release", tmp_path / "target"
    needs = {"ext4": ["jbd2", "crc16"], "virtio_blk": ["virtio"], "virtio_pci": ["virtio_ring", "virtio"]}
    lines = []
    for name in dict.fromkeys([*needs, *(other for others in needs.values() for other in others)]):
        (release / "kernel").mkdir(parents=True, exist_ok=True)
        (release / "kernel" / f"{name}.ko").write_text(name)
        lines.append(f"kernel/{name}.ko:" + "".join(f" kernel/{other}.ko" for other in needs.get(name, [])))
    (release / "modules.dep").write_text("\n".join(lines))
    target.mkdir()
    vm.write_modules(release, target)
    order = (target / "order").read_text().split()
    assert order == [f"{name}.ko" for name in "virtio virtio_ring virtio_pci virtio_blk crc16 jbd2 ext4".split()]
    assert sorted(os.listdir(target)) == sorted([*order, "order"])
