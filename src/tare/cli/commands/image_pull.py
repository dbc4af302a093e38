"""`tare pull`: downloads an image from a registry."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.names import parse_reference
from tare.cli.progress import show_progress
from tare.client.credentials import registry_auth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    if ":" in arguments[0]:
        from tare.cli.far import split_far

        far = split_far(session, arguments[0])
        if far is not None:
            from tare.cli.commands.fetch import fetch

            return fetch(session, far[0], [far[1]], quiet=flags.on("quiet"), only_new=False)
    try:
        reference = parse_reference(arguments[0])
    except ValueError as error:
        raise CliError(str(error)) from None
    everything = flags.on("all-tags")
    if everything and (reference.tag or reference.digest):
        raise CliError("tag can't be used with --all-tags/-a")
    query: dict[str, str | list[str]] = {"fromImage": reference.full}
    if not everything:
        query["tag"] = reference.tag_or_digest
        if not reference.tag and not reference.digest and not flags.on("quiet"):
            session.out("Using default tag: latest")
    if flags["platform"]:
        query["platform"] = flags.text("platform")
    response = session.engine.call("POST", "/images/create", query, headers=registry_auth(reference.full))
    show_progress(response.messages(), quiet=flags.on("quiet"))
    separator = "@" if reference.digest else ":"
    session.out(reference.full + ("" if everything else separator + reference.tag_or_digest))
    return 0


COMMAND = Command(
    "NAME[:TAG|@DIGEST]",
    run,
    (
        Flag("all-tags", "a", "bool", "Download all tags of the repository"),
        Flag("disable-content-trust", "", "bool", "", True),
        Flag("platform", "", "string", "Platform, if the engine has several"),
        Flag("quiet", "q", "bool", "Don't show how it goes"),
    ),
    least=1,
    most=1,
)
