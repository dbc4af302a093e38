"""Creates a container: the one call that turns a plan into a running (or held) first process.

Called from a single-threaded process (a monitor, or tare-runtime). Imports nothing heavy, and nothing while the
container is being made: between fork and exec a module could come from the container's root.

    creator                                    first process ("init")
    ───────                                    ──────────────────────
    fork ───────────────────────────────────▶  namespaces (a user namespace: by a process in between, which asks "maps"
    make cgroup, set limits                    and tells "pid N")
    ◀── "cgroup"  "go" ─────────────────────▶  joins the cgroup
    ◀── "hooks"   "go" ─────────────────────▶  mounts are there, nothing entered yet
    ◀── "terminal" + descriptor ────────────   pty made in the container's devpts
    ◀── "ready" ────────────────────────────   held: waits for a byte from the gate
    ◀── "rlimits" "go" ─────────────────────▶  limits that it can't raise itself
    ◀── "executing" ────────────────────────
    ◀── end of file (close-on-exec) ────────   the user's program runs
    ◀── "failed" + reason ──────────────────   at any time; then it exits

An end of file before "executing" means that init was killed. If the creator dies, init sees an end of file, too, and
exits (before exec it is also sent SIGKILL, where it is the creator's own child).
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

from tare import faults
from tare.errors import TareError
from tare.kernel import process
from tare.kernel.namespaces import write_id_maps
from tare.runtime.cgroups import Cgroup, open_cgroup
from tare.runtime.channel import Channel
from tare.runtime.failure import StartFailed, sentence
from tare.runtime.hooks import run_hooks
from tare.runtime.init import start_init
from tare.runtime.plan import Plan
from tare.runtime.waiting_init import WaitingInit

__all__ = ["Created", "Gate", "StartFailed", "create_container"]


class Created:
    """A first process. terminal_fd: the terminal's master, the caller's to close. gate: of a held one."""

    __slots__ = ("gate", "pid", "terminal_fd")

    def __init__(self, pid: int, terminal_fd: int | None = None, gate: Gate | None = None) -> None:
        self.pid = pid
        self.terminal_fd = terminal_fd
        self.gate = gate


class Gate:
    """Lets a held container go on to its program."""

    __slots__ = ("_creation", "fd")

    def __init__(self, fd: int, creation: _Creation) -> None:
        self.fd = fd
        self._creation = creation

    def open(self) -> None:
        """Starts the user's program; returns when it runs. Raises StartFailed."""
        os.write(self.fd, b"1")
        os.close(self.fd)
        self._creation.finish()


class _Creation:
    """One container while it is being made; on failure it takes back all that it did."""

    def __init__(self, plan: Plan, cgroup: Cgroup | None, channel: Channel, pid: int) -> None:
        self.plan = plan
        self.cgroup = cgroup
        self.channel = channel
        self.pid = pid

    def make_cgroup(self) -> None:
        """While init is busy with its namespaces."""
        if self.cgroup is None:
            return
        faults.point("runtime.cgroup.create")
        self.cgroup.create()
        if self.plan.resources is not None:
            self.cgroup.apply(self.plan.resources)

    def serve(self, meanwhile: Callable[[], None] | None = None) -> str:
        """Answers init until it is `ready` (held) or `executed`. Raises StartFailed.

        meanwhile: done when init has been told that its cgroup is there.
        """
        answers = {b"maps": self._write_maps, b"hooks": self._run_hooks, b"pid": self._take_pid}
        after = None if meanwhile is None else (b"cgroup", meanwhile)
        return self.channel.serve({b"cgroup": lambda: None, **answers}, after)

    def _write_maps(self) -> None:
        write_id_maps(self.pid, self.plan.uid_map, self.plan.gid_map)

    def _take_pid(self) -> None:
        """The process in between is done: what it forked is ours now (as a subreaper's)."""
        os.waitpid(self.pid, 0)
        self.pid = self.channel.pid

    def _run_hooks(self) -> None:
        state = self.plan.state.replace(b'"pid":0', b'"pid":%d' % self.pid)
        run_hooks(self.plan.hooks, state, "createRuntime")

    def abandon(self) -> None:
        """Kills and reaps init and removes the cgroup."""
        self.channel.close()
        self.channel.drop_terminal()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        if self.cgroup is not None:
            self.cgroup.kill(signal.SIGKILL)
            self.cgroup.remove()

    def finish(self) -> None:
        """Waits for the exec."""
        try:
            self.serve()
        except BaseException:
            self.abandon()
            raise
        self.channel.close()


