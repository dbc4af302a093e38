"""Directories as tar streams and back, for a container that changes engines: its upper layer, its volumes, its log.

Must never write outside the directory it is given: what comes from another engine is read as any archive is.

An upper layer has whiteouts and opaque directories in the form of OCI layers (layer.md); a volume has none, whatever
its files are called. Sockets are left out, as in every archive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from tare import errors, faults
from tare.storage import tar_format as fmt
from tare.storage.decompress import Readable, plain_chunks
from tare.storage.durable import sync_tree
from tare.storage.export import Write, export_entry
from tare.storage.extract import OPAQUE, WHITEOUT, Unpacking, explained
from tare.storage.limits import DEFAULT_LIMITS, Limits
from tare.storage.merged import OPAQUE_XATTR, Found, Stack, is_whiteout
from tare.storage.tar_format import Entry
from tare.storage.tar_reader import TarReader
from tare.storage.tar_writer import END, entry_of, format_entry
from tare.storage.tree_reader import open_directory, read_xattrs
from tare.storage.tree_writer import TreeWriter, without_engine_xattrs


def pack_upper(upper: Path, write: Write) -> None:
    """An upper directory that nobody writes to, whether or not it is mounted, as a layer's tar."""
    with Stack([upper]) as stack:
        _pack(stack, write, _pack_marked)


def pack_tree(directory: Path, write: Write, wanted: Callable[[bytes], bool] = lambda path: True) -> None:
    """A plain directory with all that is in it; wanted: which paths go along."""

    def pack_one(found: Found, links: Links, out: Write) -> None:
        if wanted(found.path):
            export_entry(found, found.path, links, out)

    descriptor = open_directory(directory)
    try:
        with Stack.of_directory(descriptor) as stack:
            _pack(stack, write, pack_one)
    finally:
        os.close(descriptor)


Links = dict[tuple[int, int], bytes]


def _pack(stack: Stack, write: Write, pack_one: Callable[[Found, Links, Write], object]) -> None:
    root_fd = stack.root_fds[0]
    write(format_entry(entry_of(b".", os.fstat(root_fd), xattrs=without_engine_xattrs(read_xattrs(root_fd, b".")))))
    links: Links = {}
    for found in stack.walk(whiteouts=True):
        if stat.S_ISSOCK(found.status.st_mode):
            continue
        try:
            pack_one(found, links, write)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed or replaced meanwhile
    write(END)


def _pack_marked(found: Found, links: Links, write: Write) -> None:
    if is_whiteout(found.status):
        head, slash, name = found.path.rpartition(b"/")
        write(_mark(head + slash + WHITEOUT + name))
        return
    if found.name.startswith(WHITEOUT):
        raise errors.InvalidArgument(f"{found.path!r}: names that begin with .wh. can't travel in a layer")
    export_entry(found, found.path, links, write)
    if stat.S_ISDIR(found.status.st_mode) and read_xattrs(found.directory_fd, found.name).get(OPAQUE_XATTR) == b"y":
        write(_mark(found.path + b"/" + OPAQUE))


def _mark(name: bytes) -> bytes:
    return format_entry(Entry(name=name, kind=fmt.REGULAR, mode=0o600))


def unpack(stream: Readable, directory: Path, shadow: Path, *, layered: bool, limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpacks a stream into an empty directory, synced; its root gets what the stream says of it.

    layered: whether names that begin with .wh. are whiteouts. shadow: an empty directory for what the stream brings
    twice. Raises InvalidArgument, ResourceExhausted.
    """
    fds = [open_directory(directory), open_directory(shadow)]
    tree = TreeWriter(fds[0], fds[1], limits)
    try:
        reader = TarReader(plain_chunks(stream, limits), limits)
        unpacking = (Unpacking if layered else _Plain)(reader, tree, _NoRecipe(), fds[0], limits)
        while entry := reader.next_entry():
            unpacking.apply(entry)
        reader.finish()
        tree.finish()
    except OSError as error:
        raise explained(error, "archive") from error
    finally:
        tree.close()
        for descriptor in fds:
            os.close(descriptor)
    sync_tree(directory)
    faults.point("storage.carry.unpacked")


class _NoRecipe:
    def payload(self, path: bytes, size: int) -> None:
        pass

    def sparse(self, path: bytes, extents: list[tuple[int, int]]) -> None:
        pass


class _Plain(Unpacking):
    def is_mark(self, path: bytes) -> bool:
        """Here `.wh.x` is a file like any other."""
        return False
