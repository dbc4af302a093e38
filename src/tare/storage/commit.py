"""An upper directory as a new layer: copied, turned into a tar and digested in one pass.

Must never depend on the order in which the file system lists names: equal trees give equal layers.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tare import errors, faults
from tare.kernel.disks import clone_file
from tare.storage import tar_format as fmt
from tare.storage.chunks import mark
from tare.storage.extract import OPAQUE, WHITEOUT, Extracted
from tare.storage.hashing import ThreadedDigest
from tare.storage.limits import DEFAULT_LIMITS
from tare.storage.merged import Found, Stack, is_whiteout
from tare.storage.recipe import RecipeWriter
from tare.storage.tar_format import Entry
from tare.storage.tar_stream import content, is_zeros, opened_regular
from tare.storage.tar_writer import END, entry_of, format_entry, padding
from tare.storage.tree_reader import open_directory, read_xattrs, xattrs_of
from tare.storage.tree_writer import OPAQUE_XATTR, Metadata, TreeWriter, without_engine_xattrs

_REDIRECTS = (b"trusted.overlay.redirect", b"trusted.overlay.metacopy")


def commit_tree(upper: Path, staging: Path, recipe_fd: int, *, root_entry: bool) -> Extracted:
    """Copies `upper` to <staging>/tree as overlayfs keeps it, with the digest and recipe of the OCI layer tar.

    root_entry: the root directory itself was changed, so it gets an entry; otherwise an empty upper is an empty tar.
    """
    with Stack([upper]) as stack:
        fds = [open_directory(staging / "tree"), open_directory(staging / "shadow")]
        committing = _Committing(stack, fds[0], fds[1], recipe_fd)
        try:
            return committing.run(0 if root_entry else None)
        finally:
            committing.close()
            for descriptor in fds:
                os.close(descriptor)


def squash_trees(stack: Stack, staging: Path, recipe_fd: int, *, root_layer: int | None) -> Extracted:
    """The same of several layers that lie on each other, as the one layer that does to those below what they did.

    root_layer: the topmost that has an entry for the root directory.
    """
    fds = [open_directory(staging / "tree"), open_directory(staging / "shadow")]
    committing = _Squashing(stack, fds[0], fds[1], recipe_fd)
    try:
        return committing.run(root_layer)
    finally:
        committing.close()
        for descriptor in fds:
            os.close(descriptor)


class _Committing:
    def __init__(self, stack: Stack, tree_fd: int, shadow_fd: int, recipe_fd: int) -> None:
        self._stack = stack
        self._tree = TreeWriter(tree_fd, shadow_fd, DEFAULT_LIMITS)
        self._digest = ThreadedDigest()
        self._recipe = RecipeWriter(recipe_fd)
        self._links: dict[int, bytes] = {}
        self._clones: bool | None = None  # whether the file system shares content; None: nothing was tried
        self._size_bytes = 0
        self._entries = 0

    def close(self) -> None:
        self._digest.close()
        self._recipe.close()
        self._tree.close()

    def run(self, root_layer: int | None) -> Extracted:
        if root_layer is not None:
            root_fd = self._stack.root_fds[root_layer]
            self._header(b"./", os.fstat(root_fd), without_engine_xattrs(read_xattrs(root_fd, b".")), b"")
        for found in self._stack.walk(whiteouts=True):
            try:
                self._commit(found)
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed or replaced meanwhile
        self._raw(END)
        self._tree.finish()
        faults.point("storage.commit.finish")
        self._recipe.finish([])
        return Extracted(
            diff_id=self._digest.finish(),
            size_bytes=self._size_bytes,
            tar_bytes=self._digest.total,
            entries=self._entries,
            root_entry=root_layer is not None,
            opaque_root=False,
        )

    def _commit(self, found: Found) -> None:
        status = found.status
        if stat.S_ISSOCK(status.st_mode):
            return
        if is_whiteout(status):
            self._whiteout(found)
            return
        if found.name.startswith(WHITEOUT):
            raise errors.InvalidArgument(f"{found.path!r}: names that begin with .wh. can't be kept in a layer")
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            first = self._links.get(status.st_ino)
            if first is not None:
                self._link(found, first)
                return
            self._links[status.st_ino] = found.path
        if stat.S_ISREG(status.st_mode):
            self._file(found)
            return
        xattrs = read_xattrs(found.directory_fd, found.name)
        _check_whole(found, xattrs)
        opaque = stat.S_ISDIR(status.st_mode) and self._is_opaque(found, xattrs)
        xattrs = without_engine_xattrs(xattrs)
        target = os.readlink(found.name, dir_fd=found.directory_fd) if stat.S_ISLNK(status.st_mode) else b""
        self._header(found.path, status, xattrs, target)
        if opaque:
            self._raw(format_entry(_mark(found.path + b"/" + OPAQUE)))
            self._tree.opaque(found.path)

    def _is_opaque(self, found: Found, xattrs: dict[bytes, bytes]) -> bool:
        """Whether a directory hides what layers below have in it."""
        return xattrs.get(OPAQUE_XATTR) == b"y"

    def _header(self, path: bytes, status: os.stat_result, xattrs: dict[bytes, bytes], target: bytes) -> None:
        """An entry without payload, into the stream and the tree."""
        meta = _metadata(status, xattrs)
        clean = b"" if path == b"./" else path
        self._raw(format_entry(entry_of(path.rstrip(b"/"), status, target, xattrs)))
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._tree.directory(clean, meta)
        elif kind == stat.S_IFLNK:
            self._tree.symlink(clean, target, meta)
        else:
            self._tree.node(clean, kind, status.st_rdev if kind != stat.S_IFIFO else 0, meta)
        self._entries += 1

    def _link(self, found: Found, first: bytes) -> None:
        entry = entry_of(found.path, found.status, first)
        entry.kind, entry.size = fmt.HARD_LINK, 0
        self._raw(format_entry(entry))
        self._tree.hard_link(found.path, first)
        self._entries += 1

    def _whiteout(self, found: Found) -> None:
        head, slash, name = found.path.rpartition(b"/")
        self._raw(format_entry(_mark(head + slash + WHITEOUT + name)))
        self._tree.whiteout(found.path)

    def _file(self, found: Found) -> None:
        source, status = opened_regular(found.directory_fd, found.name)
        try:
            xattrs = xattrs_of(source)
            _check_whole(found, xattrs)
            xattrs = without_engine_xattrs(xattrs)
            self._raw(format_entry(entry_of(found.path, status, xattrs=xattrs)))
            target = self._tree.create_file(found.path)
            try:
                self._copy(source, target, status)
                self._tree.set_file(target, _metadata(status, xattrs))
            finally:
                os.close(target)
        finally:
            os.close(source)
        self._recipe.payload(found.path, status.st_size)
        self._recipe.raw(padding(status.st_size))
        self._digest.update(padding(status.st_size))
        self._size_bytes += status.st_size
        self._entries += 1

    def _copy(self, source: int, target: int, status: os.stat_result) -> None:
        """The content into tree and digest. Once shared, the copy is what is read: it can't change any more."""
        size = status.st_size
        if size and self._clone(source, target, size):
            os.ftruncate(target, size)
            for _, chunk in content(target, size):
                self._digest.update(chunk)
            return
        end = 0
        for offset, chunk in content(source, size, blocks=status.st_blocks):
            self._digest.update(chunk)
            if not is_zeros(chunk):
                _write_at(target, chunk, offset)
                end = offset + len(chunk)
        if end < size:
            os.ftruncate(target, size)

    def _clone(self, source: int, target: int, size: int) -> bool:
        """Shares the content where that is possible; a file system on which the first isn't is not asked again."""
        if self._clones is False or (size > mark.MIN_BYTES and mark.packed_as(source) is not None):
            return False
        done = clone_file(source, target)
        self._clones = done if self._clones is None else True
        return done

    def _raw(self, data: bytes) -> None:
        self._digest.update(data)
        self._recipe.raw(data)


class _Squashing(_Committing):
    """Several layers at once. A directory hides what is below them if one of them cuts it off: by its mark, or since

    something else, a file or a whiteout, stands at its path there.
    """

    def _is_opaque(self, found: Found, xattrs: dict[bytes, bytes]) -> bool:
        return self._stack.is_cut_off(found.path, self._stack.everything[found.layer :])


def _check_whole(found: Found, xattrs: dict[bytes, bytes]) -> None:
    """Refuses what has its content elsewhere in the layers; the engine mounts with both features off."""
    if xattrs and any(name in xattrs for name in _REDIRECTS):
        raise errors.Unsupported(f"commit of a snapshot mounted with redirect_dir or metacopy: {found.path!r}")


def _metadata(status: os.stat_result, xattrs: dict[bytes, bytes]) -> Metadata:
    return Metadata(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, xattrs)


def _mark(name: bytes) -> Entry:
    """A whiteout or opaque entry: an empty file without a time of its own (OCI image spec, layer.md)."""
    return Entry(name=name, kind=fmt.REGULAR, mode=0o600)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
