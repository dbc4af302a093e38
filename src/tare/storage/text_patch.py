"""Two versions of a text file as a unified diff. Must never spend long on what is large or isn't text."""

from __future__ import annotations

import os
from typing import NamedTuple

MAX_FILE_BYTES = 256 << 10
MAX_LINES = 5_000
MAX_PATCH_BYTES = 16 << 20
_NO_NEWLINE = "\n\\ No newline at end of file\n"


class Side(NamedTuple):
    """One version: its bytes, or None if there are too many."""

    data: bytes | None

    @classmethod
    def read(cls, descriptor: int) -> Side:
        data = os.pread(descriptor, MAX_FILE_BYTES + 1, 0)
        return cls(data if len(data) <= MAX_FILE_BYTES else None)

    def lines(self) -> list[str] | None:
        """With their ends; None for what isn't text or is too long."""
        if self.data is None or b"\0" in self.data:
            return None
        try:
            text = self.data.decode()
        except UnicodeDecodeError:
            return None
        lines = [line + "\n" for line in text.split("\n")]
        if lines[-1] == "\n":
            lines.pop()
        else:
            lines[-1] = lines[-1][:-1] + _NO_NEWLINE
        return lines if len(lines) <= MAX_LINES else None


def patch(path: str, old: Side | None, new: Side | None) -> str | None:
    """The diff as git and patch(1) read it, None if a side isn't text. None as a side: there is no file."""
    before = [] if old is None else old.lines()
    after = [] if new is None else new.lines()
    if before is None or after is None:
        return None
    from_name, to_name = "/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}"
    import difflib  # here, since an idle engine shouldn't carry it

    return "".join(difflib.unified_diff(before, after, from_name, to_name))
