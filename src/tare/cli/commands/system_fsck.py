"""`tare system fsck`: checks all that the engine keeps, and repairs it with --repair."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    """0: all is well, or was repaired. 1: something is wrong."""
    method = "POST" if flags["repair"] else "GET"
    query: dict[str, str | list[str]] = {"contents": "0"} if flags["quick"] else {}
    try:
        response = session.engine.call(method, "/tare/fsck", query)
    except ApiError as error:
        if error.status not in (404, 405):
            raise
        raise CliError("tare: this engine can't check itself (it is not Tare's, or an older one)") from None
    left = 0
    for message in response.messages():
        if "Error" in message:
            raise CliError(f"tare: {message['Error']}")
        if "Finding" in message:
            finding = message["Finding"]
            left += not finding["Repaired"]
            session.out(_line(finding, repairing=bool(flags["repair"])))
        elif "Done" in message:
            session.out(_sum(message["Done"]))
            return 1 if left else 0
    raise CliError("tare: the check broke off")


def _line(finding: dict[str, Any], *, repairing: bool) -> str:
    subject = finding["Subject"].removeprefix("sha256:")
    if len(subject) == 64:
        subject = subject[:12]
    text = f"{finding['Kind']} {subject}: {finding['Problem']}"
    if finding["Repaired"]:
        return f"{text}\n  repaired: {finding['Remedy']}"
    if finding["Remedy"]:
        return f"{text}\n  {'' if repairing else 'with --repair '}{finding['Remedy']}"
    return text


def _sum(done: dict[str, Any]) -> str:
    counts = ", ".join(f"{done[name]} {name.lower()}" for name in ("Layers", "Images", "Containers", "Volumes"))
    if not done["Found"]:
        return f"all is well: {counts} ({done['Seconds']:.1f} s)"
    return f"{done['Found']} found, {done['Repaired']} repaired: {counts} ({done['Seconds']:.1f} s)"


COMMAND = Command(
    "",
    run,
    (
        Flag("quick", "", "bool", "Don't read contents: only look whether all is there"),
        Flag("repair", "", "bool", "Repair what can be repaired"),
    ),
    most=0,
)
