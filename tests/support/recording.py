"""A pytest plugin that writes what a run's passed tests exercised on which engine: operations, flags; changes nothing.

    TARE_RECORD=build/compatibility.json pytest …

scripts/compatibility.py makes docs/compatibility.md of it.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support import engine, rawhttp
from support.openapi import find_operation, specification

REFERENCE = Path(__file__).parent.parent / "data" / "cli-reference.tsv"
REFUSAL = re.compile(r"[^\n\"]*(?:not (?:supported|implemented) (?:by Tare|yet)|unknown (?:shorthand )?flag)[^\n\"]*")
# What a short command of the official client stands for.
SHORT = {
    "ps": "container ls", "images": "image ls", "rmi": "image rm", "events": "system events", "info": "system info",
    "load": "image load", "save": "image save", "history": "image history", "import": "image import",
    "tag": "image tag", "build": "image build", "pull": "image pull", "push": "image push",
}  # fmt: skip

_seen: list[tuple[str, str, str, str]] = []
"""(kind, what, engine, refusal) of the test that runs."""
_record: dict[str, dict[str, Any]] = {"operations": {}, "flags": {}, "tests": {}}


@functools.cache
def flags_of_commands() -> dict[str, dict[str, tuple[str, bool]]]:
    """{"container run": {"-d": ("--detach", takes a value)}} of the official client."""
    made: dict[str, dict[str, tuple[str, bool]]] = {}
    with REFERENCE.open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            flags = made.setdefault(row["command"].removeprefix("docker").strip(), {})
            for name in filter(None, (row["flag"], row["shorthand"])):
                flags[name] = (row["flag"], row["type"] not in ("bool", ""))
    return made


def parse_command(argv: Sequence[str]) -> tuple[str, list[str]] | None:
    """(command, its flags in their long form) of a client's command line; None if it is no command known."""
    words = list(argv)
    top = flags_of_commands().get("", {})
    while words and words[0].startswith("-"):
        flag = words.pop(0).split("=", 1)[0]
        if top.get(flag, ("", True))[1] and words:
            words.pop(0)
    commands = flags_of_commands()
    for count in (3, 2, 1):
        name = " ".join(words[:count])
        for candidate in (name, SHORT.get(name, ""), f"container {name}" if count == 1 else ""):
            if candidate and candidate in commands:
                return candidate, _flags(commands[candidate], words[count:])
    return None


def _flags(known: dict[str, tuple[str, bool]], words: list[str]) -> list[str]:
    """The flags before the first argument."""
    found = []
    while words and words[0].startswith("-") and words[0] != "--":
        word = words.pop(0)
        name, _, value = word.partition("=")
        if not name.startswith("--") and len(name) > 2 and name[:2] in known:
            bundle = [f"-{letter}" for letter in name[1:]]
            if not known[name[:2]][1] and all(one in known for one in bundle):
                found += [known[one][0] for one in bundle]
                if known[bundle[-1]][1] and not value and words:
                    words.pop(0)
            else:
                found.append(known[name[:2]][0])  # its value is stuck to it
            continue
        long, takes = known.get(name, (name, False))
        found.append(long)
        if takes and not value and "=" not in word and words:
            words.pop(0)
    return found


def _name(socket: str) -> str:
    return "docker" if "docker" in Path(socket).name else "tare"


def on_answer(socket: str, method: str, path: str, status: int, body: bytes) -> None:
    """An API's answer: only what worked counts, and what is refused."""
    found = find_operation(method, path)
    if found is None:
        return
    operation = specification()["paths"][found[0]][method.lower()]["operationId"]
    if status < 400:
        _seen.append(("operations", operation, _name(socket), ""))
    elif status in (501, 503):  # not implemented; not while this is no swarm manager
        try:
            refusal = str(json.loads(body)["message"])
        except (ValueError, KeyError, TypeError):
            return
        _seen.append(("operations", operation, _name(socket), refusal))


def on_command(argv: Sequence[str], code: int | None, error: str) -> None:
    """A client's command: its flags, and whether it was refused for one."""
    words = list(argv)
    own = "tare.cli.main" in words
    at = words.index("tare.cli.main") if own else next((i for i, w in enumerate(words) if w.endswith("docker")), -1)
    if at < 0:
        return
    socket = next((word for word in words if word.startswith("unix://")), "tare")
    parsed = parse_command(words[at + 1 :])
    if parsed is None:
        return
    refusal = REFUSAL.search(error) if code else None
    column = f"{'tare' if own else 'docker'} on {_name(socket)}"
    for flag in ["", *parsed[1]]:
        said = refusal.group().strip() if refusal else ""
        about_a_flag = "flag: " in said
        text = said if (flag in said if flag else not about_a_flag) else ""
        _seen.append(("flags", f"{parsed[0]} {flag}".strip(), column, text))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Begins anew for each test."""
    _seen.clear()
    yield


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Takes over what was seen, if the test passed."""
    if report.when != "call" and not (report.when == "setup" and report.skipped):
        return
    outcome: str = report.outcome
    why = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
    _record["tests"][report.nodeid] = outcome + (f": {why}" if why else "")
    if outcome != "passed":
        return
    for kind, what, column, refusal in dict.fromkeys(_seen):
        entry = _record[kind].setdefault(what, {}).setdefault(column, {"tests": 0, "example": report.nodeid})
        if refusal:
            entry.setdefault("refused", refusal)
        else:
            entry["tests"] += 1


def pytest_configure(config: pytest.Config) -> None:
    rawhttp.observers.append(on_answer)
    engine.observers.append(on_command)


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = os.environ.get("TARE_RECORD")
    if target:
        path = Path(session.config.rootpath) / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_record, indent=1, sort_keys=True) + "\n")
