"""Writing a tree below one directory descriptor, entry by entry, whatever the entries' names say.

Must never follow a symbolic link, leave the directory, or write into a file that another entry made: parents are
opened component by component with O_NOFOLLOW, files are made with O_EXCL, and what stands in the way of a later entry
is moved aside, not written through (CVE-2014-6407, CVE-2014-9356, CVE-2021-32760). The tree is private to its writer.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from tare import errors
from tare.storage.limits import Limits
from tare.storage.tar_format import shown

OPAQUE_XATTR = b"trusted.overlay.opaque"
# Attributes that steer overlayfs itself; only the engine may set them (overlayfs.rst in the kernel's documentation).
ENGINE_XATTRS = (b"trusted.overlay.", b"user.overlay.")
_PARENT_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_DIRECTORIES = 128
_MAX_ID = 0xFFFFFFFE


class Escape(errors.InvalidArgument):
    """A name or link that leads out of the tree."""


def clean_path(name: bytes, path_bytes: int = 4095) -> bytes:
    """`name` relative to the root without `.`, `//` and `..`; b"" is the root. One that climbs out is refused."""
    head, slash, last = name.rpartition(b"/")
    if slash and len(head) <= path_bytes and last not in (b"", b".", b".."):
        above = _clean_head(head)
        path = above + b"/" + last if above else None if above is None else last
    else:
        path = _cleaned(name)
    if path is None:
        raise Escape(f'"{shown(name)}" is outside of the archive\'s root')
    if len(path) > path_bytes:
        raise errors.InvalidArgument(f'"{shown(path)}": file name too long')
    if b"\0" in path:
        raise errors.InvalidArgument(f'"{shown(path)}": name holds a NUL byte')
    return path


def _cleaned(name: bytes) -> bytes | None:
    """None for what climbs out."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                return None
            parts.pop()
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)


_clean_head = lru_cache(64)(_cleaned)  # a directory's entries come one after the other


