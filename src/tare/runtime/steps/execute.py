"""The last step: becomes the container's user, drops every right that isn't given, and executes the program.

    working directory, stdio's owner → bounding set, groups, user → look-up of the program → descriptors, limits
    → gate (OCI create | start) → startContainer hooks → signals → no_new_privs → seccomp → capabilities → exec

Whatever can fail is before the filter; behind it there are only capset, prctl and execve, so that a strict filter needs
to allow no more than it must for any runtime.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import stat
from functools import partial

import msgspec

from tare.errors import InvalidArgument, KernelError
from tare.kernel import capabilities, process
from tare.kernel.fds import set_cloexec_from
from tare.runtime.failure import CommandError, UserError, encode_failure, errno_text
from tare.runtime.hooks import PlannedHook, run_hooks
from tare.runtime.reaper import run_under_reaper
from tare.runtime.steps.command import enter_directory, find_command, parse_environment
from tare.runtime.steps.init import Init
from tare.runtime.users import ResolvedUser, find_home, resolve_user

# The classic ones; nobody ignores real-time signals. Plain numbers: an enumeration costs ten times as much here.
_LIBC_SIGNALS = (32, 33, 34)  # the last is musl's alone
_CATCHABLE = tuple(number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP))


class CapabilitySets(msgspec.Struct, frozen=True):
    """The five sets as bits."""

    bounding: int = 0
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    ambient: int = 0


class ResourceLimit(msgspec.Struct, frozen=True):
    """number: RLIMIT_*. soft, hard: -1 for no limit."""

    name: str
    number: int
    soft: int
    hard: int


class Execute(msgspec.Struct, frozen=True, tag_field="step", tag="execute"):
    """user: Docker's `--user`, resolved inside the root; None to take uid, gid, additional_gids as they are.

    preserve_fds: how many descriptors from 3 on the program gets. reaper: stay as pid 1 and fork the program.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    user: str | None = None
    group_add: tuple[str, ...] = ()
    umask: int = 0o022
    rlimits: tuple[ResourceLimit, ...] = ()
    capabilities: CapabilitySets | None = None
    no_new_privileges: bool = False
    seccomp: bytes = b""
    seccomp_flags: int = 0
    hooks: tuple[PlannedHook, ...] = ()
    state: bytes = b""
    preserve_fds: int = 0
    reaper: bool = False

    def describe(self) -> str:
        return "start program"

    def apply(self, init: Init) -> None:
        user = self._resolve_user(init)
        environment = parse_environment(self.env)
        if not environment.get("HOME"):
            environment["HOME"] = user.home
        entered = self._enter_directory(init.root_fd, final=False)
        _own_stdio(init.stdio, user.uid)
        self._become(user)
        if not entered:
            self._enter_directory(init.root_fd, final=True)
        program = find_command(self.args[0], environment.get("PATH", ""))
        os.umask(self.umask)
        _place_stdio(init, self.preserve_fds)
        if self.rlimits:
            self._limit(init)
        _wait_gate(init)
        if self.hooks:
            run_hooks(self.hooks, self.state, "startContainer")
        init.tell(b"executing")
        _reset_signals()
        process.set_parent_death_signal(0)
        self._confine()
        encoded = {_encode(key): _encode(value) for key, value in environment.items()}
        arguments = [_encode(word) for word in self.args]
        if not self.reaper:
            _exec(program, arguments, encoded)
        title = "/sbin/tare-init -- " + " ".join(self.args)
        run_in_child = partial(_exec_in_child, init, program, arguments, encoded)
        run_under_reaper(title, init.title_area, init.terminal, run_in_child)

    def _resolve_user(self, init: Init) -> ResolvedUser:
        if self.user is not None:
            try:
                return resolve_user(init.root_fd, self.user, self.group_add)
            except InvalidArgument as error:
                raise UserError(str(error)) from error
        return ResolvedUser(self.uid, self.gid, self.additional_gids, find_home(init.root_fd, self.uid))

    def _enter_directory(self, root_fd: int, final: bool) -> bool:
        """First with all rights, then, where that was refused (a network file system), as the user."""
        try:
            enter_directory(root_fd, self.cwd)
            return True
        except CommandError as error:
            if final or error.errno not in (errno.EACCES, errno.EPERM):
                raise
            return False

    def _become(self, user: ResolvedUser) -> None:
        if self.capabilities is not None:
            capabilities.limit_bounding(self.capabilities.bounding)
        process.set_keep_capabilities(True)
        try:
            os.setgroups(user.additional_gids)
        except PermissionError as error:
            # A user namespace may forbid setgroups(2) (user_namespaces(7)); no groups wanted, no harm.
            if user.additional_gids:
                raise KernelError(errno.EPERM, "setgroups") from error
        try:
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        except OSError as error:
            raise InvalidArgument(f"cannot set uid to {user.uid}: {errno_text(error.errno or 0)}") from error
        if user.uid:
            # The change of user cleared the effective set; the filter and the hooks still need it.
            _, permitted, inheritable = capabilities.capget()
            capabilities.capset(permitted, permitted, inheritable)

    def _limit(self, init: Init) -> None:
        """Late: a limit on descriptors or memory would bind the steps before. But before the gate: it may fail."""
        try:
            for limit in self.rlimits:
                resource.setrlimit(limit.number, (limit.soft, limit.hard))
        except (OSError, ValueError) as error:
            # In a user namespace we may raise nothing: the creator does it, or tells why it can't.
            if init.ask(b"rlimits") != b"go":
                raise InvalidArgument("error setting rlimits") from error

    def _confine(self) -> None:
        if self.no_new_privileges:
            process.set_no_new_privileges()
        if self.seccomp:
            process.load_seccomp_filter(self.seccomp, self.seccomp_flags)
        sets = self.capabilities
        if sets is not None:
            possible = capabilities.capget()[1]
            permitted = sets.permitted & possible
            capabilities.capset(sets.effective & permitted, permitted, sets.inheritable)
            capabilities.set_ambient(sets.ambient & permitted & sets.inheritable)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _exec(program: str, arguments: list[bytes], environment: dict[bytes, bytes]) -> None:
    try:
        os.execve(_encode(program), arguments, environment)
    except OSError as error:
        number = error.errno or errno.EIO
        raise CommandError(f"exec {program}: {errno_text(number)}", number) from error


