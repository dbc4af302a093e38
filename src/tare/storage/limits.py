"""How much a foreign archive may ask for before it is refused."""

from __future__ import annotations

import os

import msgspec

from tare import errors

GIB = 1 << 30


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Caps for one archive.

    total_bytes: of the uncompressed stream. ratio: uncompressed to compressed bytes, once more than
    ratio_free_bytes came out (a gzip of zeros reaches 1030; real roots stay below 20). holes_bytes: what sparse files
    may claim beyond the data they bring, and how many zeros count for nothing in the ratio: most tools write holes of
    sparse files so, and they become holes again. reserve_bytes: disk space that must stay free. entries: files in all.
    header_bytes: one PAX header or long name. window_bytes: memory that a decompressor may ask for.
    """

    total_bytes: int = 1 << 40
    ratio: int = 200
    ratio_free_bytes: int = 1 * GIB
    holes_bytes: int = 8 * GIB
    reserve_bytes: int = 64 << 20
    entries: int = 10_000_000
    header_bytes: int = 1 << 20
    window_bytes: int = 256 << 20
    path_bytes: int = 4095
    xattr_bytes: int = 64 << 10

    def check_total(self, plain_bytes: int, packed_bytes: int | None = None, zero_bytes: int = 0) -> None:
        """Refuses a stream that has grown to plain_bytes out of packed_bytes. zero_bytes: in long runs of zeros."""
        if plain_bytes > self.total_bytes:
            raise errors.TooLarge(f"archive is larger than {self.total_bytes} bytes")
        counted_bytes = plain_bytes - min(zero_bytes, self.holes_bytes)
        if packed_bytes and counted_bytes > self.ratio_free_bytes and counted_bytes > packed_bytes * self.ratio:
            raise errors.TooLarge(
                f"archive looks like a decompression bomb: {packed_bytes} bytes became more than {plain_bytes}"
            )

    def check_space(self, directory_fd: int, wanted_bytes: int, what: str) -> None:
        """Refuses what the file system can't take, before it is full."""
        status = os.fstatvfs(directory_fd)
        if status.f_bavail * status.f_frsize - wanted_bytes < self.reserve_bytes:
            raise errors.ResourceExhausted(f"{what}: no space left on device")


DEFAULT_LIMITS = Limits()
