"""`create`, `start` and `run`: from a bundle to a running container."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime

import msgspec

from tare.errors import Conflict, InvalidArgument, KernelError, NotFound
from tare.oci.runtime_spec import Linux, Spec, State, parse_spec
from tare.runtime.arguments import Arguments, parse_arguments
from tare.runtime.cgroups import detect_hierarchies, open_cgroup
from tare.runtime.create import Created, create_container
from tare.runtime.hooks import plan_hooks, run_hooks
from tare.runtime.plan import build_plan
from tare.runtime.store import GATE_NAME, ContainerRecord, ContainerStore, read_stat
from tare.runtime.verbs.console import check_console, relay_terminal, send_terminal, wait_exit
from tare.runtime.verbs.delete import destroy

_OPTIONS = {
    "bundle": True,
    "console-socket": True,
    "pid-file": True,
    "no-pivot": False,
    "no-new-keyring": False,
    "preserve-fds": True,
    "detach": False,
    "keep": False,
    "no-subreaper": False,
    "init": False,
}
_SHORT = {"b": "bundle", "d": "detach"}


def read_bundle(bundle: str) -> Spec:
    """The spec of a bundle, with a cgroup path that is absolute."""
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            spec = parse_spec(file.read())
    except FileNotFoundError:
        raise NotFound(f"JSON specification file {path} not found") from None
    except OSError as error:
        raise KernelError(error.errno or 5, "open", path) from error
    return spec


def _with_cgroup(spec: Spec, container_id: str) -> Spec:
    linux = spec.linux or Linux()
    path = linux.cgroups_path or f"/tare-runtime/{container_id}"
    if path.count(":") == 2 and not path.startswith("/"):
        raise InvalidArgument(f"cgroupsPath {path!r} is for systemd's driver, which was not asked for")
    path = "/" + path.strip("/")
    return msgspec.structs.replace(spec, linux=msgspec.structs.replace(linux, cgroups_path=path))


def _count(text: str) -> int:
    if not text.isdigit() or int(text) > 1024:
        raise InvalidArgument(f"invalid value {text!r} of --preserve-fds")
    return int(text)


def write_pid_file(path: str, pid: int) -> None:
    """Writes a pid file aside and renames it, so that its reader never sees half of it."""
    directory, _, name = path.rpartition("/")
    temporary = f"{directory or '.'}/.{name}"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(str(pid))
    os.rename(temporary, path)


def _create(store: ContainerStore, arguments: Arguments, held: bool) -> tuple[ContainerRecord, Created]:
    container_id = arguments.only_container_id()
    bundle = os.path.abspath(arguments.get("bundle", "."))
    spec = _with_cgroup(read_bundle(bundle), container_id)
    check_console(
        spec.process is not None and spec.process.terminal,
        held or arguments.has("detach"),
        arguments.get("console-socket"),
    )
    plan = build_plan(
        spec,
        container_id=container_id,
        hierarchies=detect_hierarchies(),
        bundle=bundle,
        init=arguments.has("init"),
        pivot=not arguments.has("no-pivot"),
        preserve_fds=_count(arguments.get("preserve-fds", "0")),
    )
    directory = store.reserve(container_id)
    created: Created | None = None
    try:
        store.note_cgroup(container_id, plan.cgroup)
        gate_fd = None
        if held:
            os.mkfifo(f"{directory}/{GATE_NAME}", 0o600)
            # Read and write: it opens at once, and init never sees an end of file while nobody has it open.
            gate_fd = os.open(f"{directory}/{GATE_NAME}", os.O_RDWR | os.O_CLOEXEC)
        created = create_container(plan, gate_fd=gate_fd)
        if created.terminal_fd is not None and arguments.get("console-socket"):
            send_terminal(arguments.get("console-socket"), created.terminal_fd)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ticks = read_stat(created.pid)[1]
        record = ContainerRecord(container_id, bundle, created.pid, ticks, now, plan.cgroup, spec)
        store.save(record)
        if arguments.get("pid-file"):
            write_pid_file(arguments.get("pid-file"), created.pid)
        return record, created
    except BaseException:
        if created is not None:
            try:
                os.kill(created.pid, signal.SIGKILL)
                os.waitpid(created.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            open_cgroup(plan.cgroup).remove()
        store.remove(container_id)
        raise


def hook_state(record: ContainerRecord, status: str) -> bytes:
    """What a hook of a container reads."""
    state = State(record.spec.oci_version, record.id, "creating", record.pid, record.bundle)
    state = msgspec.structs.replace(state, annotations=record.spec.annotations or {})
    return msgspec.json.encode({**msgspec.to_builtins(state), "status": status})


def create(store: ContainerStore, words: list[str]) -> int:
    """Makes a container from a bundle and holds it just before its program."""
    _create(store, parse_arguments(words, _OPTIONS, _SHORT), held=True)
    return 0


def start(store: ContainerStore, words: list[str]) -> int:
    """Lets a created container's program run."""
    arguments = parse_arguments(words, {}, {})
    record = store.load(arguments.only_container_id())
    status = store.status(record)
    if status == "stopped":
        raise Conflict("cannot start a container that has stopped")
    if status != "created":
        raise Conflict("cannot start an already running container")
    gate = f"{store.directory(record.id)}/{GATE_NAME}"
    fd = os.open(gate, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(fd, b"1")
    os.close(fd)
    os.unlink(gate)
    if record.spec.hooks is not None and record.spec.hooks.poststart:
        run_hooks(plan_hooks(record.spec.hooks.poststart), hook_state(record, "running"), "poststart")
    return 0


def run(store: ContainerStore, words: list[str]) -> int:
    """`create` and `start` in one; without `--detach` it waits, and ends as the program ends."""
    arguments = parse_arguments(words, _OPTIONS, _SHORT)
    record, created = _create(store, arguments, held=False)
    if record.spec.hooks is not None and record.spec.hooks.poststart:
        run_hooks(plan_hooks(record.spec.hooks.poststart), hook_state(record, "running"), "poststart")
    if arguments.has("detach"):
        return 0
    if created.terminal_fd is not None:
        relay_terminal(created.terminal_fd)
    code = wait_exit(created.pid)
    if not arguments.has("keep"):
        destroy(store, record)
    return code
