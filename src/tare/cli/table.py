"""Aligns columns as Docker's tables do (elastic tab stops: a column is a run of lines that have that cell). Pure."""

from __future__ import annotations

MIN_WIDTH = 10
PADDING = 3


def format_table(rows: list[list[str]], min_width: int = MIN_WIDTH, padding: int = PADDING) -> str:
    """Rows of cells as aligned lines without a last newline."""
    widths: list[list[int]] = [[0] * max(len(row) - 1, 0) for row in rows]
    _measure(rows, widths, 0, len(rows), 0, min_width, padding)
    lines = []
    for row, wide in zip(rows, widths, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, wide, strict=False)]
        lines.append("".join(cells) + (row[-1] if row else ""))
    return "\n".join(lines)


def _measure(
    rows: list[list[str]], widths: list[list[int]], first: int, last: int, column: int, min_width: int, padding: int
) -> None:
    """Sets the width of `column` in rows first..last, and of the columns right of it, block by block."""
    line = first
    while line < last:
        if len(rows[line]) - 1 <= column:
            line += 1
            continue
        end = line
        width, empty = min_width, True
        while end < last and len(rows[end]) - 1 > column:
            cell = rows[end][column]
            width = max(width, len(cell) + padding)
            empty = empty and not cell
            end += 1
        for number in range(line, end):
            widths[number][column] = width
        _measure(rows, widths, line, end, column + 1, min_width, padding)
        line = end
