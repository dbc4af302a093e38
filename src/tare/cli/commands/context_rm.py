"""`tare context rm`: removes contexts."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.contextual import current_name
from tare.client.config_file import read_config, write_config_key
from tare.client.contexts import exists, remove_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    failures = []
    for name in arguments:
        failure = remove(name, current_name(session), flags.on("force"))
        if failure:
            failures.append(failure)
        else:
            session.out(name)
    for failure in failures:
        session.err(failure)
    return 1 if failures else 0


def remove(name: str, current: str, force: bool) -> str:
    """What is wrong, or ""."""
    if name == "default":
        return 'context "default" cannot be removed'
    if not exists(name):
        return "" if force else f'context "{name}" does not exist'
    if name == current and not force:
        return f'context "{name}" is in use, set -f flag to force remove'
    if read_config().get("currentContext") == name:
        write_config_key("currentContext", None)
    remove_context(name)
    return ""


COMMAND = Command(
    "CONTEXT [CONTEXT...]",
    run,
    (Flag("force", "f", "bool", "Also remove one that is in use; don't complain about one that isn't there"),),
    least=1,
)
