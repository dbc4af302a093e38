"""`tare branch`: lists names of versions and the containers that stand on them; makes and removes names."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.flags import check_count
from tare.cli.names import parse_reference
from tare.cli.session import image_path
from tare.cli.versions import ask, short, subject
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    if flags.on("delete"):
        check_count(session.path, COMMAND.usage, 1, None, arguments)
        return session.for_each(arguments, lambda name: session.engine.delete(image_path(full_name(name))))
    if not arguments:
        return show(session)
    check_count(session.path, COMMAND.usage, 2, 2, arguments)
    return make(session, arguments[0], arguments[1], flags.on("force"))


def full_name(name: str) -> str:
    try:
        reference = parse_reference(name)
    except ValueError as error:
        raise CliError(f'"{name}" is not a valid name: {error}') from None
    if reference.digest:
        raise CliError("a branch has no digest")
    return f"{reference.full}:{reference.tag or 'latest'}"


def make(session: Session, name: str, start: str, force: bool) -> int:
    """start: an image, a commit, or a container, which means the version that it stands on."""
    name = full_name(name)
    if not force:
        try:
            there = session.engine.get(image_path(name, "json"))
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            raise CliError(f"{name} is there already, at {short(there['Id'])}: -f moves it")
    repository, _, tag = name.rpartition(":")
    version = start
    try:
        version = session.engine.get(f"/containers/{start}/json")["Image"]
    except ApiError as error:
        if error.status != 404:
            raise
    session.engine.post(image_path(version, "tag"), {"repo": repository, "tag": tag})
    return 0


def show(session: Session) -> int:
    from tare.cli.table import format_table

    standing: dict[str, list[str]] = {}
    for container in session.engine.get("/containers/json", {"all": "1"}) or []:
        standing.setdefault(container["ImageID"], []).append(container["Names"][0].lstrip("/"))
    rows = [["NAME", "VERSION", "CONTAINERS", "MESSAGE"]]
    versions = ask(session, "GET", "/tare/log")
    for version in sorted(versions, key=first_tag):
        containers = ", ".join(sorted(standing.get(version["Id"], [])))
        for tag in version["Tags"] or (["-"] if containers else []):
            rows.append([tag, short(version["Id"]), containers, subject(version)])
    session.out(format_table(rows))
    return 0


def first_tag(version: dict[str, Any]) -> tuple[bool, str]:
    return not version["Tags"], (version["Tags"] or [""])[0]


COMMAND = Command(
    "[NAME IMAGE|COMMIT|CONTAINER]",
    run,
    (
        Flag("delete", "d", "bool", "Remove names"),
        Flag("force", "f", "bool", "Move a name that is there already"),
    ),
)
