"""`tare move`: carries a container with all that is its own to another engine, and starts it there if it ran."""

from __future__ import annotations

import os

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.far import far_engine
from tare.cli.flags import check_count
from tare.cli.moving import Moved, Wishes, give_up, move
from tare.cli.session import container_path
from tare.cli.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    check_count(session.path, COMMAND.usage, 1 if flags.on("abort") else 2, 2, arguments)
    ref, source = arguments[0], session.engine
    if flags.on("abort"):
        status = give_up(source, far_engine(arguments[1]) if len(arguments) == 2 else None, ref)
        session.out(f"{ref} stays: {status}")
        return 0
    if flags.on("stop") and flags.on("pause"):
        raise CliError("--stop and --pause exclude each other")
    forced = {kind for kind, name in (("bind", "force-binds"), ("host", "force-host")) if flags.on(name)}
    copy = _copy_name(flags, ref)
    how = "stop" if flags.on("stop") else "pause" if flags.on("pause") else ""
    thaw = False
    if not how or copy:
        how, thaw = _hold(session, ref, how, bool(copy))
    wishes = Wishes(how, copy, not flags.on("no-volumes"), forced, flags.on("quiet"))
    try:
        done = move(source, far_engine(arguments[1]), ref, wishes)
    finally:
        if thaw:
            source.call("POST", container_path(ref, "unpause"))
    if flags.on("quiet"):
        session.out(done.id)
    else:
        session.out(_describe(done, ref, arguments[1], bool(copy)))
    return 0


def _copy_name(flags: Values, ref: str) -> str:
    if flags.text("name") and not flags.on("copy"):
        raise CliError("--name is for --copy: a container that moves keeps its name")
    return (flags.text("name") or ref) if flags.on("copy") else ""


def _hold(session: Session, ref: str, how: str, copy: bool) -> tuple[str, bool]:
    """What to do with one that runs: asked for on a terminal. A copy's source is frozen for it, then goes on."""
    from tare.client.errors import ApiError

    try:
        status = session.engine.get(container_path(ref, "json"))["State"]["Status"]
    except ApiError as error:
        if error.status != 404:
            raise
        return "", False  # gone already, or never there: the move tells
    if status != "running":
        return "", False
    if copy:
        if how == "stop":
            raise CliError("--copy leaves the container running: it is paused for it")
        session.engine.call("POST", container_path(ref, "pause"))
        return "", True
    if os.isatty(0) and session.confirm(f"{ref} runs. Stop it, and start it again over there?"):
        return "stop", False
    raise CliError(f"{ref} runs: --stop stops it first, --pause freezes it; either way it is started anew over there")


def _describe(done: Moved, ref: str, host: str, copied: bool) -> str:
    word = "Copied" if copied else "Moved"
    state = "runs" if done.running else "is stopped"
    lines = [f"{word} {ref} to {host}: {format_size(done.size)}; {done.name} ({done.id[:12]}) {state} there"]
    if done.networks:
        lines.append(f"Made there: {', '.join(f'network {name}' for name in done.networks)}")
    if done.volumes and not copied:
        lines.append(f"Left here, too: {', '.join(f'volume {name}' for name in done.volumes)}")
    return "\n".join(lines)


COMMAND = Command(
    "CONTAINER HOST | --abort CONTAINER [HOST]",
    run,
    (
        Flag("abort", "", "bool", "Give a move up that was cut: the container stays, as it was before"),
        Flag("copy", "", "bool", "Leave the container here, and make another of the same kind there"),
        Flag("force-binds", "", "bool", "Also with bind mounts: their paths are those of the other host"),
        Flag("force-host", "", "bool", "Also with devices and other settings that name things of this host"),
        Flag("name", "", "string", "The copy's name", ""),
        Flag("no-volumes", "", "bool", "Leave the volumes' files behind"),
        Flag("pause", "", "bool", "Freeze a running container while it travels"),
        Flag("quiet", "q", "bool", "Only print the container's id"),
        Flag("stop", "", "bool", "Stop a running container first"),
    ),
)
