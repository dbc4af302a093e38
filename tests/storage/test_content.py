"""Blobs by digest: what comes back is what went in, or an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tare import errors
from tare.storage.content import MAX_BLOB_BYTES, Content


def test_round_trip(tmp_path: Path) -> None:
    content = Content(tmp_path)
    digest = content.put(b"{}")
    assert content.put(b"{}") == digest
    assert content.get(digest) == b"{}"
    assert list(content.digests()) == [digest]
    content.delete(digest)
    assert not content.exists(digest)
    with pytest.raises(errors.NotFound):
        content.get(digest)


def test_damage_is_noticed(tmp_path: Path) -> None:
    """Bytes that don't have the digest are never returned."""
    content = Content(tmp_path)
    digest = content.put(b"good")
    (tmp_path / "sha256" / digest[7:]).write_bytes(b"evil")
    with pytest.raises(errors.Internal, match="damaged"):
        content.get(digest)


def test_size_is_capped(tmp_path: Path) -> None:
    with pytest.raises(errors.TooLarge):
        Content(tmp_path).put(bytes(MAX_BLOB_BYTES + 1))


def test_half_written_blobs_are_cleared(tmp_path: Path) -> None:
    Content(tmp_path)
    (tmp_path / "sha256" / ".half").write_bytes(b"x")
    Content(tmp_path)
    assert list((tmp_path / "sha256").iterdir()) == []


@pytest.mark.parametrize(
    "digest", ["../../etc/passwd", "sha256:../x", "sha256:" + "g" * 64, "sha256:" + "0" * 64 + "\n"]
)
def test_malformed_digests_are_refused(tmp_path: Path, digest: str) -> None:
    """A digest is checked before it is a path (CVE-2014-9358)."""
    with pytest.raises(errors.InvalidArgument):
        Content(tmp_path).get(digest)
