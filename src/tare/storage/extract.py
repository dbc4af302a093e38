"""One archive into one private directory: reads, writes, digests and records the recipe in a single pass.

Must never touch anything outside the two descriptors it is given; what fails leaves a mess that the caller discards.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Protocol

import msgspec

from tare import errors, faults
from tare.storage import tar_format as fmt
from tare.storage.decompress import Readable, plain_chunks
from tare.storage.hashing import ThreadedDigest
from tare.storage.limits import Limits
from tare.storage.recipe import RecipeWriter
from tare.storage.tar_format import Entry, shown
from tare.storage.tar_reader import TarReader
from tare.storage.tree_writer import Escape, Metadata, TreeWriter, clean_path

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_AUFS_PRIVATE = b".wh..wh."
_HOLE_BYTES = 64 << 10
_ZEROS = bytes(_HOLE_BYTES)
_USER_ERRORS = frozenset(
    (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.E2BIG, errno.ERANGE)
)
# Later or earlier times than any file system keeps; the kernel cuts them down further (`man 2 utimensat`).
_MAX_TIME_NS = (1 << 55) * 1_000_000_000


class Extracted(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of an archive. size_bytes: of the regular files, hard links once; tar_bytes: of the stream."""

    diff_id: str
    size_bytes: int
    tar_bytes: int
    entries: int
    root_entry: bool
    opaque_root: bool


def extract(stream: Readable, tree_fd: int, shadow_fd: int, recipe_fd: int, limits: Limits) -> Extracted:
    """Unpacks `stream` below tree_fd. Takes recipe_fd over. Raises InvalidArgument naming the entry that is wrong."""
    digest = ThreadedDigest()
    recipe = RecipeWriter(recipe_fd)
    tree = TreeWriter(tree_fd, shadow_fd, limits)
    try:
        reader = TarReader(digest.passing(plain_chunks(stream, limits)), limits, recipe.raw)
        unpacking = Unpacking(reader, tree, recipe, tree_fd, limits)
        while entry := reader.next_entry():
            unpacking.apply(entry)
        reader.finish()
        tree.finish()
        faults.point("storage.extract.finish")
        recipe.finish(tree.moves)
        return Extracted(
            diff_id=digest.finish(),
            tar_bytes=digest.total,
            size_bytes=unpacking.size_bytes,
            entries=unpacking.entries,
            root_entry=tree.root_entry,
            opaque_root=tree.opaque_root,
        )
    except OSError as error:
        raise explained(error, "archive") from error
    finally:
        digest.close()
        recipe.close()
        tree.close()


class Recipe(Protocol):
    """Where the payloads of a stream went."""

    def payload(self, path: bytes, size: int) -> None: ...

    def sparse(self, path: bytes, extents: list[tuple[int, int]]) -> None: ...


