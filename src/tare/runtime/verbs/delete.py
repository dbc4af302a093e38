"""`delete` and `kill`."""

from __future__ import annotations

import os
import select
import signal

from tare.errors import Conflict, InvalidArgument, NotFound
from tare.kernel.namespaces import pidfd_send_signal
from tare.runtime.arguments import parse_arguments
from tare.runtime.cgroups import open_cgroup
from tare.runtime.hooks import plan_hooks, run_hooks
from tare.runtime.store import ContainerRecord, ContainerStore, is_alive


def parse_signal(text: str) -> int:
    """A signal by number or name, with or without SIG."""
    if text.isdigit():
        if 0 < int(text) <= signal.NSIG:
            return int(text)
        raise InvalidArgument(f"unknown signal {text!r}")
    name = text.upper()
    name = name if name.startswith("SIG") else "SIG" + name
    number = getattr(signal, name, None)
    if not isinstance(number, signal.Signals):
        raise InvalidArgument(f"unknown signal {text!r}")
    return int(number)


def signal_first_process(record: ContainerRecord, number: int) -> None:
    """Signals the container's first process; Conflict if it has ended."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        raise Conflict("container not running") from None
    try:
        # Checked after the pidfd is held: from here on the pid can't be another process's.
        if not is_alive(record.pid, record.start_ticks):
            raise Conflict("container not running")
        pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def wait_end(record: ContainerRecord, timeout_s: float) -> None:
    """Waits until the container's first process has ended."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(record.pid, record.start_ticks):
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                raise Conflict("container init still running")
    finally:
        os.close(pidfd)


def destroy(store: ContainerStore, record: ContainerRecord) -> None:
    """Ends what is left of a container, removes its cgroup, runs its poststop hooks, forgets it."""
    cgroup = open_cgroup(record.cgroup)
    if cgroup.exists():
        # Without a pid namespace of its own, the end of the first process ends none of the others.
        cgroup.kill(signal.SIGKILL)
        cgroup.remove()
    hooks = record.spec.hooks
    if hooks is not None and hooks.poststop:
        from tare.runtime.verbs.create import hook_state

        run_hooks(plan_hooks(hooks.poststop), hook_state(record, "stopped"), "poststop")
    store.remove(record.id)


def _clear_away(store: ContainerStore, container_id: str) -> None:
    """Removes what is left of a container whose `create` was killed half-way."""
    path = store.noted_cgroup(container_id)
    if path:
        cgroup = open_cgroup(path)
        cgroup.kill(signal.SIGKILL)
        cgroup.remove()
    store.remove(container_id)


def delete(store: ContainerStore, words: list[str]) -> int:
    """Removes a container that has stopped, or was only created; with `--force` a running one too."""
    arguments = parse_arguments(words, {"force": False}, {"f": "force"})
    try:
        record = store.load(arguments.only_container_id())
    except NotFound:
        if not arguments.has("force"):
            raise
        _clear_away(store, arguments.only_container_id())
        return 0
    status = store.status(record)
    if status in ("running", "paused") and not arguments.has("force"):
        raise Conflict(f"cannot delete container {record.id} that is not stopped: {status}")
    if status != "stopped":
        signal_first_process(record, signal.SIGKILL)
        if status == "paused":
            open_cgroup(record.cgroup).thaw()
        wait_end(record, 10)
    destroy(store, record)
    return 0


def kill(store: ContainerStore, words: list[str]) -> int:
    """Signals the first process, or with `--all` every process of the container."""
    arguments = parse_arguments(words, {"all": False}, {"a": "all"})
    record = store.load(arguments.container_id())
    number = parse_signal(arguments.rest[1] if len(arguments.rest) > 1 else "SIGTERM")
    if arguments.has("all"):
        cgroup = open_cgroup(record.cgroup)
        if cgroup.exists():
            cgroup.kill(number)
        return 0
    signal_first_process(record, number)
    return 0
