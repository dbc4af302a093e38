"""Prints a list of things the way --format, --quiet and the default table ask for.

A thing is a Row: its fields by the names that templates use. The default table never loads the template engine.
"""

from __future__ import annotations

import sys

from tare.cli.table import format_table
from tare.client.jsontext import format_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tare.cli.session import Session


class Row:
    """One thing's fields, computed when asked for. methods: fields that take an argument (`.Label "x"`).

    kind: Go's name of the context, which stands in Docker's error texts. plain: fields left out of `{{json .}}`.
    """

    __slots__ = ("fields", "kind", "methods")

    def __init__(
        self,
        kind: str,
        fields: Mapping[str, Callable[[], object]],
        methods: Mapping[str, Callable[[str], object]] | None = None,
    ) -> None:
        self.kind = kind
        self.fields = fields
        self.methods = methods or {}

    def text(self, name: str) -> str:
        value = self.fields[name]()
        return value if isinstance(value, str) else str(value)

    def as_dict(self) -> dict[str, object]:
        return {name: self.fields[name]() for name in sorted(self.fields)}


def natural_key(text: str) -> list[tuple[str, int]]:
    """Sorts names as people do: x2 before x10."""
    key: list[tuple[str, int]] = []
    at = 0
    while at < len(text):
        end = at
        while end < len(text) and text[end] in "0123456789":
            end += 1
        if end > at:
            key.append(("0", int(text[at:end])))
            at = end
        else:
            key.append((text[at], 0))
            at += 1
    return key


def print_rows(
    session: Session,
    rows: Iterable[Row],
    template: str,
    columns: Sequence[str],
    headers: Mapping[str, str],
    empty_header: bool = True,
) -> None:
    """template: --format's text, "" or "table" for the default table of `columns`."""
    if template in ("", "table"):
        cells = [[headers[name] for name in columns]]
        cells += [[row.text(name) for name in columns] for row in rows]
        if sys.stdout.isatty():
            from tare.cli.visible import visible_cell  # not loaded for pipes

            cells = [[visible_cell(cell) for cell in row] for row in cells]
        session.out(format_table(cells))
        return
    if template in ("json", "{{json .}}"):
        for row in rows:
            session.out(format_json(row.as_dict(), escape_html=True))
        return
    from tare.cli.templated import print_templated

    print_templated(session, rows, template, headers)
