"""A first process forked before its plan is known: born into new pid and time namespaces, it waits for the plan.

    creator ──InitRequest + [stdin, stdout, stderr, netns?]──▶ first process, which then goes on as any other

Only for plans without a user namespace and without namespaces to join but the network's; the others' first processes
are forked when they are asked for (`tare.runtime.init`). Runs in the creator; imports nothing heavy.
"""

from __future__ import annotations

import os
import signal
import socket

from tare.kernel import process
from tare.runtime import messages
from tare.runtime.cgroups import open_cgroup
from tare.runtime.init import ChildNamespaces, new_for_children, run_as_init, run_guarded
from tare.runtime.plan import Plan, decode_plan
from tare.runtime.steps.init import Init


class WaitingInit:
    """One such process, as its creator sees it. link: the channel to it; pid: in the creator's pid namespace."""

    def __init__(self) -> None:
        """Forks it. Raises OSError as fork(2), KernelError where the kernel has no such namespaces."""
        self.new = ("pid", "time") if os.path.exists("/proc/self/ns/time") else ("pid",)
        self.dropped = False
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with ChildNamespaces(self.new, {}):
                self.pid = os.fork()
                if self.pid == 0:
                    init = Init(theirs, None)
                    run_guarded(init, set(), lambda: _wait_for_plan(init))
        except BaseException:
            self.link.close()
            raise
        finally:
            theirs.close()

    def fits(self, plan: Plan) -> bool:
        """Whether it can carry out that plan."""
        return (
            not plan.join
            and not plan.time_offsets
            and "user" not in plan.new
            and sorted(new_for_children(plan.new)) == sorted(self.new)
        )

    def give(self, plan: bytes, stdio: tuple[int, int, int] | None, netns_fd: int | None) -> None:
        """Sends it the plan; the descriptors stay the caller's. Raises OSError if it was killed."""
        request = messages.InitRequest(plan, stdio is not None, netns_fd is not None)
        messages.send(self.link, request, (*(stdio or ()), *(() if netns_fd is None else (netns_fd,))))

    def drop(self) -> None:
        """Lets it end, for it isn't needed; `reap` it later."""
        self.dropped = True
        self.link.close()

    def reap(self) -> None:
        """Waits for the end of one that was dropped."""
        os.waitpid(self.pid, 0)


def _wait_for_plan(init: Init) -> None:
    process.set_parent_death_signal(signal.SIGKILL)
    received = messages.receive(init.channel)
    request, fds = received or (None, [])
    if not isinstance(request, messages.InitRequest):
        os._exit(0)
    if request.has_stdio:
        init.stdio = (fds[0], fds[1], fds[2])
    plan = decode_plan(request.plan)
    if plan.cgroup:
        init.cgroup = open_cgroup(plan.cgroup, plan.hierarchies)
    run_as_init(init, plan, {"network": fds[-1]} if request.has_netns else {}, own_child=True)
