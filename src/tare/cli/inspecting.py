"""Shows things in full: as the engine's own JSON, or through --format; what isn't found is said at the end."""

from __future__ import annotations

from tare.cli.session import container_path, describe, image_path
from tare.cli.visible import acts
from tare.client.engine import quote
from tare.client.errors import ApiError
from tare.client.jsontext import format_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tare.cli.session import Session

INDENT = "    "
FINDERS: dict[str, Callable[[str], str]] = {
    "container": lambda name: container_path(name, "json"),
    "image": lambda name: image_path(name, "json"),
    "network": lambda name: f"/networks/{quote(name)}",
    "volume": lambda name: f"/volumes/{quote(name)}",
}


def inspect_all(
    session: Session,
    names: list[str],
    kinds: list[str],
    template: str,
    size: bool = False,
    query: dict[str, str | list[str]] | None = None,
) -> int:
    """kinds: where to look, in this order."""
    compiled = None
    indent = "" if template == "json" else INDENT
    if template not in ("", "json"):
        from tare.cli.templated import compile_inspect

        compiled = compile_inspect(template)
    shown: list[str] = []
    found: list[Any] = []
    failures: list[str] = []
    for name in names:
        thing = _find(session, name, kinds, size, query, failures)
        if thing is None:
            continue
        if compiled is None:
            found.append(thing)
            continue
        text, failure = _render(compiled, thing)
        if failure:
            failures.append(failure)
        shown.append(text)
    if compiled is None:
        session.out(format_json(found, indent) if found else "[]")
    else:
        out = session.out_as_is if acts(template) else session.out
        out("\n".join(shown))
    for failure in failures:
        session.err(failure)
    return 1 if failures else 0


def _render(compiled: Any, thing: Any) -> tuple[str, str]:
    """(text, error)"""
    from tare.cli.gotemplate import TemplateError
    from tare.cli.gotemplate.values import with_go_types

    try:
        return compiled.render(with_go_types(thing)), ""
    except TemplateError as error:
        return "", f"template parsing error: {error}"


def _find(
    session: Session,
    name: str,
    kinds: list[str],
    size: bool,
    query: dict[str, str | list[str]] | None,
    failures: list[str],
) -> Any:
    for kind in kinds:
        asked: dict[str, str | list[str]] = dict(query or {})
        if size and kind == "container":
            asked["size"] = "1"
        try:
            return session.engine.get(FINDERS[kind](name), asked)
        except ApiError as error:
            if len(kinds) == 1 or error.status not in (404, 400, 501):
                failures.append(describe(error))
                return None
    failures.append(f"Error: No such object: {name}")
    return None
