"""A container's first process between fork and exec: enters its namespaces and applies the plan's steps.

Runs inside the container: loads no module, leaves no descriptor, and whatever goes wrong is told through the channel.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from typing import NoReturn

from tare import faults
from tare.errors import InvalidArgument
from tare.kernel import namespaces, process
from tare.kernel.fds import close_others
from tare.kernel.loopback import bring_up_loopback
from tare.runtime.cgroups import Cgroup
from tare.runtime.failure import EXIT_ENGINE, CommandError, decode_failure, encode_failure
from tare.runtime.plan import Plan, Step, namespace_flags
from tare.runtime.steps.execute import Execute
from tare.runtime.steps.init import Init

# Those that unshare(2) and setns(2) give to the next child only (namespaces(7)); cgroup is entered by a step.
_FOR_CHILDREN = ("pid", "time")
_LATER = ("pid", "time", "cgroup", "user")


def start_init(
    plan: Plan,
    channel: socket.socket,
    stdio: tuple[int, int, int] | None,
    netns_fd: int | None,
    gate_fd: int,
    cgroup: Cgroup | None,
) -> int:
    """Forks the first process; returns its pid, or that of the process in between where there is a user namespace."""
    init = Init(channel, stdio, gate_fd)
    init.cgroup = cgroup
    joins: dict[str, int] = {} if netns_fd is None else {"network": netns_fd}
    try:
        for join in plan.join:
            if join.type not in joins:
                joins[join.type] = namespaces.open_namespace(join.path)
        if plan.owner is not None and "user" not in joins:
            joins["user"] = _user_namespace(plan, netns_fd)
        keep = {gate_fd, *joins.values(), *preserved_fds(plan.steps)}
        if "user" in plan.new or "user" in joins:
            process.set_child_subreaper(True)
            pid = os.fork()
            if pid == 0:
                run_guarded(init, keep, lambda: _enter_user_namespace(init, plan, joins))
            return pid
        with ChildNamespaces(plan.new, joins, plan.time_offsets):
            pid = os.fork()
            if pid == 0:
                run_guarded(init, keep, lambda: run_as_init(init, plan, joins, own_child=gate_fd < 0))
        return pid
    finally:
        for name, fd in joins.items():
            if not (name == "network" and netns_fd is not None):
                os.close(fd)


def _user_namespace(plan: Plan, netns_fd: int | None) -> int:
    """The user namespace of a plan whose mounts are mapped to it: that which owns the network, or a new one.

    Only in the owner of its network namespace has a container's root rights over its network (network_namespaces(7)).
    """
    if netns_fd is not None:
        user_fd = namespaces.owner_of(netns_fd)
        if not namespaces.is_own(user_fd):
            return user_fd
        os.close(user_fd)
    return namespaces.make_user_namespace(plan.uid_map, plan.gid_map)[0]


class ChildNamespaces:
    """While it is entered, children are born into other pid and time namespaces; we stay where we are."""

    def __init__(self, new: tuple[str, ...], joins: dict[str, int], time_offsets: str = "") -> None:
        self.new = tuple(name for name in new if name in _FOR_CHILDREN and name not in joins)
        self.joins = {name: fd for name, fd in joins.items() if name in _FOR_CHILDREN}
        self.time_offsets = time_offsets
        self.before: list[tuple[int, int]] = []

    def enter(self) -> None:
        """For good."""
        for name, fd in self.joins.items():
            namespaces.setns(fd, namespaces.NAMESPACES[name][0], about=name)
        if self.new:
            namespaces.unshare(namespace_flags(self.new))
        if self.time_offsets and "time" in self.new:
            process.write_own("timens_offsets", self.time_offsets)

    def __enter__(self) -> None:
        try:
            for name in (*self.new, *self.joins):
                flag, file = namespaces.NAMESPACES[name]
                self.before.append((namespaces.open_namespace(f"/proc/self/ns/{file}"), flag))
            self.enter()
        except BaseException:
            self._return()
            raise

    def __exit__(self, *_: object) -> None:
        self._return()

    def _return(self) -> None:
        for fd, flag in self.before:
            namespaces.setns(fd, flag)
            os.close(fd)
        self.before.clear()


def preserved_fds(steps: tuple[Step, ...]) -> range:
    """The descriptors from 3 on that the program is to get; InvalidArgument if one isn't open."""
    last = steps[-1]
    fds = range(3, 3 + last.preserve_fds) if isinstance(last, Execute) else range(0)
    for fd in fds:
        try:
            os.fstat(fd)
        except OSError as error:
            raise InvalidArgument(f"descriptor {fd} to be preserved is not open") from error
    return fds


