"""Steps that set what the container and its first process are: names, sysctls, limits, priorities, labels."""

from __future__ import annotations

import errno
import os

import msgspec

from tare.errors import InvalidArgument, KernelError, Unsupported
from tare.kernel import process, pty
from tare.kernel.apparmor import has_apparmor
from tare.kernel.fds import (
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    file_system_type,
    openat2,
)
from tare.kernel.mounts import mount_detached
from tare.kernel.namespaces import CLONE_NEWCGROUP, unshare
from tare.runtime.check import sysctl_path
from tare.runtime.hooks import PlannedHook, run_hooks
from tare.runtime.steps.init import Init

_IOPRIO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}


class SetHostname(msgspec.Struct, frozen=True, tag_field="step", tag="hostname"):
    """The container's host name and NIS domain; empty leaves one alone."""

    hostname: str = ""
    domainname: str = ""

    def describe(self) -> str:
        return "sethostname"

    def apply(self, init: Init) -> None:
        if self.hostname:
            process.sethostname(self.hostname)
        if self.domainname:
            process.setdomainname(self.domainname)


def write_proc_file(init: Init, path: str, value: str) -> None:
    """Writes a file of a /proc that we mounted ourselves; follows no link and leaves no mount (CVE-2025-52881)."""
    if init.proc_fd < 0:
        init.proc_fd = mount_detached("proc", "proc")
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    fd = openat2(init.proc_fd, path, os.O_WRONLY, 0, resolve)
    try:
        if file_system_type(fd) != PROC_SUPER_MAGIC:
            raise KernelError(errno.EXDEV, "openat2", f"/proc/{path}", "not on procfs")
        os.write(fd, value.encode())
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "write", f"/proc/{path}") from error
    finally:
        os.close(fd)


class SetSysctls(msgspec.Struct, frozen=True, tag_field="step", tag="sysctls"):
    """Writes sysctls of the container's own namespaces."""

    values: dict[str, str]

    def describe(self) -> str:
        return "write sysctl"

    def apply(self, init: Init) -> None:
        for key, value in self.values.items():
            write_proc_file(init, f"sys/{sysctl_path(key)}", value)


class SetOomScore(msgspec.Struct, frozen=True, tag_field="step", tag="oom_score"):
    """oom_score_adj of the first process."""

    value: int

    def describe(self) -> str:
        return "set oom_score_adj"

    def apply(self, init: Init) -> None:
        process.write_own("oom_score_adj", str(self.value))


class NewSession(msgspec.Struct, frozen=True, tag_field="step", tag="session"):
    """A session of its own, with the terminal (if there is one) as its controlling one; a session keyring."""

    keyring: str = ""

    def describe(self) -> str:
        return "start session"

    def apply(self, init: Init) -> None:
        os.setsid()
        if init.terminal and init.stdio is not None:
            pty.make_controlling_terminal(init.stdio[0])
        if self.keyring:
            try:
                process.join_session_keyring(self.keyring)
            except KernelError as error:
                # ENOSYS: a kernel without keys. EDQUOT, EPERM: out of quota, or a sandbox around us; runc goes on too.
                if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
                    raise


class SetScheduling(msgspec.Struct, frozen=True, tag_field="step", tag="scheduling"):
    """Scheduler policy, I/O priority and CPUs of the first process; None leaves one alone."""

    policy: tuple[int, int, int, int, int, int, int] | None = None
    io_class: str = ""
    io_priority: int = 0
    cpus: tuple[int, ...] = ()

    def describe(self) -> str:
        return "set scheduling"

    def apply(self, init: Init) -> None:
        if self.policy is not None:
            process.sched_setattr(*self.policy)
        if self.io_class:
            process.ioprio_set(_IOPRIO_CLASSES[self.io_class], self.io_priority)
        if self.cpus:
            os.sched_setaffinity(0, self.cpus)


class SetPersonality(msgspec.Struct, frozen=True, tag_field="step", tag="personality"):
    """The execution domain (PER_LINUX32 shows a 32-bit machine)."""

    persona: int

    def describe(self) -> str:
        return "set personality"

    def apply(self, init: Init) -> None:
        process.personality(self.persona)


class SetLabel(msgspec.Struct, frozen=True, tag_field="step", tag="label"):
    """The AppArmor profile or SELinux label that the user's program gets at its exec."""

    apparmor: str = ""
    selinux: str = ""

    def describe(self) -> str:
        return "unable to apply apparmor profile" if self.apparmor else "unable to apply SELinux label"

    def apply(self, init: Init) -> None:
        if self.apparmor:
            if not has_apparmor():
                raise Unsupported("apparmor: config provided but apparmor not supported")
            try:
                process.write_own("attr/apparmor/exec", f"exec {self.apparmor}")
            except KernelError as error:
                if error.errno != errno.ENOENT:  # the directory of its own came with Linux 5.8
                    raise
                process.write_own("attr/exec", f"exec {self.apparmor}")
        if self.selinux:
            process.write_own("attr/exec", self.selinux)


class RunHooks(msgspec.Struct, frozen=True, tag_field="step", tag="hooks"):
    """Lets the creator run its hooks, now that the namespaces and mounts are there but not entered yet."""

    def describe(self) -> str:
        return "error running hooks"

    def apply(self, init: Init) -> None:
        init.join_cgroup()
        if init.ask(b"hooks") != b"go":
            raise InvalidArgument("a hook of the runtime failed")


class RunInnerHooks(msgspec.Struct, frozen=True, tag_field="step", tag="inner_hooks"):
    """Runs the createContainer hooks: in the container's namespaces, before the pivot."""

    hooks: tuple[PlannedHook, ...]
    state: bytes

    def describe(self) -> str:
        return "error running hooks"

    def apply(self, init: Init) -> None:
        run_hooks(self.hooks, self.state, "createContainer")


class JoinCgroupNamespace(msgspec.Struct, frozen=True, tag_field="step", tag="cgroup_namespace"):
    """Makes the container's cgroup the root of what it sees of cgroups; after it was put there."""

    def describe(self) -> str:
        return "unshare cgroup namespace"

    def apply(self, init: Init) -> None:
        init.join_cgroup()
        unshare(CLONE_NEWCGROUP)