def without_engine_xattrs(xattrs: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The attributes that are the user's."""
    if not xattrs:
        return xattrs
    return {name: value for name, value in xattrs.items() if not name.startswith(ENGINE_XATTRS)}


class Metadata:
    """Owner, mode, time and attributes of an entry."""

    __slots__ = ("gid", "mode", "mtime_ns", "uid", "xattrs")

    def __init__(self, mode: int, uid: int, gid: int, mtime_ns: int, xattrs: dict[bytes, bytes]) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_ns = mtime_ns
        self.xattrs = xattrs


class TreeWriter:
    """Makes entries below `root_fd`; displaced ones go to `shadow_fd` under the numbers 0, 1, 2 …

    moves: (ordinal, path, number) of each displacement, where ordinal is the writer's count of files so far.
    """

    def __init__(self, root_fd: int, shadow_fd: int, limits: Limits) -> None:
        self._root_fd = root_fd
        self._shadow_fd = shadow_fd
        self._limits = limits
        self._parents: dict[bytes, int] = {}
        self._directory_times: dict[bytes, int] = {}
        self.files = 0
        self.moves: list[tuple[int, bytes, int]] = []
        self.root_entry = False
        self.opaque_root = False

    def close(self) -> None:
        self._forget_parents()

    def _forget_parents(self) -> None:
        for descriptor in self._parents.values():
            os.close(descriptor)
        self._parents.clear()

    def parent_fd(self, path: bytes) -> tuple[int, bytes]:
        """A descriptor of the directory that `path` (clean, not the root) is in, and its last component."""
        head, _, last = path.rpartition(b"/")
        if not head:
            return self._root_fd, last
        descriptor = self._parents.get(head)
        if descriptor is None:
            descriptor = self._open_directory(head)
        return descriptor, last

    def _open_directory(self, path: bytes) -> int:
        """Opens (and where missing makes) a directory, one component at a time from the nearest one that is open."""
        if len(self._parents) >= _KEPT_DIRECTORIES:
            self._forget_parents()
        known, rest = path, []
        while known and known not in self._parents:
            known, _, part = known.rpartition(b"/")
            rest.append(part)
        at = known
        descriptor = self._parents[known] if known else self._root_fd
        passing = -1  # an intermediate directory that isn't kept: a hostile depth must not use up descriptors
        try:
            while rest:
                part = rest.pop()
                at = at + b"/" + part if at else part
                below = self._enter(descriptor, part, at, path)
                if passing >= 0:
                    os.close(passing)
                    passing = -1
                if not rest or len(self._parents) < _KEPT_DIRECTORIES:
                    self._parents[at] = below
                else:
                    passing = below
                descriptor = below
        finally:
            if passing >= 0:
                os.close(passing)
        return descriptor

    def _enter(self, descriptor: int, part: bytes, at: bytes, path: bytes) -> int:
        try:
            return os.open(part, _PARENT_FLAGS, dir_fd=descriptor)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=descriptor)
            return os.open(part, _PARENT_FLAGS, dir_fd=descriptor)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Escape(f'"{shown(path)}": "{shown(at)}" is not a directory in this archive') from error
            raise

    def directory(self, path: bytes, meta: Metadata) -> None:
        """Makes a directory, or gives an existing one new metadata. Times are set by `finish`."""
        if not path:
            self._finish_directory(os.dup(self._root_fd), meta)
            self.root_entry = True
            self._directory_times[b""] = meta.mtime_ns
            return
        parent, last = self.parent_fd(path)
        try:
            os.mkdir(last, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(last, dir_fd=parent).st_mode):
                self._displace(parent, last, path)
                os.mkdir(last, 0o700, dir_fd=parent)
        self._finish_directory(os.open(last, _PARENT_FLAGS, dir_fd=parent), meta)
        self._directory_times[path] = meta.mtime_ns

    def _finish_directory(self, descriptor: int, meta: Metadata) -> None:
        try:
            self._set_metadata(descriptor, meta)
        finally:
            os.close(descriptor)

    def opaque(self, path: bytes) -> None:
        """Marks a directory as hiding what lower layers have there."""
        if not path:
            self.opaque_root = True  # overlayfs ignores the mark there; the stack is cut at this layer instead
            return
        descriptor = self._open_directory(path) if path not in self._parents else self._parents[path]
        os.setxattr(descriptor, OPAQUE_XATTR, b"y")

    def create_file(self, path: bytes) -> int:
        """A new empty file, open for writing; the caller closes it after `set_file`."""
        parent, last = self.parent_fd(path)
        try:
            descriptor = os.open(last, _FILE_FLAGS, 0o600, dir_fd=parent)
        except FileExistsError:
            self._displace(parent, last, path)
            descriptor = os.open(last, _FILE_FLAGS, 0o600, dir_fd=parent)
        self.files += 1
        return descriptor

    def set_file(self, descriptor: int, meta: Metadata) -> None:
        self._set_metadata(descriptor, meta)
        os.utime(descriptor, ns=(meta.mtime_ns, meta.mtime_ns))

    def _set_metadata(self, descriptor: int, meta: Metadata) -> None:
        os.fchown(descriptor, *_owner(meta))
        if meta.xattrs:
            self._set_xattrs(descriptor, meta.xattrs)
        os.fchmod(descriptor, meta.mode)  # after fchown, which clears setuid bits

    def _set_xattrs(self, target: int | bytes, xattrs: dict[bytes, bytes]) -> None:
        for name, value in xattrs.items():
            if name.startswith(ENGINE_XATTRS):
                continue
            if len(value) > self._limits.xattr_bytes:
                raise errors.InvalidArgument(f"extended attribute {shown(name)} is too large")
            try:
                os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
            except OSError as error:
                # Docker too goes on where this file system or these rights don't have such an attribute.
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise

    def symlink(self, path: bytes, target: bytes, meta: Metadata) -> None:
        parent, last = self.parent_fd(path)
        try:
            os.symlink(target, last, dir_fd=parent)
        except FileExistsError:
            self._displace(parent, last, path)
            os.symlink(target, last, dir_fd=parent)
        self._set_by_name(parent, last, meta, chmod=False)

    def node(self, path: bytes, mode: int, device: int, meta: Metadata) -> None:
        """A device or a fifo; `mode` is its type."""
        parent, last = self.parent_fd(path)
        try:
            os.mknod(last, mode | 0o600, device, dir_fd=parent)
        except FileExistsError:
            self._displace(parent, last, path)
            os.mknod(last, mode | 0o600, device, dir_fd=parent)
        self._set_by_name(parent, last, meta, chmod=True)

    def whiteout(self, path: bytes) -> None:
        """Overlay's mark that lower layers' `path` is gone: a character device 0:0."""
        parent, last = self.parent_fd(path)
        try:
            os.mknod(last, stat.S_IFCHR | 0o000, 0, dir_fd=parent)
        except FileExistsError:
            self._displace(parent, last, path)
            os.mknod(last, stat.S_IFCHR | 0o000, 0, dir_fd=parent)

    def _set_by_name(self, parent: int, last: bytes, meta: Metadata, *, chmod: bool) -> None:
        """Metadata of what can't be opened, without following what may have taken its place."""
        os.chown(last, *_owner(meta), dir_fd=parent, follow_symlinks=False)
        if chmod:
            # chmod follows links, and fchmodat2 is Linux 6.6: through a descriptor of the thing (CVE-2021-32760).
            node = os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.chmod(f"/proc/self/fd/{node}", meta.mode)
            finally:
                os.close(node)
        if meta.xattrs:
            # There is no setxattrat before Linux 6.13; the link in /proc leads to the directory itself.
            self._set_xattrs(b"/proc/self/fd/%d/%s" % (parent, last), meta.xattrs)
        os.utime(last, ns=(meta.mtime_ns, meta.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def hard_link(self, path: bytes, target: bytes) -> None:
        """A second name for a file of this tree; links to symbolic links link the link itself."""
        with self._existing(target, path) as (from_parent, from_last):
            if path == target:
                return
            parent, last = self.parent_fd(path)
            try:
                os.link(from_last, last, src_dir_fd=from_parent, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                self._displace(parent, last, path)
                os.link(from_last, last, src_dir_fd=from_parent, dst_dir_fd=parent, follow_symlinks=False)

    @contextmanager
    def _existing(self, target: bytes, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The parent of a hard link's target, on a descriptor that outlives what `parent_fd` does meanwhile."""
        if not target:
            raise Escape(f'invalid hardlink "{shown(path)}" -> "{shown(target)}"')
        parent, last = self.parent_fd(target)
        parent = os.dup(parent)
        try:
            try:
                status = os.lstat(last, dir_fd=parent)
            except FileNotFoundError:
                raise errors.InvalidArgument(
                    f'invalid hardlink "{shown(path)}" -> "{shown(target)}": no such file in this archive'
                ) from None
            if stat.S_ISDIR(status.st_mode):
                raise errors.InvalidArgument(f'invalid hardlink "{shown(path)}" -> "{shown(target)}": is a directory')
            yield parent, last
        finally:
            os.close(parent)

    def _displace(self, parent: int, last: bytes, path: bytes) -> None:
        """Moves what is in an entry's way into the shadow: the archive's payload must stay readable."""
        number = len(self.moves)
        os.rename(last, b"%d" % number, src_dir_fd=parent, dst_dir_fd=self._shadow_fd)
        self.moves.append((self.files, path, number))
        gone = path + b"/"
        for kept in [known for known in self._parents if known == path or known.startswith(gone)]:
            os.close(self._parents.pop(kept))
        for timed in [known for known in self._directory_times if known == path or known.startswith(gone)]:
            del self._directory_times[timed]

    def finish(self) -> None:
        """Sets directories' times, deepest last-made first, now that nothing more is made in them."""
        for path, mtime_ns in reversed(self._directory_times.items()):
            if path:
                parent, last = self.parent_fd(path)
                os.utime(last, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
            else:
                os.utime(self._root_fd, ns=(mtime_ns, mtime_ns))


def _owner(meta: Metadata) -> tuple[int, int]:
    if not (0 <= meta.uid <= _MAX_ID and 0 <= meta.gid <= _MAX_ID):
        raise errors.InvalidArgument(f"invalid owner {meta.uid}:{meta.gid}")
    return meta.uid, meta.gid
