"""Prints through --format's template: tables with a header of the template's own fields, rows, single objects."""

from __future__ import annotations

from tare.cli.command import CliError
from tare.cli.gotemplate import GoMap, TemplateError, compile_template
from tare.cli.gotemplate.functions import HEADER_FUNCTIONS
from tare.cli.gotemplate.values import with_go_types
from tare.cli.table import format_table
from tare.cli.visible import acts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from tare.cli.gotemplate import Template
    from tare.cli.listing import Row
    from tare.cli.session import Session

EXIT_TEMPLATE = 64


class _Headers:
    """What a header's template sees: `.ID` is "CONTAINER ID", `.Label "com.example.some-name"` is "some name"."""

    kind = "formatter.SubHeaderContext"
    methods = {"Label": lambda name: name.rpartition(".")[2].replace("-", " ").replace("_", " ")}  # noqa: RUF012

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.fields = {name: (lambda text=text: text) for name, text in headers.items()}


def unescape(template: str) -> str:
    """Users write \\t and \\n between shell quotes."""
    return template.replace("\\t", "\t").replace("\\n", "\n")


def compile_rows(template: str) -> Template:
    try:
        return compile_template(template)
    except TemplateError as error:
        raise CliError(f"failed to parse template: {error}") from None


def print_templated(session: Session, rows: Iterable[Row], template: str, headers: Mapping[str, str]) -> None:
    is_table = template.startswith("table")
    text = template.removeprefix("table") if is_table else template
    compiled = compile_rows(unescape(text.strip(" ")))
    lines = []
    try:
        if is_table:
            lines.append(compiled.render(_Headers(headers), HEADER_FUNCTIONS))
        for row in rows:
            lines.append(compiled.render(row))
    except TemplateError as error:
        raise CliError(f"failed to execute template: {error}") from None
    if not lines:
        return
    show = session.out_as_is if acts(template) else session.out
    if is_table:
        cells = [line.split("\t") for line in "\n".join(lines).split("\n")]
        show(format_table(cells))
    else:
        show("\n".join(lines))


def compile_inspect(template: str) -> Template:
    if template == "json":
        template = "{{json .}}"
    try:
        return compile_template(template)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}", EXIT_TEMPLATE) from None


def render_one(template: str, data: Any) -> str:
    """One object from the API through a template."""
    try:
        return compile_inspect(template).render(with_go_types(data))
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}") from None


__all__ = ["GoMap", "compile_inspect", "compile_rows", "print_templated", "render_one", "unescape"]
