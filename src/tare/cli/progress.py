"""Shows the engine's progress messages (pull, push, import, load): lines that update in place on a terminal."""

from __future__ import annotations

import sys

from tare.cli.command import CliError
from tare.cli.units import format_size
from tare.cli.visible import visible, visible_cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

BAR_WIDTH = 50


def show_progress(messages: Iterable[dict[str, Any]], to_stderr: bool = False, quiet: bool = False) -> list[Any]:
    """Print messages until they end; returns their `aux` values. An error among them ends the command."""
    stream = sys.stderr if to_stderr else sys.stdout
    live = stream.isatty()
    places: dict[str, int] = {}
    found = []
    for message in messages:
        if message.get("error") or message.get("errorDetail"):
            text = message.get("error") or message["errorDetail"].get("message", "")
            stream.flush()
            raise CliError(text)
        if "aux" in message:
            found.append(message["aux"])
            continue
        if quiet:
            continue
        if live and message.get("id") and message.get("status") is not None:
            _update(stream, message, places)
        elif not message.get("progressDetail", {}).get("current") or not message.get("id"):
            stream.write(_shown(_plain(message), live))
        stream.flush()
    return found


def _plain(message: dict[str, Any]) -> str:
    if "stream" in message:
        return str(message["stream"])
    prefix = f"{message['id']}: " if message.get("id") else ""
    return f"{prefix}{message.get('status', '')}\n"


def _shown(text: str, live: bool) -> str:
    return visible(text) if live else text


def _update(stream: Any, message: dict[str, Any], places: dict[str, int]) -> None:
    identity, status = (visible_cell(str(message[name])) for name in ("id", "status"))
    if identity not in places:
        places[identity] = len(places)
        stream.write("\n")
    up = len(places) - places[identity]
    bar = format_bar(message.get("progressDetail") or {})
    stream.write(f"\x1b[{up}A\x1b[2K\r{identity}: {status} {bar}".rstrip() + f"\x1b[{up}B\r")


def format_bar(detail: dict[str, Any]) -> str:
    """[==>      ]  1.2MB/3.4MB"""
    current, total = detail.get("current", 0), detail.get("total", 0)
    if not current and not total:
        return ""
    if total <= 0:
        if detail.get("units"):
            return f"{current} {detail['units']}"
        return f"{format_size(current):>8}"
    filled = min(int(current / total * BAR_WIDTH), BAR_WIDTH)
    arrow = "=" * filled + (">" if filled < BAR_WIDTH else "") + " " * (BAR_WIDTH - filled - 1)
    return f"[{arrow}]  {format_size(current):>8}/{format_size(total)}"
