"""The user's terminal: raw mode that is always undone, its size, the keys that detach.

Must restore the terminal on every way out: end, error, or a signal that would kill us.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROL_NAMES = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


class RawTerminal:
    """`with RawTerminal(fd):` passes every key on as it is; the former settings come back at the end."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._saved: list[Any] | None = None

    def __enter__(self) -> RawTerminal:
        import termios

        self._saved = termios.tcgetattr(self.fd)
        raw = termios.tcgetattr(self.fd)
        raw[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        raw[1] &= ~termios.OPOST
        raw[2] = (raw[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.fd, termios.TCSANOW, raw)
        return self

    def restore(self) -> None:
        if self._saved is None:
            return
        import termios

        saved, self._saved = self._saved, None
        try:
            termios.tcsetattr(self.fd, termios.TCSADRAIN, saved)
        except termios.error:
            pass  # the terminal has gone away: nothing is left to restore

    def __exit__(self, *_exc: object) -> None:
        self.restore()


def terminal_size(fd: int = 1) -> tuple[int, int]:
    """(rows, columns), (0, 0) if `fd` is no terminal."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return rows, columns


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q`, `a,b`, … as the bytes that a terminal sends."""
    keys = bytearray()
    for key in (text or DEFAULT_DETACH_KEYS).split(","):
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and key[5] in _CONTROL_NAMES:
            keys.append(_CONTROL_NAMES.index(key[5]))
        else:
            raise ValueError(f"Unknown character: '{key}'")
    return bytes(keys)


class DetachFilter:
    """Watches input for the detach keys. Holds back a beginning of them until it is clear that they don't follow."""

    def __init__(self, keys: bytes) -> None:
        self.keys = keys
        self._held = 0  # how many of the keys have been seen

    def __call__(self, data: bytes) -> bytes | None:
        """What to pass on; None when the keys were pressed."""
        out = bytearray()
        for byte in data:
            if byte == self.keys[self._held]:
                self._held += 1
                if self._held == len(self.keys):
                    return None
                continue
            out += self.keys[: self._held]
            self._held = 1 if byte == self.keys[0] else 0
            if not self._held:
                out.append(byte)
        return bytes(out)
