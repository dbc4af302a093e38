"""Runs OCI hooks: foreign programs that get the container's state on standard input and a fixed environment.

Never passes on our own environment (CVE-2025-23266) or a descriptor above 2; imports nothing heavy.
"""

from __future__ import annotations

import os
import select
import signal

import msgspec

from tare.errors import InvalidArgument, KernelError, system_text
from tare.kernel.fds import set_cloexec_from
from tare.oci.runtime_spec import Hook

_OUTPUT_LIMIT_BYTES = 4096


class PlannedHook(msgspec.Struct, frozen=True):
    """timeout_s: None waits for ever."""

    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    timeout_s: int | None


def plan_hooks(hooks: tuple[Hook, ...] | None) -> tuple[PlannedHook, ...]:
    """The specification's hooks, checked."""
    planned = []
    for hook in hooks or ():
        if not hook.path.startswith("/") or "\0" in hook.path:
            raise InvalidArgument(f"invalid hook path {hook.path!r}: not absolute")
        if hook.timeout is not None and hook.timeout <= 0:
            raise InvalidArgument(f"invalid timeout of hook {hook.path}: {hook.timeout}")
        planned.append(PlannedHook(hook.path, hook.args or (hook.path,), hook.env or (), hook.timeout))
    return tuple(planned)


def run_hooks(hooks: tuple[PlannedHook, ...], state: bytes, kind: str) -> None:
    """Runs hooks one after the other; the first that fails raises InvalidArgument with what it printed on stderr."""
    for number, hook in enumerate(hooks):
        status, output = _run(hook, state)
        if status != 0:
            why = f"exit status {os.waitstatus_to_exitcode(status)}" if status >= 0 else "timed out"
            raise InvalidArgument(f"error running {kind} hook #{number}: {why}, stderr: {output.strip()}")


def _run(hook: PlannedHook, state: bytes) -> tuple[int, str]:
    """The hook's wait status (-1 for one that was killed for its time) and the start of its stderr."""
    input_fd = os.memfd_create("hook-state", os.MFD_CLOEXEC)
    output_fd = os.memfd_create("hook-output", os.MFD_CLOEXEC)  # not a pipe: one that nobody reads would block it
    try:
        os.write(input_fd, state)
        os.lseek(input_fd, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            _become_hook(hook, input_fd, output_fd)
        return _wait(pid, output_fd, hook.timeout_s)
    except OSError as error:
        raise KernelError(error.errno or 5, "fork", hook.path) from error
    finally:
        os.close(input_fd)
        os.close(output_fd)


def _become_hook(hook: PlannedHook, input_fd: int, output_fd: int) -> None:
    try:
        os.setpgid(0, 0)
        os.dup2(input_fd, 0)
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        set_cloexec_from(3)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        environment = dict(word.partition("=")[::2] for word in hook.env)
        os.execve(hook.path, list(hook.args), environment)
    except OSError as error:
        os.write(2, f"{hook.path}: {system_text(error.errno or 0)}".encode())
    finally:
        os._exit(127)


def _wait(pid: int, output_fd: int, timeout_s: int | None) -> tuple[int, str]:
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    timed_out = not poll.poll(None if timeout_s is None else timeout_s * 1000)
    os.close(pidfd)
    if timed_out:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    status = os.waitpid(pid, 0)[1]
    output = os.pread(output_fd, _OUTPUT_LIMIT_BYTES, 0).decode("utf-8", "replace")
    return -1 if timed_out else status, output
