"""Sizes, ages, moments, tables, references, detach keys: the small words of the command line."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tare.cli.command import CliError
from tare.cli.flagkinds import parse_bytes, parse_duration_ns, parse_int, parse_nano_cpus
from tare.cli.moments import parse_moment
from tare.cli.names import parse_reference
from tare.cli.progress import format_bar, show_progress
from tare.cli.table import format_table
from tare.cli.terminal import DetachFilter, parse_detach_keys
from tare.cli.units import (
    ellipsis,
    format_age,
    format_binary_size,
    format_size,
    go_quote,
    parse_rfc3339,
    unix_seconds,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_ages(seconds: float, words: str) -> None:
    """Ages are put as Docker puts them."""
    assert format_age(seconds) == words


@pytest.mark.parametrize(
    ("size", "four", "three", "binary"),
    [
        (0, "0B", "0B", "0B"),
        (999, "999B", "999B", "999B"),
        (1_000, "1kB", "1kB", "1000B"),
        (1_984_000, "1.984MB", "1.98MB", "1.892MiB"),
        (12_345_678, "12.35MB", "12.3MB", "11.77MiB"),
        (25_276_514_304, "25.28GB", "25.3GB", "23.54GiB"),
        (10**15, "1PB", "1PB", "909.5TiB"),
    ],
)
def test_sizes(size: int, four: str, three: str, binary: str) -> None:
    """Sizes have three or four digits, in powers of 1000 or 1024."""
    assert (format_size(size), format_size(size, 3), format_binary_size(size)) == (four, three, binary)


@given(st.datetimes(min_value=__import__("datetime").datetime(1, 1, 1)))
def test_calendar(moment: __import__("datetime").datetime) -> None:
    """Seconds since 1970 agree with the standard library's for every date."""
    import calendar

    assert unix_seconds(*moment.timetuple()[:6]) == calendar.timegm(moment.timetuple())


def test_rfc3339() -> None:
    """Moments of the API are read to the nanosecond, with their offset."""
    assert parse_rfc3339("2026-11-24T05:50:44.907879958Z") == (1795499444, 907879958)
    assert parse_rfc3339("2026-11-24T07:50:44+02:00") == (1795499444, 0)


def test_since_and_until() -> None:
    """--since takes an age, a date, or seconds; anything else is refused."""
    assert abs(int(parse_moment("1h")) - (time.time() - 3600)) < 3
    assert parse_moment("2020-01-01T00:00:00Z") == "1577836800.000000000"
    assert parse_moment("2020-01-01T02:00:00.5+02:00") == "1577836800.500000000"
    assert parse_moment("1500000000.5") == "1500000000.5"
    with pytest.raises(ValueError, match='failed to parse value as time or duration: "foo"'):
        parse_moment("foo")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1g", 1 << 30), ("5.5m", 5767168), ("5 m", 5 << 20), ("5MiB", 5 << 20), ("7", 7), ("2kb", 2048)],
)
def test_bytes(text: str, value: int) -> None:
    """--memory's sizes are powers of 1024."""
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "-1", "m", "1x", "1_0", "1ib", "0x10"])
def test_bad_bytes(text: str) -> None:
    """What is no size is refused."""
    with pytest.raises(ValueError, match="invalid s"):
        parse_bytes(text)


def test_durations_and_numbers() -> None:
    """Go's durations and integers, with its refusals."""
    assert parse_duration_ns("1h2m3.5s") == 3_723_500_000_000
    assert parse_duration_ns("-1.5ms") == -1_500_000
    assert parse_int("0x10") == 16
    assert parse_int("010") == 8
    assert parse_nano_cpus("1.5") == 1_500_000_000
    for text in ("", "1", "1x", "s"):
        with pytest.raises(ValueError, match="time: "):
            parse_duration_ns(text)
    with pytest.raises(ValueError, match="value out of range"):
        parse_int("70000", "uint16")
    with pytest.raises(ValueError, match="invalid syntax"):
        parse_int("-1", "uint16")


