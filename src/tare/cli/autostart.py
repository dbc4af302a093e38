"""Starts `tared` when nobody listens on the default socket, and waits until it answers.

Only the default address does this. Must never leave a child of this process behind, nor hold a descriptor of the user's
terminal open in the daemon.
"""

from __future__ import annotations

import os
import sys
import time

from tare.cli.command import CliError
from tare.client.errors import CannotConnect

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

PATIENCE_S = 10.0
FIRST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.1
LOG_TAIL_BYTES = 4000
LOG_TAIL_LINES = 15


def daemon_command() -> list[str]:
    """What TARE_DAEMON names, or `tared` beside this interpreter (a virtual environment's bin) or beside `tare`, or the
    module."""
    chosen = os.environ.get("TARE_DAEMON")
    if chosen:
        return [chosen]
    places = [os.path.dirname(sys.executable), os.path.dirname(os.path.realpath(sys.argv[0]))]
    for place in places:
        path = os.path.join(place, "tared")
        if place and os.access(path, os.X_OK):
            return [path]
    return [sys.executable, "-m", "tare.daemon.main"]


def log_path(socket_path: str) -> str:
    """Where the started daemon's output goes: /var/log for root, beside the socket otherwise."""
    if os.geteuid() == 0 and socket_path.startswith("/run/"):
        return "/var/log/tared.log"
    return os.path.join(os.path.dirname(socket_path), "tared.log")


def start_engine(connect: Callable[[float | None], _socket.socket], socket_path: str) -> _socket.socket:
    """Start the daemon and return a connection to it.

    Two that start at once are no trouble: the daemon locks its data root, the second one exits, and both callers find
    the first one's socket.
    """
    log = log_path(socket_path)
    pid = spawn_detached(daemon_command(), log)
    deadline = time.monotonic() + PATIENCE_S
    pause = FIRST_PAUSE_S
    while True:
        time.sleep(pause)
        try:
            plug = connect(None)
        except CannotConnect:
            gone = not _is_alive(pid)
            if time.monotonic() > deadline or (gone and time.monotonic() > deadline - PATIENCE_S + 2):
                raise CliError(failure_text(socket_path, log, gone)) from None
            pause = min(pause * 1.5, LONGEST_PAUSE_S)
            continue
        if _is_alive(pid):
            sys.stderr.write(f"tare: started tared (pid {pid}); TARE_AUTOSTART=0 turns this off\n")
            sys.stderr.flush()
        return plug


def failure_text(socket_path: str, log: str, gone: bool) -> str:
    what = "exited" if gone else f"doesn't answer on unix://{socket_path} after {PATIENCE_S:.0f} s"
    lines = [f"Cannot connect to the Tare daemon: tare started tared, but it {what}. The end of its log ({log}):"]
    try:
        with open(log, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES, 0))
            tail = file.read().decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
    except OSError as error:
        tail = [str(error)]
    return "\n  ".join([*lines, *tail])


def spawn_detached(command: list[str], log: str) -> int:
    """Run `command` in a session of its own, with no tie to us (double fork, man 2 setsid); returns its pid."""
    log_directory = os.path.dirname(log)
    os.makedirs(log_directory, mode=0o755, exist_ok=True)
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become_daemon(command, log_fd, write_fd)
    os.close(write_fd)
    os.close(log_fd)
    answer = b""
    while piece := os.read(read_fd, 64):
        answer += piece
    os.close(read_fd)
    os.waitpid(child, 0)
    if not answer:
        raise CliError(f"tare: can't start {command[0]}")
    return int(answer)


def _become_daemon(command: list[str], log_fd: int, write_fd: int) -> None:
    """In the child: never returns."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(write_fd, b"%d" % os.getpid())
        os.chdir("/")
        os.umask(0o022)
        null_fd = os.open("/dev/null", os.O_RDWR)
        os.dup2(null_fd, 0)
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        os.closerange(3, 1024)
        _reset_signals()
        environment = {name: value for name, value in os.environ.items() if name not in ("TARE_HOST", "DOCKER_HOST")}
        os.execve(command[0], command, environment)
    except BaseException as error:
        os.write(2, f"tare: can't start {command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _reset_signals() -> None:
    import _signal  # type: ignore[import-not-found]

    for number in range(1, 32):
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # SIGKILL and SIGSTOP
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def _is_alive(pid: int) -> bool:
    """Is it running (and not a zombie of an init that doesn't reap)?"""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
