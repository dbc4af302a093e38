"""Where a path of a container leads within its merged layers, without the layers being mounted.

Must never follow a symbolic link by the kernel: each is read and resolved here, with the stack's root as `/`
(CVE-2022-23648, GHSA-vp62-88p7-qqf5).
"""

from __future__ import annotations

import os
import stat

import msgspec

from tare.errors import InvalidArgument
from tare.storage.merged import Stack, lookup
from tare.storage.tar_format import shown

_LINKS_MAX = 40  # as the kernel's MAXSYMLINKS


class Inside(msgspec.Struct, frozen=True):
    """What a path leads to. path: clean and relative, free of links. layers: those that show it, topmost first."""

    path: bytes
    layers: tuple[int, ...]
    status: os.stat_result


def resolve(stack: Stack, path: bytes) -> Inside | None:
    """What `path` is in the merged view, all links followed; None if nothing is there. Raises InvalidArgument (a loop).

    `..` at the root stays there, as after chroot(2).
    """
    pending = path.split(b"/")[::-1]
    root = Inside(b"", stack.everything, os.fstat(stack.root_fds[0]))
    at = [root]
    links = 0
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if len(at) > 1:
                at.pop()
            continue
        directory = at[-1]
        if not stat.S_ISDIR(directory.status.st_mode):
            return None
        found, target = _step(stack, directory, part)
        if found is None:
            return None
        if target is None:
            at.append(found)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise InvalidArgument(f'"{shown(path)}": too many levels of symbolic links')
        if target.startswith(b"/"):
            at = [root]
        pending.extend(target.split(b"/")[::-1])
    return at[-1]


def _step(stack: Stack, directory: Inside, part: bytes) -> tuple[Inside | None, bytes | None]:
    """An entry of a directory, and its target if it is a link."""
    with stack.opened(directory.path, directory.layers) as opened:
        found = lookup(part, opened)
        if found is None:
            return None, None
        layer, status = found
        path = directory.path + b"/" + part if directory.path else part
        target = None
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(part, dir_fd=dict(opened)[layer])
    shown_by: tuple[int, ...] = (layer,)
    if stat.S_ISDIR(status.st_mode):
        shown_by = stack.merged_from(path, directory.layers[directory.layers.index(layer) :])
    return Inside(path, shown_by, status), target