class Unpacking:
    """The state of one extraction: how much has been used of each limit."""

    def __init__(self, reader: TarReader, tree: TreeWriter, recipe: Recipe, tree_fd: int, limits: Limits) -> None:
        self._reader = reader
        self._tree = tree
        self._recipe = recipe
        self._tree_fd = tree_fd
        self._limits = limits
        self._unchecked_bytes = 0
        self._holes_bytes = 0
        self.size_bytes = 0
        self.entries = 0

    def apply(self, entry: Entry) -> None:
        self.entries += 1
        if self.entries > self._limits.entries:
            raise errors.TooLarge(f"archive has more than {self._limits.entries} entries")
        try:
            self._apply(entry)
        except OSError as error:
            raise explained(error, shown(entry.name)) from error

    def _apply(self, entry: Entry) -> None:
        path = clean_path(entry.name, self._limits.path_bytes)
        if self.is_mark(path):
            return
        kind = entry.kind
        mtime_ns = min(max(entry.mtime_ns, -_MAX_TIME_NS), _MAX_TIME_NS)
        meta = Metadata(entry.mode, entry.uid, entry.gid, mtime_ns, entry.xattrs)
        if kind == fmt.DIRECTORY:
            self._tree.directory(path, meta)
            return
        if not path:
            raise errors.InvalidArgument(f'"{shown(entry.name)}": the archive\'s root is not a directory')
        if kind == fmt.REGULAR:
            self._file(path, entry, meta)
        elif kind == fmt.SYMLINK:
            if not entry.linkname:
                raise errors.InvalidArgument(f'"{shown(path)}": a symbolic link to nothing')
            self._tree.symlink(path, entry.linkname, meta)
        elif kind == fmt.HARD_LINK:
            self._link(path, entry)
        elif kind == fmt.FIFO:
            self._tree.node(path, stat.S_IFIFO, 0, meta)
        elif kind in (fmt.CHAR, fmt.BLOCK_DEVICE):
            node = stat.S_IFCHR if kind == fmt.CHAR else stat.S_IFBLK
            if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
                raise errors.InvalidArgument(f'"{shown(path)}": invalid device {entry.major}:{entry.minor}')
            self._tree.node(path, node, os.makedev(entry.major, entry.minor), meta)
        else:
            raise errors.InvalidArgument(f'"{shown(path)}": unhandled tar header type {kind[0]}')

    def _link(self, path: bytes, entry: Entry) -> None:
        try:
            target = clean_path(entry.linkname, self._limits.path_bytes)
        except Escape as error:
            raise Escape(f'invalid hardlink "{shown(path)}" -> "{shown(entry.linkname)}"') from error
        if any(part.startswith(WHITEOUT) for part in target.split(b"/")):
            raise errors.InvalidArgument(f'invalid hardlink "{shown(path)}" -> "{shown(target)}"')
        self._tree.hard_link(path, target)

    def is_mark(self, path: bytes) -> bool:
        """Handles whiteouts (OCI image spec, layer.md, "Whiteouts"); says whether `path` was one."""
        if WHITEOUT not in path:
            return False
        head, slash, last = path.rpartition(b"/")
        if not last.startswith(WHITEOUT):
            return False
        if last == OPAQUE:
            self._tree.opaque(head)
            return True
        if last.startswith(_AUFS_PRIVATE):
            return True  # what AUFS kept for itself; Docker skips it too
        hidden = last[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise Escape(f'"{shown(path)}" is not a whiteout of a file')
        self._tree.whiteout(head + slash + hidden)
        return True

    def _file(self, path: bytes, entry: Entry, meta: Metadata) -> None:
        self._budget(path, entry)
        descriptor = self._tree.create_file(path)
        try:
            if entry.extents is None:
                self._recipe.payload(path, entry.size)
                if entry.size:
                    self._write(descriptor, entry.size)
            else:
                self._recipe.sparse(path, entry.extents)
                self._write_extents(descriptor, entry)
            self._tree.set_file(descriptor, meta)
        finally:
            os.close(descriptor)
        self.size_bytes += entry.size

    def _budget(self, path: bytes, entry: Entry) -> None:
        """Refuses what a header claims before any of it is written."""
        self._holes_bytes += entry.size - entry.packed_bytes
        if self._holes_bytes > self._limits.holes_bytes:
            raise errors.TooLarge(f'"{shown(path)}": sparse files claim more than {self._limits.holes_bytes} bytes')
        if entry.size > self._limits.total_bytes:
            raise errors.TooLarge(f'"{shown(path)}" is larger than {self._limits.total_bytes} bytes')
        self._unchecked_bytes += entry.packed_bytes
        if self._unchecked_bytes > 16 << 20:
            # A huge size is only a claim until the bytes come: ask for what this entry can bring in one step.
            self._limits.check_space(self._tree_fd, min(entry.packed_bytes, 1 << 30), shown(path))
            self._unchecked_bytes = 0

    def _write(self, descriptor: int, size: int) -> None:
        """The whole payload; long runs of zeros become holes."""
        if size < _HOLE_BYTES:
            _write_all(descriptor, memoryview(self._reader.whole_payload()))
            return
        position = 0
        hole = False
        for piece in self._reader.payload():
            if _is_hole(piece):
                position += len(piece)
                os.lseek(descriptor, position, os.SEEK_SET)
                hole = True
                continue
            hole = False
            position += len(piece)
            _write_all(descriptor, piece)
            if position & ((1 << 28) - 1) < len(piece):
                self._limits.check_space(self._tree_fd, 1 << 28, "archive")
        if hole:
            os.ftruncate(descriptor, size)

    def _write_extents(self, descriptor: int, entry: Entry) -> None:
        extents = iter(entry.extents or ())
        offset, left = 0, 0
        for piece in self._reader.payload():
            while piece:
                while not left:
                    offset, left = next(extents)
                    os.lseek(descriptor, offset, os.SEEK_SET)
                part = piece[:left]
                _write_all(descriptor, part)
                left -= len(part)
                piece = piece[len(part) :]
        os.ftruncate(descriptor, entry.size)


def explained(error: OSError, name: str) -> errors.TareError:
    """A failed system call as what the caller can do about it."""
    number = error.errno or 0
    if number in (errno.ENOSPC, errno.EDQUOT):
        return errors.ResourceExhausted(f"{name}: no space left on device")
    if number == errno.EROFS:
        return errors.Forbidden(f'"{name}": read-only file system')
    if number in _USER_ERRORS:
        return errors.InvalidArgument(f'"{name}": {errors.system_text(number)}')
    return errors.KernelError(number, "extract", name)


def _is_hole(piece: memoryview) -> bool:
    """Whether a piece is long enough for a hole and all zeros (memcmp on bytes; memoryviews compare item by item)."""
    if len(piece) < _HOLE_BYTES or piece[0] or piece[-1]:
        return False
    return piece.tobytes() == (_ZEROS if len(piece) == len(_ZEROS) else bytes(len(piece)))


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
