"""The cgroup file system: reads, writes, makes and removes its files and directories, with typed errors.

Knows no controller and no policy, follows no path it did not get, and never decides what a limit means.
"""

from __future__ import annotations

import errno
import os
import select
import time

from tare.errors import KernelError

_READ_SIZE = 65536


def read(path: str) -> str:
    """The whole text of a cgroup file, without the final newline."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = b""
            while chunk := os.read(fd, _READ_SIZE):  # seq_file hands out about a page at a time
                text += chunk
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "read", path) from error
    return text.decode("ascii", "replace").rstrip("\n")


def read_if_present(path: str) -> str | None:
    """The text of a cgroup file, or None where this kernel has no such file (or it offers nothing to read)."""
    try:
        return read(path)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV):
            return None
        raise


def write(path: str, value: str) -> None:
    """Writes `value` in one write(2), as cgroup files want it; never creates the file."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "write", path, f"setting {value!r}") from error


def write_each(path: str, values: list[str]) -> None:
    """Writes each value in a write(2) of its own through one descriptor (device rules, throttles)."""
    value = ""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for value in values:
                os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "write", path, f"setting {value!r}") from error


def parse_flat(text: str) -> dict[str, int]:
    """`key value` lines as a mapping; lines of another shape, and values that are no number, are left out."""
    values: dict[str, int] = {}
    for line in text.split("\n"):
        key, _, value = line.partition(" ")
        if value.isdigit():
            values[key] = int(value)
    return values


def read_pids(directory: str) -> list[int]:
    """The processes of one cgroup; none if it is gone."""
    try:
        text = read(directory + "/cgroup.procs")
    except KernelError as error:
        # EOPNOTSUPP: a threaded cgroup2, whose processes are listed by its domain (cgroups(7)).
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return []
        raise
    # 0 stands for a process outside our pid namespace.
    return [pid for line in text.split() if (pid := int(line)) > 0]


def make(directory: str) -> bool:
    """Makes a cgroup in one that is there; True if it was not there itself."""
    try:
        os.mkdir(directory, 0o755)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "mkdir", directory) from error


def children(directory: str) -> list[str]:
    """The paths of the cgroups right below one; none if it is gone."""
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "getdents", directory) from error


def descendants(directory: str) -> list[str]:
    """The cgroup and all below it, the deepest first."""
    found: list[str] = []
    for child in children(directory):
        found += descendants(child)
    found.append(directory)
    return found


def remove(directory: str, timeout_s: float) -> None:
    """Removes a cgroup and all below it, deepest first; waits until they are empty. One that is gone is no error."""
    deadline = time.monotonic() + timeout_s
    pause = 0.0005
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # EBUSY: it has children, or a process that has not been reaped yet. ENOTEMPTY: a plain directory tree.
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise KernelError(error.errno or errno.EIO, "rmdir", directory) from error
            left = deadline - time.monotonic()
            if left <= 0:
                raise KernelError(errno.EBUSY, "rmdir", directory, "cgroup still has processes") from error
        for child in children(directory):
            remove(child, max(left, 0.0))
        wait_event(directory + "/cgroup.events", "populated", 0, min(pause, left))
        pause = min(pause * 2, 0.05)


def remove_if_empty(directory: str) -> None:
    """Removes a cgroup that has neither processes nor children; leaves any other alone."""
    try:
        os.rmdir(directory)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
            raise KernelError(error.errno or errno.EIO, "rmdir", directory) from error


def wait_event(path: str, key: str, value: int, timeout_s: float) -> bool:
    """Waits until `key` of a cgroup.events file (cgroup2) is `value`; sleeps the time where there is no such file."""
    deadline = time.monotonic() + timeout_s
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        time.sleep(timeout_s)
        return False
    try:
        poll = select.poll()
        # The file signals POLLPRI on each change (Documentation/admin-guide/cgroup-v2.rst, "cgroup.events").
        poll.register(fd, select.POLLPRI)
        while True:
            try:
                text = os.pread(fd, 4096, 0).decode()
            except OSError as error:
                if error.errno == errno.ENODEV:  # the cgroup was removed
                    return key == "populated" and value == 0
                raise KernelError(error.errno or errno.EIO, "read", path) from error
            if parse_flat(text).get(key) == value:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
    finally:
        os.close(fd)
