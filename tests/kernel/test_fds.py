"""Paths of a foreign root: whatever links it holds, nothing outside is opened or made."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.errors import InvalidArgument, KernelError
from tare.kernel.fds import make_directories, make_file, open_in_root, read_in_root, sealed_copy


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield tmp_path / "root", fd
    os.close(fd)
    assert sorted(p.name for p in (tmp_path / "outside").iterdir()) == ["secret"]


@pytest.mark.parametrize("path", ["/a/b/c", "a/b/c", "/../../a/b/c", "//a/./b//c/"])
def test_directories_are_made_inside(root: tuple[Path, int], path: str) -> None:
    """`..` at the top stays at the top."""
    directory, fd = root
    os.close(make_directories(fd, path))
    assert (directory / "a/b/c").is_dir()


@pytest.mark.parametrize("target", ["{outside}", "../outside", "/../../../../../../{outside}"])
def test_links_that_lead_out_lead_in(root: tuple[Path, int], tmp_path: Path, target: str) -> None:
    """An absolute link is one of the root's; what it names is made there (CVE-2024-45310)."""
    directory, fd = root
    (directory / "link").symlink_to(target.format(outside=tmp_path / "outside"))
    os.close(make_file(fd, "/link/deep/file"))
    assert len(list(directory.glob("**/deep/file"))) == 1


def test_a_dangling_link_is_followed_as_seen_from_inside(root: tuple[Path, int]) -> None:
    """/etc/resolv.conf often is one."""
    directory, fd = root
    (directory / "etc").mkdir()
    (directory / "etc/resolv.conf").symlink_to("../run/systemd/stub.conf")
    os.close(make_file(fd, "/etc/resolv.conf"))
    assert (directory / "run/systemd/stub.conf").is_file()


def test_a_circle_of_links_is_an_error(root: tuple[Path, int]) -> None:
    """ELOOP, not for ever."""
    directory, fd = root
    (directory / "a").symlink_to("b")
    (directory / "b").symlink_to("a")
    with pytest.raises(KernelError) as caught:
        make_directories(fd, "/a/x")
    assert caught.value.errno == errno.ELOOP


def test_magic_links_are_refused(root: tuple[Path, int]) -> None:
    """A /proc inside a root is no way out of it."""
    proc_fd = os.open("/proc", os.O_PATH)
    try:
        with pytest.raises(KernelError) as caught:
            open_in_root(proc_fd, "/self/cwd")
        assert caught.value.errno == errno.ELOOP
    finally:
        os.close(proc_fd)


def test_only_small_regular_files_are_read(root: tuple[Path, int], tmp_path: Path) -> None:
    """CVE-2024-9676."""
    directory, fd = root
    assert read_in_root(fd, "/missing", 10) is None
    (directory / "big").write_bytes(b"x" * 11)
    with pytest.raises(InvalidArgument, match="larger than 10 bytes"):
        read_in_root(fd, "/big", 10)
    os.mkfifo(directory / "fifo")
    with pytest.raises(InvalidArgument, match="not a regular file"):
        read_in_root(fd, "/fifo", 10)
    (directory / "link").symlink_to(tmp_path / "outside/secret")
    assert read_in_root(fd, "/link", 10) is None


def test_a_path_with_a_nul_is_refused(root: tuple[Path, int]) -> None:
    """It would be cut at the NUL on its way to the kernel."""
    with pytest.raises(InvalidArgument, match="NUL"):
        open_in_root(root[1], "/a\0b")


def test_a_sealed_copy_can_not_be_changed() -> None:
    """Nor its seals be lifted."""
    fd = sealed_copy("copy", b"content")
    try:
        assert os.pread(fd, 100, 0) == b"content"
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)
