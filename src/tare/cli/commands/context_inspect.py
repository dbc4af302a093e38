"""`tare context inspect`: shows all that is known about contexts, but for the contents of TLS files."""

from __future__ import annotations

from tare.cli.command import FORMAT_INSPECT, Command, Values
from tare.cli.contextual import current_name, find
from tare.client.contexts import Context, meta_directory, tls_directory
from tare.client.jsontext import format_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session

IN_MEMORY = "<IN MEMORY>"


def describe_context(context: Context) -> dict[str, object]:
    implicit = context.name == "default"
    document: dict[str, object] = context.to_document()
    if implicit:
        document["Metadata"] = {}
    document["TLSMaterial"] = {"docker": sorted(context.tls)} if context.tls else {}
    document["Storage"] = {
        "MetadataPath": IN_MEMORY if implicit else meta_directory(context.name),
        "TLSPath": IN_MEMORY if implicit else tls_directory(context.name),
    }
    return document


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    template = flags.text("format")
    found, failures = [], []
    for name in arguments or [current_name(session)]:
        try:
            found.append(describe_context(find(session, name)))
        except Exception as error:
            failures.append(str(error))
    if template not in ("", "json"):
        from tare.cli.gotemplate.values import with_go_types
        from tare.cli.templated import compile_inspect

        compiled = compile_inspect(template)
        for document in found:
            session.out(compiled.render(with_go_types(document)))
    elif template == "json":
        session.out(format_json(found, escape_html=True))
    else:
        session.out(format_json(found, "    ", escape_html=True) if found else "[]")
    for failure in failures:
        session.err(failure)
    return 1 if failures else 0


COMMAND = Command("[CONTEXT...]", run, (FORMAT_INSPECT,))
