"""The lines of `tare log --graph`. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from tare.cli.commands.log import graph_lines


def version(identity: str, parent: str = "") -> dict[str, Any]:
    return {
        "Id": identity,
        "Parent": parent,
        "Tags": [],
        "Author": "",
        "Message": "",
        "CreatedBy": "",
        "Created": "2026-01-01T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("versions", "lines"),
    [
        (["a"], ["* a"]),
        (["b<a", "a"], ["* b", "* a"]),
        (["c<a", "b<a", "a"], ["* c", "| * b", "|/", "* a"]),
        (["d<a", "c<a", "b<a", "a"], ["* d", "| * c", "| | * b", "|_|/", "|/", "* a"]),
        (["c<a", "d<b", "b<a", "a"], ["* c", "| * d", "| * b", "|/", "* a"]),
        (["x<p", "y<q", "z<p", "p", "q"], ["* x", "| * y", "| | * z", "|_|/", "* | p", " /", "* q"]),
        (["r", "s"], ["* r", "* s"]),
        (["b<gone"], ["* b"]),
    ],
)
def test_graph(versions: list[str], lines: list[str]) -> None:
    """Branches run beside each other and join at the version that they come from."""
    found = [version(*text.split("<")) for text in versions]
    assert [line.partition(" — ")[0].rstrip() for line in graph_lines(found)] == lines
