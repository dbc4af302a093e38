"""Starts one more process in a running container (`docker exec`): the call that executes an ExecPlan.

Called from a single-threaded process. The new process joins the container's cgroup and namespaces with everything
loaded, nobody able to look into it (CVE-2016-9962), and becomes the program just as a container's first process does.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable

from tare import faults
from tare.errors import KernelError, TareError
from tare.kernel import namespaces, process
from tare.runtime.cgroups import Cgroup, open_cgroup
from tare.runtime.channel import Channel
from tare.runtime.create import Created
from tare.runtime.failure import StartFailed, sentence
from tare.runtime.init import ChildNamespaces, apply_steps, own_stdio, preserved_fds, run_guarded
from tare.runtime.plan import ExecPlan, build_exec_plan
from tare.runtime.steps.init import Init

__all__ = ["StartFailed", "build_exec_plan", "enter_container", "read_start_ticks"]


def read_start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid, its identity (/proc/PID/stat, field 22)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "open", f"/proc/{pid}/stat") from error


def _foreign_namespaces(pid: int) -> tuple[str, ...]:
    """The namespaces of a process that aren't ours."""
    kinds = namespaces.NAMESPACES.items()
    return tuple(name for name, (_, file) in kinds if not namespaces.same_namespace(pid, file))


def _run(init: Init, plan: ExecPlan, pidfd: int, names: tuple[str, ...]) -> None:
    process.set_parent_death_signal(signal.SIGKILL)
    process.set_dumpable(False)
    os.umask(0)
    apply_steps(init, plan.early)
    if init.cgroup is not None:
        init.cgroup.join()
    flags = 0
    for name in names:
        if name != "pid":
            flags |= namespaces.NAMESPACES[name][0]
    root_fd = _open_root(plan, pidfd)
    if "user" in names:
        uid, gid = (namespaces.mapped_root(plan.container_pid, name) for name in ("uid_map", "gid_map"))
        own_stdio(init, uid, gid)
    if flags:
        namespaces.setns(pidfd, flags, about=f"namespaces of process {plan.container_pid}")
    # setns(2) gives us the namespace's root, which is not the container's if the engine itself runs in a chroot: there
    # pivot_root left the machine's root below.
    os.fchdir(root_fd)
    os.chroot(".")
    os.close(root_fd)
    init.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.close(pidfd)
    apply_steps(init, plan.steps)


def _open_root(plan: ExecPlan, pidfd: int) -> int:
    """The container's root directory as its first process has it; checks that the pid was still that process's."""
    path = f"/proc/{plan.container_pid}/root"
    try:
        root_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        signal.pidfd_send_signal(pidfd, 0)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "open", path) from error
    return root_fd


def _open_container(plan: ExecPlan) -> int:
    """A pidfd of the container's first process, checked to be the one that is meant."""
    pidfd = namespaces.pidfd_open(plan.container_pid)
    if plan.start_ticks and read_start_ticks(plan.container_pid) != plan.start_ticks:
        os.close(pidfd)
        raise KernelError(errno.ESRCH, "pidfd_open", str(plan.container_pid))
    return pidfd


def _fork(plan: ExecPlan, init: Init, pidfd: int) -> int:
    names = _foreign_namespaces(plan.container_pid)
    keep = {pidfd, *preserved_fds(plan.steps)}
    joins = {"pid": pidfd} if "pid" in names else {}
    with ChildNamespaces((), joins):
        pid = os.fork()
        if pid == 0:
            run_guarded(init, keep, lambda: _run(init, plan, pidfd, names))
    return pid


def enter_container(
    plan: ExecPlan,
    *,
    stdio: tuple[int, int, int] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Created:
    """Starts the plan's process in its container; returns when its program runs. Raises StartFailed.

    stdio: descriptors for 0, 1, 2; None for our own, or where the plan has a terminal. meanwhile: what the caller has
    to do anyway; it is done while the process makes itself ready.
    """
    cgroup: Cgroup | None = open_cgroup(plan.cgroup, plan.hierarchies) if plan.cgroup else None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    init = Init(theirs, None if plan.terminal else stdio)
    init.cgroup = cgroup
    try:
        pidfd = _open_container(plan)
        try:
            pid = _fork(plan, init, pidfd)
        finally:
            os.close(pidfd)
    except (TareError, OSError) as error:
        ours.close()
        raise StartFailed(f"unable to start container process: {sentence(error)}") from error
    finally:
        theirs.close()
    channel = Channel(ours, plan, pid)
    try:
        faults.point("runtime.exec.started")
        meanwhile()
        channel.serve({})
    except BaseException:
        channel.drop_terminal()
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        raise
    finally:
        channel.close()
    return Created(pid, channel.terminal_fd)