def _exec_in_child(init: Init, program: str, arguments: list[bytes], environment: dict[bytes, bytes]) -> None:
    try:
        _exec(program, arguments, environment)
    except CommandError as error:
        init.tell(encode_failure("", error))
        os._exit(error.exit_code)


def _own_stdio(stdio: tuple[int, int, int] | None, uid: int) -> None:
    """Gives pipes and the terminal to the user, so that the program can open /dev/stdout and the like."""
    for fd in dict.fromkeys(stdio or (0, 1, 2)):
        try:
            facts = os.fstat(fd)
            if facts.st_uid == uid or (stat.S_ISCHR(facts.st_mode) and facts.st_rdev == os.makedev(1, 3)):
                continue
            os.fchown(fd, uid, -1)
        except OSError as error:
            # EINVAL: an id that the user namespace doesn't map. EPERM, EROFS: not ours to give (a host file).
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS, errno.EBADF):
                raise


def _wait_gate(init: Init) -> None:
    """Tells the creator that everything is ready, and waits for the gate to be opened (OCI `start`)."""
    if init.gate_fd < 0:
        return
    init.tell(b"ready")
    if not os.read(init.gate_fd, 1):
        os._exit(1)  # whoever held the gate is gone


def _place_stdio(init: Init, preserve_fds: int) -> None:
    """Puts the three descriptors to 0, 1, 2; everything above, but those to be preserved, is close-on-exec."""
    if init.stdio is not None:
        parked = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + preserve_fds) for fd in init.stdio]
        for number, fd in enumerate(parked):
            os.dup2(fd, number, inheritable=True)
            os.close(fd)
    for number in range(3 + preserve_fds):
        try:
            os.set_inheritable(number, True)
        except OSError as error:
            raise InvalidArgument(f"descriptor {number} to be preserved is not open") from error
    set_cloexec_from(3 + preserve_fds)


def _reset_signals() -> None:
    """Undoes what Python and the monitor ignore or block: that would be inherited through exec."""
    for number in _CATCHABLE:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # The C library keeps some signals to itself, and its posix_spawn leaves them ignored in what it starts: make, say.
    for number in _LIBC_SIGNALS:
        process.default_signal(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
