"""Digests as the storage rooms use them: checked before they become part of a path (CVE-2014-9358, CVE-2024-3727)."""

from __future__ import annotations

from collections.abc import Sequence

from tare.values.digest import digest_bytes, parse_digest


def checked_hex(digest: str) -> str:
    """The 64 hexadecimal digits of a sha256 digest; anything else is refused."""
    return parse_digest(digest)[7:]


def chain_id(diff_ids: Sequence[str]) -> str:
    """The chain ID of a stack of layers, bottom first (OCI image spec, config.md, "Layer ChainID"); "" of none."""
    if not diff_ids:
        return ""
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = digest_bytes(f"{chain} {diff_id}".encode())
    return chain
