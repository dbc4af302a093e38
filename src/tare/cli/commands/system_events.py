"""`tare events`: shows what happens in the engine."""

from __future__ import annotations

import sys

from tare.cli.command import FILTER, CliError, Command, Flag, Values
from tare.cli.moments import parse_moment
from tare.cli.visible import acts, visible_cell
from tare.client.engine import format_filters
from tare.client.jsontext import format_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tare.cli.session import Session


def event_line(event: dict[str, Any]) -> str:
    """2026-11-24T05:50:18.179896285Z container start 8272… (image=busybox, name=x)"""
    from tare.cli.units import format_local_rfc3339

    if event.get("timeNano"):
        moment = format_local_rfc3339(event["timeNano"] // 1_000_000_000)
        moment = f"{moment[:19]}.{event['timeNano'] % 1_000_000_000:09}{moment[19:]}"
    else:
        moment = format_local_rfc3339(event.get("time", 0))
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    tail = ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes))
    line = f"{moment} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    return f"{line} ({tail})" if attributes else line


# Names of the fields in templates, where they differ from JSON's.
TEMPLATE_NAMES = {
    "scope": "Scope",
    "time": "Time",
    "timeNano": "TimeNano",
    "status": "Status",
    "id": "ID",
    "from": "From",
}


def template_view(event: dict[str, Any]) -> Any:
    from tare.cli.gotemplate.values import GoMap
    from tare.cli.listing import Row

    actor = dict(event.get("Actor") or {})
    actor["Attributes"] = GoMap(actor.get("Attributes") or {})
    values = {TEMPLATE_NAMES.get(name, name): value for name, value in {**event, "Actor": actor}.items()}
    return Row("*events.Message", {name: _constant(value) for name, value in values.items()})


def _constant(value: object) -> Callable[[], object]:
    return lambda: value


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    query: dict[str, str | list[str]] = {}
    for name in ("since", "until"):
        if flags[name]:
            try:
                query[name] = parse_moment(flags.text(name))
            except ValueError as error:
                raise CliError(str(error)) from None
    filters = [item for item in flags.items("filter") if item]
    if filters:
        query["filters"] = format_filters(filters)
    template = flags.text("format")
    show = _printer(template)
    out = session.out_as_is if acts(template) else session.out
    one_line = not template and sys.stdout.isatty()
    for event in session.engine.call("GET", "/events", query).messages():
        out(visible_cell(show(event)) if one_line else show(event))
        sys.stdout.flush()
    return 0


def _printer(template: str) -> Callable[[dict[str, Any]], str]:
    if not template:
        return event_line
    if template in ("json", "{{json .}}"):
        return format_json
    from tare.cli.gotemplate import TemplateError, compile_template

    try:
        compiled = compile_template(template)
    except TemplateError as error:
        raise CliError(f"Error parsing format: {error}", 64) from None

    def show(event: dict[str, Any]) -> str:
        try:
            return compiled.render(template_view(event))
        except TemplateError as error:
            raise CliError(f"Error parsing format: {error}", 64) from None

    return show


COMMAND = Command(
    "",
    run,
    (
        FILTER,
        Flag("format", "", "string", "Show it through a Go template, or 'json'", ""),
        Flag("since", "", "string", "Show what happened since then"),
        Flag("until", "", "string", "Stop then"),
    ),
    most=0,
)
