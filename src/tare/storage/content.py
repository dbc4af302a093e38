"""Small blobs (image configs, manifests) by their sha256 digest.

Must never return bytes that don't have the digest asked for, nor read a blob above the cap (CVE-2023-25153).

    <root>/sha256/<64 hex>
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tare import errors, faults
from tare.storage import durable
from tare.storage.digests import checked_hex
from tare.values.digest import digest_bytes

MAX_BLOB_BYTES = 4 << 20


class Content:
    """A directory of blobs; each is written aside, synced and renamed, so it is there whole or not at all."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._blobs = self.root / "sha256"
        durable.make_private_directory(self._blobs)
        for leftover in self._blobs.glob(".*"):  # written aside, then killed
            leftover.unlink(missing_ok=True)

    def put(self, data: bytes) -> str:
        """Stores `data` and returns its digest; a copy that is there already and right stays."""
        if len(data) > MAX_BLOB_BYTES:
            raise errors.TooLarge(f"blob of {len(data)} bytes is larger than {MAX_BLOB_BYTES}")
        digest = digest_bytes(data)
        if not self._holds(digest):
            durable.write_file(self._path(digest), data, point="storage.content")
        return digest

    def _holds(self, digest: str) -> bool:
        try:
            self.get(digest)
        except (errors.NotFound, errors.Internal):
            return False
        return True

    def get(self, digest: str) -> bytes:
        path = self._path(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise errors.NotFound(f"content {digest}: not found") from None
        with open(descriptor, "rb") as file:
            data = file.read(MAX_BLOB_BYTES + 1)
        if len(data) > MAX_BLOB_BYTES:
            raise errors.Internal(f"content {digest} is larger than {MAX_BLOB_BYTES} bytes")
        if digest_bytes(data) != digest:
            raise errors.Internal(f"content {digest} is damaged: its {len(data)} bytes have another digest")
        return data

    def exists(self, digest: str) -> bool:
        return self._path(digest).exists()

    def delete(self, digest: str) -> None:
        faults.point("storage.content.delete")
        self._path(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        for entry in os.scandir(self._blobs):
            if not entry.name.startswith("."):
                yield f"sha256:{entry.name}"

    def _path(self, digest: str) -> Path:
        return self._blobs / checked_hex(digest)
