"""How a reader knows a file of a layer that is packed: by a mark on it; and where its bytes are read then.

Must never cost more than one system call for a file that isn't packed.

The mark is an attribute in overlayfs' own name space: containers don't see it, and no archive brings one in.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Protocol
from weakref import WeakValueDictionary

from tare import errors

MARK = b"trusted.overlay.tare.packed"
# Smaller files are never packed: a diff shows them as text, and there is little to gain.
MIN_BYTES = 256 << 10


class NoLongerPacked(Exception):
    """The file was unpacked a moment ago: its content is in it again."""


class Source(Protocol):
    """A store that has the bytes of the files it marked."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Raises NoLongerPacked before the first piece, or not at all."""
        ...


_stores: WeakValueDictionary[str, Source] = WeakValueDictionary()


def register(token: str, store: Source) -> None:
    """From now on files marked with `token` are read from `store`."""
    _stores[token] = store


def set_mark(descriptor: int, token: str, name: str) -> None:
    os.setxattr(descriptor, MARK, f"{token} {name}".encode())


def clear_mark(descriptor: int) -> None:
    try:
        os.removexattr(descriptor, MARK)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise


def packed_as(descriptor: int) -> tuple[str, str] | None:
    """The mark on an open file: the store's token, and by what name that knows the file."""
    try:
        value = os.getxattr(descriptor, MARK)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            return None
        raise
    token, _, name = value.decode("ascii", "replace").partition(" ")
    return token, name


def pieces(descriptor: int, offset: int, length: int) -> Iterator[bytes] | None:
    """The content of an open file if it is packed, else None. Raises Internal if its store isn't open.

    The iterator raises NoLongerPacked before its first piece if the file has just become plain.
    """
    known = packed_as(descriptor)
    if known is None:
        return None
    store = _stores.get(known[0])
    if store is None:
        raise errors.Internal(f"a packed file belongs to a store that isn't open: {known[0]!r}")
    return store.read(known[1], offset, length)
