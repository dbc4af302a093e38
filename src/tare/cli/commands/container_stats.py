"""`tare stats`: shows what containers use, live."""

from __future__ import annotations

import sys
import time

from tare.cli.command import FORMAT_TABLE, Command, Flag, Values
from tare.cli.listing import print_rows
from tare.cli.session import container_path
from tare.cli.usage import COLUMNS, HEADERS, stats_row
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


PAUSE_S = 0.5  # between looks for containers while none runs
CLEAR = "\x1b[H\x1b[J"


def running_names(session: Session, everything: bool) -> list[str]:
    query: dict[str, str | list[str]] = {"all": "1"} if everything else {}
    return [item["Id"] for item in session.engine.get("/containers/json", query) or []]


def sample(session: Session, names: list[str], chosen: bool) -> list[tuple[str, dict[str, Any]]]:
    """One reading of each container; those that have gone meanwhile are left out, unless the user named them."""
    calls: list[tuple[str, dict[str, str | list[str]]]] = [
        (container_path(name, "stats"), {"stream": "0"}) for name in names
    ]
    found = []
    for name, answer in zip(names, session.engine.get_all(calls), strict=True):
        if isinstance(answer, ApiError):
            if chosen or answer.status != 404:
                raise answer
            continue
        found.append((name, answer))
    return found


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    full = flags.on("no-trunc")
    once = flags.on("no-stream")
    clear = not once and sys.stdout.isatty()
    while True:
        names = arguments or running_names(session, flags.on("all"))
        readings = sample(session, names, bool(arguments))
        if clear:
            sys.stdout.write(CLEAR)
        rows = [stats_row(name if arguments else name[:12], reading, full) for name, reading in readings]
        print_rows(session, rows, flags.text("format"), COLUMNS, HEADERS)
        sys.stdout.flush()
        if once:
            return 0
        if not readings:
            time.sleep(PAUSE_S)


COMMAND = Command(
    "[CONTAINER...]",
    run,
    (
        Flag("all", "a", "bool", "Show all containers, not just the running ones"),
        FORMAT_TABLE,
        Flag("no-stream", "", "bool", "Show one reading and end"),
        Flag("no-trunc", "", "bool", "Show everything in full length"),
    ),
)
