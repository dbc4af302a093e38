"""Looks up a container's command, working directory and environment as they are inside; executes nothing."""

from __future__ import annotations

import errno
import os
import stat

from tare.errors import KernelError
from tare.kernel.fds import open_in_root
from tare.runtime.failure import CommandError, errno_text, sentence


def parse_environment(words: tuple[str, ...]) -> dict[str, str]:
    """`KEY=value` words as a mapping; of several with one key the last wins, words without `=` are dropped."""
    environment: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key:
            environment.pop(key, None)
            environment[key] = value
    return environment


def _problem(path: str) -> int:
    """The errno that executing `path` would meet, as far as it can be seen; 0 for none."""
    try:
        facts = os.stat(path)
    except OSError as error:
        return error.errno or errno.EIO
    if stat.S_ISDIR(facts.st_mode):
        return errno.EISDIR
    if not facts.st_mode & 0o111 or not os.access(path, os.X_OK, effective_ids=True):
        return errno.EACCES
    return 0


def find_command(name: str, search_path: str) -> str:
    """The file that `name` means, by Go's rules (exec.LookPath), whose texts Docker's users know."""
    if "/" in name:
        problem = _problem(name)
        if problem == 0:
            return name
        where = f"stat {name}: " if problem not in (errno.EACCES, errno.EISDIR) else ""
        raise CommandError(f'exec: "{name}": {where}{errno_text(problem)}', problem)
    for directory in search_path.split(":") if name and search_path else ():
        path = f"{directory or '.'}/{name}"
        if _problem(path) == 0:
            if not path.startswith("/"):
                raise CommandError(
                    f'exec: "{name}": cannot run executable found relative to current directory', errno.ENOENT
                )
            return path
    raise CommandError(f'exec: "{name}": executable file not found in $PATH', errno.ENOENT)


def enter_directory(root_fd: int, path: str) -> None:
    """Makes `path` the working directory: inside the root, and by no magic link (CVE-2024-21626)."""
    try:
        fd = open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
        try:
            os.fchdir(fd)
        finally:
            os.close(fd)
    except KernelError as error:
        raise CommandError(
            f'chdir to cwd ("{path}") set in config.json failed: {errno_text(error.errno)}', error.errno
        ) from error
    except OSError as error:
        raise CommandError(
            f'chdir to cwd ("{path}") set in config.json failed: {sentence(error)}', error.errno or 5
        ) from error
    try:
        inside = os.getcwd().startswith("/")
    except OSError:
        inside = False
    if not inside:
        raise CommandError(
            "current working directory is outside of container mount namespace root"
            " -- possible container breakout detected",
            errno.EXDEV,
        )