@pytest.mark.parametrize(
    ("text", "full", "shown"),
    [
        ("busybox", "docker.io/library/busybox", "busybox:latest"),
        ("me/base:1", "docker.io/me/base", "me/base:1"),
        ("localhost:5000/x", "localhost:5000/x", "localhost:5000/x:latest"),
        ("reg.io/a/b/c:t", "reg.io/a/b/c", "reg.io/a/b/c:t"),
        ("x@sha256:" + "a" * 64, "docker.io/library/x", "x@sha256:" + "a" * 64),
        ("index.docker.io/library/x", "docker.io/library/x", "x:latest"),
    ],
)
def test_references(text: str, full: str, shown: str) -> None:
    """References get their registry and tag."""
    reference = parse_reference(text)
    assert (reference.full, reference.with_tag()) == (full, shown)


@pytest.mark.parametrize("text", ["", ":", "x:", "x:y:z", "X", "a//b", "-x", "x@y", "x:-", "a" * 64])
def test_bad_references(text: str) -> None:
    """What can't name an image is refused."""
    with pytest.raises(ValueError, match="invalid re"):
        parse_reference(text)


def test_tables() -> None:
    """Columns are as wide as their widest cell and three blanks, at least ten; a line without that cell ends it."""
    rows = [["A", "B", "C"], ["a-long-cell-here", "x", "y"], [""], ["q", "r"]]
    assert format_table(rows) == "\n".join(
        ["A                  B         C", "a-long-cell-here   x         y", "", "q         r"]
    )
    assert ellipsis("0123456789", 5) == "0123…"
    assert go_quote('a"b\n\x01ü\udcff') == '"a\\"b\\n\\x01ü\\xff"'


def test_progress_bars() -> None:
    """A bar shows how much of how much."""
    assert format_bar({}) == ""
    assert format_bar({"current": 500, "total": 1000}) == "[" + "=" * 25 + ">" + " " * 24 + "]      500B/1kB"
    assert format_bar({"current": 1500}) == "   1.5kB"


@given(st.binary(max_size=40), st.lists(st.integers(min_value=1, max_value=5), max_size=20))
def test_detach_keys_pass_everything_else(data: bytes, cuts: list[int]) -> None:
    """Input without the detach keys passes unchanged but for a held-back beginning of them, however it is cut."""
    keys = parse_detach_keys("ctrl-p,ctrl-q")
    if keys in data:
        return
    watch = DetachFilter(keys)
    passed = b""
    rest = data
    for cut in [*cuts, len(data) + 1]:
        piece, rest = rest[:cut], rest[cut:]
        shown = watch(piece)
        assert shown is not None
        passed += shown
    assert data == passed or data == passed + keys[:1]


def test_detach_keys() -> None:
    """The keys are found across pieces; strange ones are refused."""
    watch = DetachFilter(parse_detach_keys(""))
    assert watch(b"ab\x10") == b"ab"
    assert watch(b"\x11") is None
    assert parse_detach_keys("ctrl-a,b,ctrl-@") == b"\x01b\x00"
    with pytest.raises(ValueError, match="foo"):
        parse_detach_keys("foo")


class _Screen:
    """A terminal's stream that keeps what is written."""

    def __init__(self, tty: bool) -> None:
        self.text = ""
        self.tty = tty

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return self.tty


PULL: list[dict[str, Any]] = [
    {"status": "Pulling from library/x", "id": "latest"},
    {"status": "Downloading", "id": "abc", "progressDetail": {"current": 5, "total": 10}},
    {"status": "Download complete", "id": "abc", "progressDetail": {}},
    {"status": "Status: Downloaded newer image for x:latest"},
    {"aux": {"ID": "sha256:1"}},
]


def test_progress_on_a_terminal_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal each layer's line is rewritten in place; elsewhere only what is final is printed, a line each."""
    shown = _Screen(tty=False)
    monkeypatch.setattr("sys.stdout", shown)
    assert show_progress(PULL) == [{"ID": "sha256:1"}]
    assert shown.text == (
        "latest: Pulling from library/x\nabc: Download complete\nStatus: Downloaded newer image for x:latest\n"
    )
    shown = _Screen(tty=True)
    monkeypatch.setattr("sys.stdout", shown)
    show_progress(PULL)
    assert "\x1b[1A\x1b[2K\rabc: Downloading [=" in shown.text
    assert shown.text.count("\n") == 3
    with pytest.raises(CliError, match="no space"):
        show_progress([{"errorDetail": {"message": "no space"}, "error": "no space"}])
