"""Signal names and numbers as Docker accepts them: `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`. Pure."""

from __future__ import annotations

import signal

from tare.errors import InvalidArgument

_RTMIN, _RTMAX = 34, 64
_NAMES = {s.name.removeprefix("SIG"): int(s) for s in signal.Signals if not s.name.startswith("SIGRT")}
_NAMES |= {"IOT": 6, "CLD": 17, "POLL": 29, "STKFLT": 16, "UNUSED": 31}
_NAMES |= {f"RTMIN+{n}": _RTMIN + n for n in range(1, 16)} | {f"RTMAX-{n}": _RTMAX - n for n in range(1, 15)}
_NAMES |= {"RTMIN": _RTMIN, "RTMAX": _RTMAX}


def parse_signal(text: str) -> int:
    """The number of a signal. Raises InvalidArgument with Docker's text."""
    if text.isascii() and text.isdigit():
        number = int(text)
        if number == 0 or number > _RTMAX:
            raise InvalidArgument(f"invalid signal: {text}")
        return number
    found = _NAMES.get(text.upper().removeprefix("SIG"))
    if found is None:
        raise InvalidArgument(f"invalid signal: {text}")
    return found


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; the number itself where the kernel has no name for it."""
    for name, value in _NAMES.items():
        if value == number:
            return "SIG" + name
    return str(number)
