"""Names, labels and commands that are no friends of a terminal: `tare` shows them, and they do nothing to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from support.engine import Engine, clean_environment
from support.terminal import Terminal
from tare.cli.visible import acts, visible, visible_cell

EVIL = "a\x1b]0;owned\x07\x1b[2J\rb\x9b31m\u202egnp\x7f\nfake  row"


def shown(tare: Engine, *args: str) -> str:
    """What a terminal of 300 columns gets of a command."""
    argv = [sys.executable, "-m", "tare.cli.main", "-H", f"unix://{tare.socket}", *args]
    with Terminal(argv, cols=300, env=clean_environment()) as terminal:
        terminal.wait()
        return terminal.seen.decode()


@pytest.fixture
def evil(tare: Engine) -> Iterator[str]:
    """A container with such a label, environment and command."""
    body = {"Cmd": ["echo", EVIL], "Labels": {"evil": EVIL}, "Env": [f"EVIL={EVIL}"]}
    yield tare.create(body, name=tare.unique("evil")).json["Id"]


def harmless(text: str) -> None:
    lines = text.replace("\r\n", "\n")
    assert not set(lines) & {"\x1b", "\x07", "\r", "\x9b", "\u202e", "\x7f"}, repr(lines)
    assert "fake  row" not in [line.strip() for line in lines.splitlines()], lines


@pytest.mark.parametrize(
    "args",
    [
        ("ps", "-a", "--no-trunc"),
        ("ps", "-a", "--format", "table {{.Names}}\\t{{.Labels}}"),
        ("ps", "-a", "--format", "json"),
        ("inspect", "CONTAINER"),
        ("events", "--since", "1h", "--until=-1s"),  # whole seconds: now is before what was made just now
        ("why", "CONTAINER"),
    ],
    ids=lambda args: " ".join(args),
)
def test_nothing_acts_on_a_terminal(tare: Engine, evil: str, args: tuple[str, ...]) -> None:
    text = shown(tare, *(evil if arg == "CONTAINER" else arg for arg in args))
    assert "owned" in text or args[0] == "why"
    if args[-1] != "table {{.Names}}\\t{{.Labels}}":
        harmless(text)
    else:
        assert "\x1b" not in text


def test_history_and_errors(tare: Engine) -> None:
    """What an image says of how it was made, and what an error quotes of a name."""
    name = tare.unique("evil")
    container = tare.create({"Cmd": ["true"]}).json["Id"]
    tare.api.request("POST", "/commit", {}, query={"container": container, "repo": name, "comment": EVIL})
    text = shown(tare, "history", "--no-trunc", name)
    assert "\\u001b" in text
    harmless(text)
    harmless(shown(tare, "inspect", EVIL.replace("\n", "")))  # errors may have several lines
    tare.docker("rmi", name)


def test_a_pipe_gets_it_as_it_is(tare: Engine, evil: str) -> None:
    """Programs that read what `tare` prints have what Docker's prints."""
    for tool in (tare.docker, tare.tare_cli):
        assert tool("ps", "-a", "--format", '{{.Label "evil"}}').out == EVIL + "\n"
    found = json.loads(tare.tare_cli("inspect", evil).out)[0]
    assert found["Config"]["Labels"]["evil"] == EVIL


def test_a_template_with_colours_keeps_them(tare: Engine, evil: str) -> None:
    """Who writes control characters into --format wants them."""
    text = shown(tare, "ps", "-a", "--format", "\x1b[1m{{.Names}}\x1b[0m")
    assert "\x1b[1m" in text and "evil" in text


def test_what_is_written_out() -> None:
    assert visible_cell("häß\t\n") == "häß\\u0009\\u000a" and visible("häß\t\n") == "häß\t\n"
    assert json.loads(visible(json.dumps("\x9b\x7f", ensure_ascii=False))) == "\x9b\x7f"
    assert visible(b"\x9b".decode("utf-8", "surrogateescape")) == "\\x9b"
    assert not acts("table {{.ID}}\\t{{.Names}}\\n\t") and acts(r'{{printf "\033"}}') and acts("\x1b")
