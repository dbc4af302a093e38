"""A tree with every kind of entry, made and described, for tests of round trips."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.trees import overlay

Described = dict[bytes, tuple[object, ...]]
OPAQUE = b"trusted.overlay.opaque"
TIME_NS = 1_500_000_000_123_456_789


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as the kernel has it (include/uapi/linux/posix_acl_xattr.h): tag, permissions, id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ACL = acl((1, 6, 0xFFFFFFFF), (2, 4, 1234), (4, 4, 0xFFFFFFFF), (0x10, 6, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep
NAMES = (
    b"plain", b"with blank", b"new\nline", b"back\\slash", b'quote"d', b"\xff\xfe\x80 no utf-8", "ümläut".encode(),
    b"-dash", b"*glob?", b"n" * 255, b"%s", b" ", b"...", b"tab\there",
)  # fmt: skip


def make_base(root: Path) -> None:
    """What lies below: files that will be deleted, replaced, hidden."""
    for name in ("gone", "replaced", "kept"):
        (root / name).write_text(f"base {name}")
    for directory in ("removed", "opaque", "merged"):
        (root / directory).mkdir()
        for name in ("a", "b"):
            (root / directory / name).write_text(f"base {directory} {name}")


def make_changes(upper: Path) -> None:
    """What a container did to that, as overlayfs keeps it."""
    os.mknod(upper / "gone", stat.S_IFCHR, 0)
    os.mknod(upper / "removed", stat.S_IFCHR, 0)
    (upper / "replaced").mkdir()
    (upper / "replaced" / "inside").write_text("a directory now")
    (upper / "opaque").mkdir()
    os.setxattr(upper / "opaque", OPAQUE, b"y")
    (upper / "opaque" / "c").write_text("new")
    (upper / "merged").mkdir()
    os.mknod(upper / "merged" / "a", stat.S_IFCHR, 0)
    (upper / "merged" / "d").write_text("new")


def make_tree(root: Path, *, files: int, sparse_bytes: int) -> None:
    """Every kind of entry, `files` small ones among them."""
    top = os.fsencode(root)
    for number, name in enumerate(NAMES):
        path = top + b"/" + name
        with open(path, "wb") as file:
            file.write(name * (number + 1))
        os.chown(path, number, 2_000_000_000 - number)
        os.chmod(path, (0o4755, 0o2711, 0o1644, 0o600, 0o000, 0o777)[number % 6])
    _deep(root)
    _links_and_nodes(root)
    _attributes(root)
    with (root / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(sparse_bytes // 2)
        file.write(b"middle")
        file.truncate(sparse_bytes)
    for number in range(files):
        directory = root / "many" / f"{number // 250:03}"
        if number % 250 == 0:
            directory.mkdir(parents=True)
        (directory / f"f{number}").write_bytes(b"%d\n" % number * (number % 50))
    for number, (directory, _, names) in enumerate(os.walk(top, topdown=False)):
        for name in names:
            os.utime(directory + b"/" + name, ns=(0, TIME_NS + number), follow_symlinks=False)
        os.utime(directory, ns=(0, TIME_NS - number))
    os.utime(root / "new\nline", ns=(0, 0))
    os.utime(root / "*glob?", ns=(0, 4_000_000_000_000_000_001))


def _deep(root: Path) -> None:
    """A path of some 3,000 bytes, by steps since the kernel takes 4,095 at once."""
    descriptor = os.open(root, os.O_RDONLY)
    for number in range(30):
        name = f"{number:03}" + "d" * 97
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=descriptor))
    os.close(descriptor)


def _links_and_nodes(root: Path) -> None:
    (root / "links").mkdir()
    os.symlink("../plain", root / "links" / "relative")
    os.symlink("/no/such/file", root / "links" / "dangling")
    os.symlink("x" * 4000, root / "links" / "long")
    os.link(root / "plain", root / "links" / "hard")
    os.link(root / "plain", root / "hard too")
    os.link(root / "links" / "dangling", root / "links" / "hard link to a link", follow_symlinks=False)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "block", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.mkfifo(root / "fifo", 0o622)
    os.chmod(root / "fifo", 0o622)
    os.link(root / "fifo", root / "links" / "fifo")
    os.lchown(root / "links" / "relative", 12, 34)


def _attributes(root: Path) -> None:
    for name in ("attributes", "capable", "acl"):
        (root / name).write_text(name)
    (root / "attributed").mkdir()
    os.setxattr(root / "attributes", "user.text", "välue".encode())
    os.setxattr(root / "attributes", "user.binary", bytes(range(256)))
    os.setxattr(root / "attributes", "user.empty", b"")
    os.setxattr(root / "attributed", "user.of.directory", b"1")
    os.setxattr(root / "attributes", "trusted.some", b"x")
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    os.setxattr(root / "acl", "system.posix_acl_access", ACL)
    os.setxattr(root / "attributed", "system.posix_acl_default", ACL)


def describe(root: Path) -> Described:
    """All that can be told of a tree, by path: names of one file are told by the first of them."""
    found: Described = {}
    first: dict[int, bytes] = {}
    waiting = [(os.open(root, os.O_RDONLY), b"")]
    while waiting:
        directory, at = waiting.pop()
        for text in sorted(os.listdir(directory)):
            name = os.fsencode(text)
            path = at + b"/" + name
            status = os.lstat(name, dir_fd=directory)
            kind = stat.S_IFMT(status.st_mode)
            same = first.setdefault(status.st_ino, path) if kind != stat.S_IFDIR and status.st_nlink > 1 else path
            found[path] = (
                *(stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, same),
                status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
                os.readlink(name, dir_fd=directory) if kind == stat.S_IFLNK else b"",
                _content(directory, name, status) if kind == stat.S_IFREG else b"",
                _xattrs(directory, name),
            )
            if kind == stat.S_IFDIR:
                waiting.append((os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory), path))
        os.close(directory)
    return found


def _content(directory: int, name: bytes, status: os.stat_result) -> bytes:
    """The digest of the data, where it lies included."""
    digest = hashlib.sha256(b"%d" % status.st_size)
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        offset = 0
        while offset < status.st_size:
            try:
                offset = os.lseek(descriptor, offset, os.SEEK_DATA)
            except OSError:
                break
            data = os.pread(descriptor, 4096, offset)
            if data.strip(b"\0"):
                digest.update(b"%d:" % offset + data)
            offset += len(data)
    finally:
        os.close(descriptor)
    return digest.digest()


def _xattrs(directory: int, name: bytes) -> tuple[tuple[str, bytes], ...]:
    target = b"/proc/self/fd/%d/%s" % (directory, name)
    names = sorted(os.listxattr(target, follow_symlinks=False))
    return tuple(
        (one, os.getxattr(target, one, follow_symlinks=False)) for one in names if not one.startswith("trusted.overlay")
    )


@contextmanager
def mounted(point: Path, lower: Sequence[Path | str]) -> Iterator[Path]:
    """Layers, topmost first, as the kernel merges them."""
    point.mkdir()
    empty = point.with_name(f"{point.name}-empty")
    empty.mkdir()
    options = "ro,lowerdir=" + ":".join(map(str, [*lower, empty]))
    with overlay(point, options):
        yield point
