"""Lists in pages: whole, in order, and stable while things come and go."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.engine import Engine
from tare.api.call import Call
from tare.api.pages import HEADER, Page, format_cursor, parse_cursor
from tare.errors import InvalidArgument


def call(**query: str) -> Call:
    """A call with just a query."""
    return Call(None, None, (1, 55), {}, query, {})  # type: ignore[arg-type]


@given(st.data(), st.integers(1, 5), st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
@settings(max_examples=100, deadline=None)
def test_what_stays_is_seen_once(data: st.DataObject, limit: int, staying: set[int], moving: set[int]) -> None:
    """Whatever comes and goes between two pages, what is there all the time is seen exactly once, in order."""
    seen: list[int] = []
    cursor = ""
    for _ in range(200):
        here = staying | data.draw(st.sets(st.sampled_from(sorted(moving)))) if moving else staying
        page = Page(call(cursor=cursor, limit=str(limit)))
        got = page.cut(here, lambda number: (-number, str(number)))
        assert len(got) <= limit
        seen += got
        cursor = page.headers.get(HEADER, "")
        if not cursor:
            break
    assert seen == sorted(set(seen), reverse=True)
    assert set(seen) >= staying


def test_without_a_cursor_nothing_changes() -> None:
    """Docker's form gives everything, as it comes, and no header."""
    page = Page(call(limit="2"))
    assert page.cut([3, 1, 2], lambda number: (number, "")) == [3, 1, 2] and not page.headers


@given(st.integers(-(2**62), 2**62), st.text())
def test_cursors_keep_their_place(rank: int, name: str) -> None:
    """A cursor survives the way to the client and back."""
    assert parse_cursor(format_cursor((rank, name))) == (rank, name)


@pytest.mark.parametrize("query", [{"cursor": "x"}, {"cursor": "W10"}, {"cursor": "é"}, {"cursor": "", "limit": "0"}])
def test_wrong_arguments_are_refused(query: dict[str, str]) -> None:
    """A cursor that isn't one, or a limit out of range."""
    with pytest.raises(InvalidArgument):
        Page(call(**query))


def walk(engine: Engine, path: str, pick: Any, **query: str) -> list[str]:
    """A whole list in pages of two."""
    found: list[str] = []
    cursor = ""
    for _ in itertools.count():
        answer = engine.api.request("GET", path, query={"cursor": cursor, "limit": "2", **query})
        assert answer.status == 200
        names = pick(answer.json)
        assert len(names) <= 2
        found += names
        cursor = answer.headers.get(HEADER.lower(), "")
        if not cursor:
            return found
    raise AssertionError


def test_all_four_lists(tare: Engine) -> None:
    """Containers, images, volumes and networks come whole in pages, in the order of the plain list where it has one."""
    made = [tare.docker("create", tare.image).out.strip() for _ in range(5)]
    tags = [tare.unique("image") for _ in range(3)]
    for tag in tags:
        tare.docker("commit", "-m", tag, made[0], tag)
    volumes = [tare.docker("volume", "create", tare.unique("vol")).out.strip() for _ in range(3)]
    assert walk(tare, "/containers/json", lambda rows: [row["Id"] for row in rows], all="1") == made[::-1]
    assert walk(tare, "/containers/json", lambda rows: [row["Id"] for row in rows]) == []
    plain = [row["Id"] for row in tare.api.request("GET", "/images/json").json]
    assert walk(tare, "/images/json", lambda rows: [row["Id"] for row in rows]) == plain
    listed = walk(tare, "/volumes", lambda found: [row["Name"] for row in found["Volumes"]])
    assert listed == sorted(listed) and set(volumes) <= set(listed)
    names = walk(tare, "/networks", lambda rows: [row["Name"] for row in rows])
    assert sorted(names) == sorted(row["Name"] for row in tare.api.request("GET", "/networks").json)
    tare.docker("rmi", *tags)
    tare.docker("volume", "rm", *volumes)


def test_limit_alone_is_dockers(tare: Engine) -> None:
    """`limit` without `cursor` gives the newest, running or not, as Docker does, and no cursor."""
    made = [tare.docker("create", tare.image).out.strip() for _ in range(3)]
    answer = tare.api.request("GET", "/containers/json?limit=2")
    assert [row["Id"] for row in answer.json] == made[:0:-1] and HEADER.lower() not in answer.headers
