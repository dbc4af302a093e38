"""Foreign text on a terminal: what would move its cursor, change its title or turn its lines around is written out.

Names, labels, commands and errors come from images, containers and other users; none of it may act on a terminal
(CVE-2021-25743 was that in kubectl). What goes to a pipe or a file stays as it is. Pure.
"""

from __future__ import annotations

# C0, DEL and C1 controls; bytes of these values that are no UTF-8 (surrogateescape); what reorders text (UAX #9).
_ACTING = (
    *range(0x20),
    *range(0x7F, 0xA0),
    *range(0xDC80, 0xDCA0),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)
_CELL = {code: f"\\u{code:04x}" if code < 0xDC80 or code > 0xDCFF else f"\\x{code - 0xDC00:02x}" for code in _ACTING}
_LINES = {code: shown for code, shown in _CELL.items() if code not in (0x09, 0x0A)}


def visible_cell(text: str) -> str:
    """One line's part: ends of lines and tabs are written out, too."""
    return text if text.isprintable() else text.translate(_CELL)


def visible(text: str) -> str:
    """One or several lines. JSON stays JSON."""
    return text if text.isprintable() else text.translate(_LINES)


def acts(template: str) -> bool:
    r"""Whether a --format's template has control characters of its own (as themselves, or as \033), but \t and \n."""
    plain = template.replace("\\t", "").replace("\\n", "")
    return "\\" in plain or visible(plain) != plain
