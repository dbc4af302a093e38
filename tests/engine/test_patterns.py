"""Regular expressions of filters: Go's syntax, what Python's own engine says, and no pattern that takes for ever."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tare.errors import InvalidArgument
from tare.values.pattern import Pattern, matcher

CATASTROPHIC = (
    "(a+)+$",
    "^(a|a)*$",
    "(a*)*b",
    "([a-z]+)*[0-9]$",
    "(.*)*(.*)*(.*)*x",
    "(a?){60}a{60}b",
    "^(([a-z])+.)+[A-Z]$",
)


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_patterns_that_stall_others(pattern: str) -> None:
    """Patterns with which a backtracking engine needs longer than anybody waits: each a fraction of a second here."""
    began = time.process_time()
    assert not Pattern(pattern).search("a" * 60 + "!")
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "pattern", ["((a{1000}){1000}){1000}", "(a{500}b{500}c{500}d{500}e{500})", "(" * 200 + ")" * 200,
                "((((){1000}){1000}){1000}){1000}"]
)  # fmt: skip
def test_too_large(pattern: str) -> None:
    """What would become too large an automaton, or too deep a tree, is refused."""
    with pytest.raises(InvalidArgument, match=r"too large|too deeply"):
        Pattern(pattern)


def test_too_long() -> None:
    """A filter over many hostile names ends with an error, soon."""
    pattern = Pattern("a[ab]{900}c")
    with pytest.raises(InvalidArgument, match="takes too long"):
        for number in range(10_000):
            pattern.search(f"{number * 2**200 // 7:0900b}".replace("0", "a").replace("1", "b"))


WRONG = (
    "(",
    ")",
    "[a",
    "a**",
    "*a",
    "a{2,1}",
    "a{1001}",
    "\\1",
    "(?=a)",
    "(?<!a)b",
    "\\",
    "[b-a]",
    "(?P<>a)",
    "\\pL",
    "x{1}{2}",
)


@pytest.mark.parametrize("pattern", WRONG)
def test_what_go_refuses(pattern: str) -> None:
    """Look-around, back references and what is plainly wrong; as a filter it matches nothing but itself."""
    with pytest.raises(InvalidArgument, match="error parsing regexp"):
        Pattern(pattern)
    assert not matcher([pattern])("a")
    assert matcher([pattern])(pattern)


CASES = (
    ("^/web$", "/web", True),
    ("^/web$", "/web2", False),
    ("web", "/my-web-1", True),
    ("", "x", True),
    ("w.b", "web", True),
    ("^(one|two)$", "two", True),
    ("^(one|two)$", "twos", False),
    ("(?i)WEB", "web", True),
    ("(?i:W)eb", "web", True),
    ("(?i:W)EB", "web", False),
    ("[[:digit:]]+$", "web-12", True),
    ("[[:^digit:]]", "12", False),
    ("\\d{2,3}$", "a1", False),
    ("\\Qa.b\\E", "a.b", True),
    ("\\Qa.b\\E", "axb", False),
    ("\\bweb\\b", "my-web-1", True),
    ("\\bweb\\b", "myweb", False),
    ("a{,2}", "a{,2}", True),
    ("x{", "x{", True),
    ("[]a]", "]", True),
    ("[^]a]", "]", False),
    ("[a-]", "-", True),
    ("\\x41\\x{42}", "AB", True),
    ("(?P<n>a)b", "ab", True),
    ("(?<n>a)b", "ab", True),
    ("a+?b", "aab", True),
    ("\\A1\\z", "1", True),
    ("[\\w.]+$", "a.b", True),
    ("[^\\d]", "1", False),
    ("a|", "b", True),
    ("(?s).", "\n", True),
    (".", "\n", False),
    ("(?m)^b", "a\nb", True),
    ("^b", "a\nb", False),
    ("[A-Z]", "q", False),
    ("(?i)[A-Z]", "q", True),
    ("\\(?<", "<", True),
)


@pytest.mark.parametrize(("pattern", "text", "expected"), CASES)
def test_meaning(pattern: str, text: str, expected: bool) -> None:
    """Each construct means what it means in Go."""
    assert Pattern(pattern).search(text) is expected


def expressions() -> st.SearchStrategy[str]:
    """Small expressions in what Go and Python have in common."""
    leaf = st.sampled_from(["a", "b", "-", ".", "[ab]", "[^a]", "\\d", "^", "$", "\\b", "1"])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
            inner.map(lambda one: f"({one})*"),
            inner.map(lambda one: f"({one})?"),
            inner.map(lambda one: f"({one}){{1,2}}"),
        ),
        max_leaves=6,
    )


@settings(max_examples=400, deadline=None)
@given(expressions(), st.text("ab1-", max_size=6))
def test_as_pythons(pattern: str, text: str) -> None:
    """Any expression matches what Python's engine finds it in."""
    wanted = re.search(pattern.replace("$", "\\Z"), text) is not None
    assert Pattern(pattern).search(text) is wanted
