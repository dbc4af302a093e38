"""`tared`: reads its options, takes the lock, forks the launcher, and runs the engine until it is told to stop.

The launcher is forked before anything that starts a thread or a loop is even imported.
"""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import sys

import tare
from tare.daemon.settings import DaemonSettings, load_settings, make_parser
from tare.errors import Conflict, TareError
from tare.runtime.interpreter import protect_interpreter
from tare.runtime.launcher import fork_launcher

_LEVELS = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "error": "ERROR", "fatal": "CRITICAL"}


def main(argv: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    options = vars(make_parser().parse_args(argv))
    config_file, validate = options.pop("config_file"), options.pop("validate")
    if options.pop("version"):
        print(f"Tare version {tare.__version__}")
        return 0
    try:
        settings = load_settings(options, config_file)
        if validate:
            print("configuration OK")
            return 0
        if os.geteuid() != 0:
            raise Conflict("tared needs to be started as root")
        return _run(settings)
    except (TareError, OSError) as error:
        print(f"tared: {error}", file=sys.stderr)
        return 1


def _raise_own_limit() -> None:
    """Published ports and clients need descriptors; containers, the launcher's children, keep the limit that we got."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _run(settings: DaemonSettings) -> int:
    protect_interpreter()
    os.umask(0o022)
    _make_directories(settings)
    lock_fds = [_lock(f"{directory}/tared.lock") for directory in (settings.data_root, settings.exec_root)]
    for root in (settings.data_root, settings.exec_root):
        os.makedirs(f"{root}/containers", mode=0o700, exist_ok=True)
    launcher_pid, connection = fork_launcher()
    _raise_own_limit()
    import asyncio
    import logging

    from tare.daemon.compose import run_engine

    level = "DEBUG" if settings.debug else _LEVELS[settings.log_level]
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not walk it again and again
    try:
        asyncio.run(run_engine(settings, launcher_pid, connection))
    finally:
        for fd in lock_fds:
            os.close(fd)
    return 0


def _make_directories(settings: DaemonSettings) -> None:
    """The data root is nobody's to look into: images hold setuid files of foreign making (CVE-2021-41091)."""
    os.makedirs(settings.data_root, mode=0o710, exist_ok=True)
    os.chmod(settings.data_root, 0o710)
    os.makedirs(settings.exec_root, mode=0o711, exist_ok=True)


def _lock(path: str) -> int:
    """Holds a lock file for the life of this process. Raises Conflict if another tared holds it.

    A record lock (fcntl(2)), not flock(2): launcher and monitors inherit the descriptor, outlive us, and would keep a
    flock, so that no other tared could follow while a container lives.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Conflict(f"another tared uses {os.path.dirname(path)}") from error
    return fd


if __name__ == "__main__":
    sys.exit(main())
