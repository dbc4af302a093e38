"""The detach sequence: parsed as Docker does, found across chunks, and never swallowed by mistake."""

from __future__ import annotations

import pytest

from tare.engine.streams import DetachScanner, parse_detach_keys
from tare.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "codes"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,b", b"ab"), ("ctrl-@", b"\0"), ("ctrl-\\,x", b"\x1cx"), ("ctrl-_", b"\x1f")],
)
def test_keys_are_parsed(text: str, codes: bytes) -> None:
    """Letters stand for themselves, ctrl- for control codes."""
    assert parse_detach_keys(text) == codes


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-ab", "shift-a", "", "é", "a,,b"])
def test_wrong_keys_are_refused(text: str) -> None:
    """Anything else is named in the error."""
    with pytest.raises(InvalidArgument, match="detach keys"):
        parse_detach_keys(text)


def feed(chunks: list[bytes]) -> tuple[bytes, bool]:
    """What gets through of some chunks, and whether the sequence was found."""
    scanner, passed = DetachScanner(b"\x10\x11"), b""
    for chunk in chunks:
        data, found = scanner.feed(chunk)
        passed += data
        if found:
            return passed, True
    return passed, False


def test_sequence_is_found_across_chunks() -> None:
    """Typed key by key, the sequence still detaches, and nothing of it reaches the process."""
    assert feed([b"ab\x10", b"\x11cd"]) == (b"ab", True)


def test_broken_sequence_reaches_the_process() -> None:
    """A begun sequence that breaks off is passed on whole."""
    assert feed([b"\x10", b"x"]) == (b"\x10x", False)
    assert feed([b"\x10\x10", b"\x11"]) == (b"\x10", True)


def test_empty_sequence_never_detaches() -> None:
    """No keys, no detaching."""
    assert DetachScanner(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