def create_container(
    plan: Plan,
    *,
    stdio: tuple[int, int, int] | None = None,
    netns_fd: int | None = None,
    hold: bool = False,
    gate_fd: int | None = None,
    waiting: WaitingInit | None = None,
    encoded: bytes = b"",
    meanwhile: Callable[[], None] | None = None,
) -> Created:
    """Makes the container and starts its program (with `hold`: stops just before, until `gate.open()`).

    stdio: descriptors for 0, 1, 2; None for our own, or where the plan has a terminal. netns_fd: the network namespace
    to join instead of the plan's. gate_fd: a descriptor that init reads one byte from instead of a gate of our own (a
    FIFO that a later process opens); implies hold, and no gate is returned. waiting: a first process that waits for
    this plan, and encoded: what it is to be sent; not with hold. meanwhile: what the caller has to do anyway; it is
    done while init goes on.
    On failure nothing is left: the process is reaped, the cgroup removed. Raises StartFailed.
    """
    cgroup = _cgroup_of(plan)
    gate_write = -1
    gate_read = gate_fd if gate_fd is not None else -1
    if hold and gate_fd is None:
        gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
    was_subreaper = process.is_child_subreaper()
    stdio = None if plan.terminal else stdio
    try:
        if waiting is not None:
            pid, ours = waiting.pid, waiting.link
            waiting.give(encoded, stdio, netns_fd)
        else:
            pid, ours = _fork_init(plan, stdio, netns_fd, gate_read, cgroup)
    except (TareError, OSError) as error:
        _close(gate_write)
        raise _unable(error) from error
    finally:
        if gate_write >= 0:
            os.close(gate_read)
    creation = _Creation(plan, cgroup, Channel(ours, plan, pid), pid)
    try:
        faults.point("runtime.init.started")
        creation.make_cgroup()
        if meanwhile is not None and cgroup is None:
            meanwhile()
        outcome = creation.serve(meanwhile)
    except BaseException as error:
        creation.abandon()
        if not was_subreaper:
            process.set_child_subreaper(False)
        _close(gate_write)
        if isinstance(error, TareError) and not isinstance(error, StartFailed):
            raise _unable(error) from error
        raise
    if not was_subreaper and creation.pid != pid:
        process.set_child_subreaper(False)  # it was needed for init only, which is our child by now
    terminal_fd = creation.channel.terminal_fd
    if outcome == "ready":
        gate = Gate(gate_write, creation) if gate_write >= 0 else None
        return Created(creation.pid, terminal_fd, gate)
    creation.channel.close()
    return Created(creation.pid, terminal_fd)


def _cgroup_of(plan: Plan) -> Cgroup | None:
    """Raises StartFailed if somebody is in it."""
    cgroup = open_cgroup(plan.cgroup, plan.hierarchies) if plan.cgroup else None
    if cgroup is not None and cgroup.exists() and cgroup.pids():
        raise StartFailed(f"container's cgroup is not empty: {plan.cgroup}")
    return cgroup


def _unable(error: Exception) -> StartFailed:
    return StartFailed(f"unable to start container process: {sentence(error)}")


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _fork_init(
    plan: Plan, stdio: tuple[int, int, int] | None, netns_fd: int | None, gate_read: int, cgroup: Cgroup | None
) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        return start_init(plan, theirs, stdio, netns_fd, gate_read, cgroup), ours
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
