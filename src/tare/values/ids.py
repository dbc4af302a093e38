"""Ids: 64 lower-case hex digits, as Docker's. No I/O but the kernel's random numbers."""

from __future__ import annotations

import os
import re

ID_LENGTH = 64
SHORT_LENGTH = 12
_HEX = re.compile(r"[0-9a-f]+\Z")


def new_id() -> str:
    """A fresh random id whose short form holds at least one letter.

    An all-digit short id would be taken for a number by hosts' tools (Docker avoids it for the host name's sake).
    """
    while True:
        candidate = os.urandom(32).hex()
        if not candidate[:SHORT_LENGTH].isdigit():
            return candidate


def short_id(full: str) -> str:
    """The first 12 digits of an id or of a digest's hex part."""
    return full.rpartition(":")[2][:SHORT_LENGTH]


def is_id(text: str) -> bool:
    """Whether text is a full id."""
    return len(text) == ID_LENGTH and _HEX.match(text) is not None


def is_id_prefix(text: str) -> bool:
    """Whether text could be the beginning of an id."""
    return 0 < len(text) <= ID_LENGTH and _HEX.match(text) is not None
