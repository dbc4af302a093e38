"""`tare push`: uploads an image to a registry."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.names import parse_reference
from tare.cli.progress import show_progress
from tare.cli.session import image_path
from tare.client.credentials import registry_auth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    if ":" in arguments[0]:
        from tare.cli.far import split_far

        far = split_far(session, arguments[0])
        if far is not None:
            from tare.cli.commands.send import send

            return send(session, [far[1]], far[0], quiet=flags.on("quiet"), only_new=False)
    try:
        reference = parse_reference(arguments[0])
    except ValueError as error:
        raise CliError(str(error)) from None
    everything = flags.on("all-tags")
    if everything and (reference.tag or reference.digest):
        raise CliError("tag can't be used with --all-tags/-a")
    query: dict[str, str | list[str]] = {}
    if not everything:
        query["tag"] = reference.tag or "latest"
        if not reference.tag and not flags.on("quiet"):
            session.out("Using default tag: latest")
    if flags["platform"]:
        from tare.cli.commands.image_rm import parse_platform

        session.require("1.46", "--platform")
        query["platform"] = parse_platform(flags.text("platform"))
    response = session.engine.call(
        "POST", image_path(reference.full, "push"), query, headers=registry_auth(reference.full)
    )
    show_progress(response.messages(), quiet=flags.on("quiet"))
    if flags.on("quiet"):
        session.out(reference.full + ("" if everything else f":{reference.tag or 'latest'}"))
    return 0


COMMAND = Command(
    "NAME[:TAG]",
    run,
    (
        Flag("all-tags", "a", "bool", "Upload all tags of the repository"),
        Flag("disable-content-trust", "", "bool", "", True),
        Flag("platform", "", "string", "Upload only this platform's variant"),
        Flag("quiet", "q", "bool", "Don't show how it goes"),
    ),
    least=1,
    most=1,
)
