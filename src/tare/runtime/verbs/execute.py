"""`exec`: one more process in a running container."""

from __future__ import annotations

import msgspec

from tare.errors import Conflict, InvalidArgument, KernelError
from tare.oci.runtime_spec import Capabilities, Process, User, parse_process
from tare.runtime.arguments import Arguments, parse_arguments
from tare.runtime.cgroups import detect_hierarchies
from tare.runtime.enter import enter_container
from tare.runtime.plan import build_exec_plan
from tare.runtime.store import ContainerRecord, ContainerStore
from tare.runtime.verbs.console import check_console, relay_terminal, send_terminal, wait_exit
from tare.runtime.verbs.create import write_pid_file

_OPTIONS = {
    "process": True,
    "console-socket": True,
    "pid-file": True,
    "cwd": True,
    "env": True,
    "user": True,
    "additional-gids": True,
    "cap": True,
    "apparmor": True,
    "process-label": True,
    "preserve-fds": True,
    "detach": False,
    "tty": False,
    "no-new-privs": False,
    "no-subreaper": False,
    "ignore-paused": False,
}
_SHORT = {"p": "process", "d": "detach", "t": "tty", "e": "env", "u": "user", "g": "additional-gids", "c": "cap"}


def _numbers(texts: list[str]) -> tuple[int, ...]:
    for text in texts:
        if not text.isdigit():
            raise InvalidArgument(f"invalid id {text!r}")
    return tuple(int(text) for text in texts)


def _with_capabilities(sets: Capabilities | None, names: list[str]) -> Capabilities | None:
    """`--cap` adds to all sets but the inheritable and the ambient one (CVE-2022-29162)."""
    if not names:
        return sets
    sets = sets or Capabilities()
    added = tuple(name if name.startswith("CAP_") else f"CAP_{name}" for name in map(str.upper, names))
    return Capabilities(
        bounding=(*(sets.bounding or ()), *added),
        effective=(*(sets.effective or ()), *added),
        permitted=(*(sets.permitted or ()), *added),
        inheritable=sets.inheritable,
        ambient=sets.ambient,
    )


def _build_process(arguments: Arguments, record: ContainerRecord) -> Process:
    if arguments.get("process"):
        try:
            with open(arguments.get("process"), "rb") as file:
                return parse_process(file.read())
        except OSError as error:
            raise KernelError(error.errno or 5, "open", arguments.get("process")) from error
    own = record.spec.process
    assert own is not None  # build_plan refuses a spec without
    user = own.user
    if arguments.get("user"):
        uid, _, gid = arguments.get("user").partition(":")
        ids = _numbers([uid, gid or str(user.gid)])
        user = User(uid=ids[0], gid=ids[1], umask=user.umask)
    if arguments.all("additional-gids"):
        user = msgspec.structs.replace(user, additional_gids=_numbers(arguments.all("additional-gids")))
    return msgspec.structs.replace(
        own,
        args=tuple(arguments.rest[1:]),
        env=(*(own.env or ()), *arguments.all("env")),
        cwd=arguments.get("cwd") or own.cwd,
        terminal=arguments.has("tty"),
        user=user,
        capabilities=_with_capabilities(own.capabilities, arguments.all("cap")),
        no_new_privileges=own.no_new_privileges or arguments.has("no-new-privs"),
        apparmor_profile=arguments.get("apparmor") or own.apparmor_profile,
        selinux_label=arguments.get("process-label") or own.selinux_label,
    )


def execute(store: ContainerStore, words: list[str]) -> int:
    """Runs a command in a container; without `--detach` it waits, and ends as the command ends."""
    arguments = parse_arguments(words, _OPTIONS, _SHORT)
    record = store.load(arguments.container_id())
    status = store.status(record)
    if status == "stopped":
        raise Conflict("cannot exec in a stopped container")
    if status == "paused" and not arguments.has("ignore-paused"):
        raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
    process = _build_process(arguments, record)
    check_console(process.terminal, arguments.has("detach"), arguments.get("console-socket"))
    plan = build_exec_plan(
        process,
        container_pid=record.pid,
        spec=record.spec,
        container_id=record.id,
        start_ticks=record.start_ticks,
        hierarchies=detect_hierarchies(),
        preserve_fds=_numbers([arguments.get("preserve-fds", "0")])[0],
    )
    created = enter_container(plan)
    if arguments.get("pid-file"):
        write_pid_file(arguments.get("pid-file"), created.pid)
    if created.terminal_fd is not None and arguments.get("console-socket"):
        send_terminal(arguments.get("console-socket"), created.terminal_fd)
    if arguments.has("detach"):
        return 0
    if created.terminal_fd is not None:
        relay_terminal(created.terminal_fd)
    return wait_exit(created.pid)
