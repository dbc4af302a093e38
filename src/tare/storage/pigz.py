"""What pigz(1) makes of a stream: blocks of 128 KiB, each deflated with the 32 KiB before it as its dictionary.

Must never hold more of the stream than one block and a dictionary.

pigz ends each block but the last on a byte: by an empty stored block if an odd number of bits is open, else by as many
empty static blocks (10 bits each) as it takes, and by nothing if none is open (pigz.c, deflate_engine's caller).
"""

from __future__ import annotations

import zlib

BLOCK_BYTES = 128 << 10
_DICTIONARY_BYTES = 32 << 10


class Pigz:
    """A raw deflate stream as pigz makes it at this level with its other settings as they are."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._pending = bytearray()
        self._dictionary = b""

    def compress(self, data: bytes, /) -> bytes:
        self._pending += data
        made = []
        # The last block ends otherwise, so that one is kept until more is known to follow.
        while len(self._pending) > BLOCK_BYTES:
            block = bytes(self._pending[:BLOCK_BYTES])
            del self._pending[:BLOCK_BYTES]
            made.append(self._block(block))
        return b"".join(made)

    def flush(self) -> bytes:
        compressor = self._compressor()
        return compressor.compress(bytes(self._pending)) + compressor.flush(zlib.Z_FINISH)

    def _compressor(self) -> zlib._Compress:
        if self._dictionary:
            return zlib.compressobj(self._level, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, self._dictionary)
        return zlib.compressobj(self._level, zlib.DEFLATED, -15, 8)

    def _block(self, block: bytes) -> bytes:
        compressor = self._compressor()
        self._dictionary = block[-_DICTIONARY_BYTES:]
        made = compressor.compress(block) + compressor.flush(zlib.Z_BLOCK)
        other = compressor.copy()
        stored = compressor.flush(zlib.Z_SYNC_FLUSH)
        bits = _open_bits(stored, other)
        if bits % 2:
            return made + stored
        if not bits:
            return made
        # The open bits, then empty static blocks: a one at the second bit of each ten.
        value = stored[0] & ((1 << bits) - 1)
        length = bits
        while length % 8:
            value |= 2 << length
            length += 10
        return made + value.to_bytes(length // 8, "little")


def _open_bits(stored: bytes, other: zlib._Compress) -> int:
    """How many bits of an unfinished byte the compressor holds: where the one of an empty static block comes to lie."""
    static = other.flush(zlib.Z_PARTIAL_FLUSH) + other.flush(zlib.Z_SYNC_FLUSH)
    size = min(len(stored), len(static), 2)
    differing = int.from_bytes(stored[:size], "little") ^ int.from_bytes(static[:size], "little")
    differing &= -differing
    return differing.bit_length() - 2 if differing else 0
