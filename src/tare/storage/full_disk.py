"""A full disk: told with its name, and with a reserve by which what frees space still works.

Must never let a failure for want of space look like another, nor use up the reserve for anything but removals.

    <database's directory>/.reserve       some blocks; gone while a removal (or a start) on a full disk needs them
    <database's directory>/.reserve.<n>   an inode each, likewise
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from tare import errors

RESERVE = ".reserve"
RESERVE_BYTES = 4 << 20
RESERVE_INODES = 8
_SCARCE_BYTES = 1 << 20
_SCARCE_INODES = 32
_PLENTY = 32  # times what is taken must be free; a small disk's reserve is smaller
_LEAST_BYTES = 512 << 10
_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_ESCAPED = re.compile(r"\\([0-7]{3})")  # proc_pid_mountinfo(5): space, tab, newline, backslash
_TEXT = "no space left on device"
P = ParamSpec("P")
R = TypeVar("R")


class Reserve:
    """Blocks and inodes kept back on the disk of the database."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / RESERVE
        self._inodes = [directory / f"{RESERVE}.{number}" for number in range(RESERVE_INODES)]
        self.is_missing = True
        """It was given back, or there has been no room for it."""

    def release(self) -> None:
        """Before a removal: gives back what there is hardly anything left of."""
        status = os.statvfs(self._directory)
        if status.f_bfree * status.f_frsize < _SCARCE_BYTES:
            self.is_missing = True
            self._path.unlink(missing_ok=True)
        if status.f_files > 0 and status.f_ffree < _SCARCE_INODES:
            self.is_missing = True
            for path in self._inodes:
                path.unlink(missing_ok=True)

    def refill(self) -> None:
        """Takes it where there is plenty. Never fails."""
        try:
            status = os.statvfs(self._directory)
            size = min(RESERVE_BYTES, status.f_bfree * status.f_frsize // _PLENTY)
            if size >= _LEAST_BYTES and not self._path.exists():
                _make(self._path, size)
            if status.f_ffree >= RESERVE_INODES * _PLENTY and not self._inodes[-1].exists():
                for path in self._inodes:
                    path.touch(mode=0o600)
            without_inodes = status.f_files > 0 and not self._inodes[-1].exists()
            self.is_missing = without_inodes or not self._path.exists()
        except OSError:
            pass  # a file system that can't, or somebody was faster


def _make(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        path.unlink()  # half of it is none
        raise
    finally:
        os.close(descriptor)


def free_bytes(directory: Path) -> int:
    """What root can still write there."""
    status = os.statvfs(directory)
    return status.f_bfree * status.f_frsize


def is_full(error: BaseException) -> bool:
    """Whether that is a failure for want of space, or of inodes or quota."""
    if isinstance(error, OSError | errors.KernelError):
        return error.errno in _NUMBERS
    return isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error)


@contextmanager
def naming_the_disk(directory: Path) -> Iterator[None]:
    """Raises ResourceExhausted with the disk's name for whatever fails in the block because the disk is full."""
    try:
        yield
    except (OSError, sqlite3.OperationalError, errors.ResourceExhausted) as error:
        told = full_disk_error(error, directory)
        if told is None:
            raise
        raise told from error


def full_disk_error(error: BaseException, directory: Path | None = None) -> errors.ResourceExhausted | None:
    """What to say of an error that a full disk caused, None of any other (and of one that says it already).

    directory: where it was written; without one the error's own path counts, if it has one.
    """
    if isinstance(error, errors.ResourceExhausted):
        disk = disk_of(directory) if directory is not None else ""
        if not disk or _TEXT not in str(error) or disk in str(error):
            return None
        return errors.ResourceExhausted(f"{error} ({disk})")
    if not is_full(error):
        return None
    path = _path_of(error) if directory is None else directory
    return errors.ResourceExhausted(f"{path}: {_TEXT} ({disk_of(path)})" if path is not None else _TEXT)


def _path_of(error: BaseException) -> Path | None:
    name = getattr(error, "path" if isinstance(error, errors.KernelError) else "filename", None)
    path = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
    return path if path is not None and path.is_absolute() else None


class _Rooted(Protocol):
    @property
    def root(self) -> Path: ...


S = TypeVar("S", bound=_Rooted)


def names_its_disk(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method of what lives below `root`: a full disk is told with its name."""

    @wraps(method)
    def told(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except (OSError, sqlite3.OperationalError, errors.ResourceExhausted) as error:
            better = full_disk_error(error, self.root)
            if better is None:
                raise
            raise better from error

    return told


def disk_of(directory: Path) -> str:
    """The mount that a directory is on, in words: `/dev/sda1 on /var`."""
    path = directory.resolve()
    best = ("", "")
    for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).rstrip("\n").split("\n"):
        fields, _, rest = line.partition(" - ")
        point = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields.split(" ")[4])
        if (path == Path(point) or Path(point) in path.parents) and len(point) >= len(best[0]):
            best = (point, rest.split()[1])
    return f"{best[1]} on {best[0]}"