def run_guarded(init: Init, keep: set[int], action: Callable[[], None]) -> NoReturn:
    """Runs `action` in a forked child, which never returns from here; its failure goes through the channel.

    keep: descriptors that the child needs; the creator's others are closed, since they lead to the host.
    """
    try:
        close_others({init.channel.fileno(), *(init.stdio or ()), *keep})
        sys.meta_path.clear()  # from now on an import fails: it could find the container's files (CVE-2019-14271)
        action()
    except BaseException as error:
        step = getattr(error, "step", "")
        message = encode_failure(step, error)
        if not init.tell(message):
            text = str(error) if isinstance(error, CommandError) else str(decode_failure(message))
            os.write(2, f"{text}\n".encode("utf-8", "replace"))
            os._exit(255)  # what runc's users see for a program that its `start` could not execute
    finally:
        os._exit(EXIT_ENGINE)


def _enter_user_namespace(init: Init, plan: Plan, joins: dict[str, int]) -> None:
    """In the process in between: takes what the host's rights are needed for, gives them up, forks init, ends."""
    init.join_cgroup()
    init.user_fd = joins.get("user", -1)
    apply_steps(init, plan.early)
    if plan.owner is not None:
        own_stdio(init, *plan.owner)
    _join(joins)
    if "user" in joins:
        namespaces.setns(joins["user"], namespaces.CLONE_NEWUSER, about="user")
    else:
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        init.ask(b"maps")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups(())
    process.set_dumpable(True)  # else /proc/self belongs to the host's root
    ChildNamespaces(plan.new, joins, plan.time_offsets).enter()  # there is no way back from a user namespace
    pid = os.fork()
    if pid:
        init.tell(b"pid %d" % pid)
        os._exit(0)
    init.wait_answer()
    run_as_init(init, plan, joins, own_child=False)


def own_stdio(init: Init, uid: int, gid: int) -> None:
    """Gives pipes to a user namespace's root, which can hand them on to the program's user."""
    for fd in dict.fromkeys(init.stdio or ()):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, uid, gid)


def new_for_children(new: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a plan's new namespaces into which a process can only be born."""
    return tuple(name for name in new if name in _FOR_CHILDREN)


def run_as_init(init: Init, plan: Plan, joins: dict[str, int], own_child: bool) -> None:
    """The first process's way to the user's program. joins: descriptors of namespaces. own_child: of the creator's."""
    has_user_namespace = "user" in plan.new or "user" in joins
    if own_child:
        process.set_parent_death_signal(signal.SIGKILL)
    if "pid" not in plan.new and not has_user_namespace:
        process.set_dumpable(False)  # others are there already who could look into us (CVE-2016-9962)
    os.umask(0)
    last = plan.steps[-1]
    if isinstance(last, Execute) and last.reaper:
        init.title_area = process.find_title_area()
    new = tuple(name for name in plan.new if name not in _LATER and name not in joins)
    if not has_user_namespace:
        _join(joins)
    namespaces.unshare(namespace_flags(new))
    if "network" in new:
        bring_up_loopback()
    if not has_user_namespace:
        apply_steps(init, plan.early)
    apply_steps(init, plan.steps)


def _join(joins: dict[str, int]) -> None:
    for name, fd in joins.items():
        if name not in _LATER:
            namespaces.setns(fd, namespaces.NAMESPACES[name][0], about=name)


def apply_steps(init: Init, steps: tuple[Step, ...]) -> None:
    """Applies steps one by one; an error is marked with the step that it came from."""
    for step in steps:
        try:
            faults.point("runtime.step." + str(step.__struct_config__.tag))
            step.apply(init)
        except Exception as error:
            error.step = step.describe()  # type: ignore[attr-defined]
            raise
