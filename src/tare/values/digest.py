"""Digests (`sha256:<64 hex>`), checked before they are used as a path or a key (CVE-2014-9358, CVE-2024-3727)."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from tare.errors import InvalidArgument

Digest = NewType("Digest", str)
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}\Z")


def is_digest(text: str) -> bool:
    """Whether text is a well-formed sha256 digest."""
    return _SHA256.match(text) is not None


def parse_digest(text: str) -> Digest:
    """text as a Digest. Raises InvalidArgument for anything but `sha256:` and 64 lower-case hex digits."""
    if not is_digest(text):
        raise InvalidArgument(f"invalid digest: {text[:100]!r}")
    return Digest(text)


def digest_bytes(data: bytes) -> Digest:
    """The digest of data."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def hex_of(digest: Digest) -> str:
    """The hex part of a digest."""
    return digest.partition(":")[2]
