"""Makes a container for run and create: the body, the image (pulled if it is missing), the id file, the warnings."""

from __future__ import annotations

import os

from tare.cli.command import CliError
from tare.cli.create.body import container_body
from tare.cli.names import Reference, parse_reference
from tare.cli.terminal import terminal_size
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.command import Values
    from tare.cli.session import Session

EXIT_ENGINE = 125
PULL_POLICIES = ("always", "missing", "never")


class Created:
    __slots__ = ("body", "id")

    def __init__(self, identity: str, body: dict[str, Any]) -> None:
        self.id = identity
        self.body = body


def create_container(session: Session, flags: Values, arguments: list[str], code: int) -> Created:
    """Make the container that the flags describe. code: how the command ends if that fails (bad flags always: 125)."""
    image, command = arguments[0], arguments[1:]
    if flags["pull"] not in PULL_POLICIES:
        raise CliError(
            f'invalid pull option: \'{flags["pull"]}\': must be one of "always", "missing" or "never"',
            EXIT_ENGINE,
            prefix=True,
        )
    try:
        body = container_body(flags, image, command)
    except ValueError as error:
        raise CliError(str(error), EXIT_ENGINE, prefix=True) from None
    body["HostConfig"]["ConsoleSize"] = list(terminal_size())
    id_file = flags.text("cidfile")
    if id_file and os.path.lexists(id_file):
        raise CliError(
            f"container ID file found, make sure the other container isn't running or delete {id_file}",
            code,
            prefix=code != 1,
        )
    if flags.on("use-api-socket"):
        add_api_socket(session, body)
    query: dict[str, str | list[str]] = {}
    if flags["name"]:
        query["name"] = flags.text("name")
    if flags["platform"]:
        query["platform"] = flags.text("platform")
    reference = _reference_of(image, code)
    if flags["pull"] == "always" and reference is not None:
        pull_image(session, reference, flags)
    answer = _post(session, query, body, reference, flags)
    for warning in answer.get("Warnings") or []:
        session.err(f"WARNING: {warning}")
    if id_file:
        with open(id_file, "x", encoding="ascii") as file:
            file.write(answer["Id"])
    return Created(answer["Id"], body)


def _reference_of(image: str, code: int) -> Reference | None:
    """None for an image id, which can't be pulled."""
    hexadecimal = image.removeprefix("sha256:")
    if len(hexadecimal) == 64 and not set(hexadecimal) - set("0123456789abcdef"):
        return None
    try:
        return parse_reference(image)
    except ValueError as error:
        raise CliError(str(error), code, prefix=code != 1) from None


def _post(
    session: Session,
    query: dict[str, str | list[str]],
    body: dict[str, Any],
    reference: Reference | None,
    flags: Values,
) -> dict[str, Any]:
    answer: dict[str, Any]
    try:
        answer = session.engine.post("/containers/create", query, body)
        return answer
    except ApiError as error:
        missing = error.status == 404 and "no such image" in error.message.lower()
        if not missing or reference is None or flags["pull"] != "missing":
            raise
    if not flags.on("quiet"):
        session.err(f"Unable to find image '{reference.with_tag()}' locally")
    pull_image(session, reference, flags)
    answer = session.engine.post("/containers/create", query, body)
    return answer


def pull_image(session: Session, reference: Reference, flags: Values) -> None:
    from tare.cli.progress import show_progress
    from tare.client.credentials import registry_auth

    query: dict[str, str | list[str]] = {"fromImage": reference.full, "tag": reference.tag_or_digest}
    if flags["platform"]:
        query["platform"] = flags.text("platform")
    response = session.engine.call("POST", "/images/create", query, headers=registry_auth(reference.full))
    show_progress(response.messages(), to_stderr=True, quiet=flags.on("quiet"))


def add_api_socket(session: Session, body: dict[str, Any]) -> None:
    host = session.engine.host
    if not host.unix:
        raise CliError("--use-api-socket needs an engine on a unix socket", EXIT_ENGINE, prefix=True)
    mount = {"Type": "bind", "Source": host.target, "Target": "/var/run/docker.sock", "BindOptions": {}}
    body["HostConfig"].setdefault("Mounts", []).append(mount)
