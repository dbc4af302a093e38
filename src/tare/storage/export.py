"""The merged view of a stack of directories as one tar stream.

Must never need a mount, nor fail because a running container changes a file meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from tare.storage import tar_format as fmt
from tare.storage.merged import Found, Stack
from tare.storage.tar_stream import content, opened_regular
from tare.storage.tar_writer import END, entry_of, format_entry, padding
from tare.storage.tree_reader import read_xattrs, xattrs_of
from tare.storage.tree_writer import without_engine_xattrs

Write = Callable[[bytes], object]


def export_stack(stack: Stack, write: Write) -> None:
    """Writes every entry, a file's second name as a hard link; sockets are left out as Docker leaves them."""
    links: dict[tuple[int, int], bytes] = {}
    for found in stack.walk():
        if stat.S_ISSOCK(found.status.st_mode):
            continue
        try:
            export_entry(found, found.path, links, write)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed or replaced meanwhile
    write(END)


def export_entry(
    found: Found,
    name: bytes,
    links: dict[tuple[int, int], bytes],
    write: Write,
    entry_of: Callable[..., fmt.Entry] = entry_of,
) -> None:
    """Writes one entry under `name`. links: where each file with several names was written first."""
    status = found.status
    key = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        first = links.get(key)
        if first is not None:
            entry = entry_of(name, status, first)
            entry.kind, entry.size = fmt.HARD_LINK, 0
            write(format_entry(entry))
            return
    if stat.S_ISREG(status.st_mode):
        descriptor, now = opened_regular(found.directory_fd, found.name)
        try:
            entry = entry_of(name, now, xattrs=without_engine_xattrs(xattrs_of(descriptor)))
            write(format_entry(entry))
            for _, chunk in content(descriptor, entry.size, blocks=now.st_blocks):
                write(chunk)
            if entry.size % fmt.BLOCK:
                write(padding(entry.size))
        finally:
            os.close(descriptor)
    else:
        xattrs = without_engine_xattrs(read_xattrs(found.directory_fd, found.name))
        target = os.readlink(found.name, dir_fd=found.directory_fd) if stat.S_ISLNK(status.st_mode) else b""
        write(format_entry(entry_of(name, status, target, xattrs)))
    if status.st_nlink > 1:
        links[key] = name
