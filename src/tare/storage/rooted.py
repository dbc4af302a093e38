"""Paths inside a live root that a descriptor holds: looking at them, and writing them as a tar stream.

Must never walk a container's path as a string, nor follow anything out of the root, whatever is renamed or replaced
meanwhile (CVE-2018-15664, CVE-2021-41089): the kernel resolves below the descriptor (openat2(2), RESOLVE_IN_ROOT).
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from tare import errors
from tare.kernel import fds
from tare.storage.export import Write, export_entry
from tare.storage.merged import Found, Stack
from tare.storage.owners import Owners
from tare.storage.tar_format import Entry
from tare.storage.tar_writer import END, entry_of, format_entry
from tare.storage.tree_reader import read_xattrs
from tare.storage.tree_writer import without_engine_xattrs

# Kernel interfaces dressed as file systems (include/uapi/linux/magic.h): no content to copy, and no place to write to.
VIRTUAL = frozenset(
    (
        *(fds.PROC_SUPER_MAGIC, fds.SYSFS_MAGIC, fds.DEVPTS_SUPER_MAGIC, fds.CGROUP_SUPER_MAGIC),
        *(fds.CGROUP2_SUPER_MAGIC, 0x19800202, 0x73636673, 0x64626720, 0x74726163, 0xCAFE4A11, 0x6165676C),
        *(0x62656570, 0xDE5E81E4, 0x42494E4D, 0x65735543, 0xF97CFF8C, 0x6E736673),
    )
)
_O_PATH = os.O_PATH | os.O_CLOEXEC
_LINKS_MAX = 255


class Missing(errors.NotFound):
    """There is nothing at the path."""


class PathFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a path is. mode: st_mode. link_target: where a symbolic link leads inside the root, resolved to the end."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str = ""


class Place(msgspec.Struct, frozen=True):
    """A path, resolved but for its last component; last is "" where the path asks for a directory itself."""

    parent_fd: int
    last: str
    absolute: str
    status: os.stat_result


def absolute_path(path: str) -> str:
    """`path` from the root on, without `..`; a trailing `/` or `/.`, which asks for a directory's content, is kept."""
    clean = posixpath.normpath("/" + path).replace("//", "/", 1)
    if path == "." or path.endswith("/."):
        return clean.rstrip("/") + "/."
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def base_name(absolute: str) -> str:
    """The name that Docker gives what a path leads to: `/` for the root, `.` for a directory's content."""
    return absolute.rstrip("/").rpartition("/")[2] or "/"


@contextmanager
def located(root_fd: int, path: str) -> Iterator[Place]:
    """A place in the root, open while the block runs. Raises Missing, InvalidArgument."""
    absolute = absolute_path(path)
    directory, _, last = absolute.rpartition("/")
    if last == ".":
        last = ""
    parent_fd = opened(root_fd, directory or "/", os.O_DIRECTORY, path)
    try:
        try:
            status = os.lstat(last, dir_fd=parent_fd) if last else os.fstat(parent_fd)
        except OSError as error:
            raise unresolved(error.errno or 0, path) from error
        yield Place(parent_fd, last, absolute, status)
    finally:
        os.close(parent_fd)


def opened(root_fd: int, directory: str, flags: int, path: str) -> int:
    """An O_PATH descriptor of `directory`, not in a virtual file system. path: what the user asked for."""
    try:
        descriptor = fds.open_in_root(root_fd, directory, _O_PATH | flags)
    except errors.KernelError as error:
        raise unresolved(error.errno, path) from error
    if fds.file_system_type(descriptor) in VIRTUAL:
        os.close(descriptor)
        raise Missing(path)
    return descriptor


def unresolved(number: int, path: str) -> errors.TareError:
    """Why a path leads nowhere, as an error."""
    if number == errno.ENOENT:
        return Missing(path)
    if number in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return errors.InvalidArgument(f"lstat {path}: {errors.system_text(number).lower()}")
    return errors.KernelError(number, "lstat", path)


def look(root_fd: int, path: str) -> PathFacts:
    """What `path` is; a link is not followed. Raises Missing, InvalidArgument."""
    with located(root_fd, path) as place:
        return facts(root_fd, place)


def facts(root_fd: int, place: Place) -> PathFacts:
    status = place.status
    target = ""
    if stat.S_ISLNK(status.st_mode):
        target = _resolved_text(root_fd, place.absolute)
    return PathFacts(
        name=base_name(place.absolute),
        size=status.st_size,
        mode=status.st_mode,
        mtime_ns=status.st_mtime_ns,
        link_target=target,
    )


def _resolved_text(root_fd: int, path: str) -> str:
    """Where a path leads, as text for the client. It is never opened: what changes meanwhile can make it wrong."""
    waiting = [part for part in reversed(path.split("/")) if part]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            done = done[:-1]
            continue
        if part == ".":
            continue
        target = _link_at(root_fd, "/" + "/".join([*done, part]))
        links += 1
        if target is None or links > _LINKS_MAX:
            done.append(part)
            continue
        if target.startswith("/"):
            done = []
        waiting += [piece for piece in reversed(target.split("/")) if piece]
    return "/" + "/".join(done)


def _link_at(root_fd: int, path: str) -> str | None:
    try:
        descriptor = fds.open_in_root(root_fd, path, _O_PATH | os.O_NOFOLLOW)
    except errors.KernelError:
        return None
    try:
        return os.readlink("", dir_fd=descriptor)  # an empty path means the link itself (readlink(2))
    except OSError:
        return None
    finally:
        os.close(descriptor)


def write_archive(place: Place, write: Write, owners: Owners | None = None) -> None:
    """Writes what is at a place as a tar whose names begin with the place's own name; sockets are left out.

    owners: of a container with a user namespace of its own; the archive has its ids.
    """
    shown = entry_of if owners is None else owners.shown
    name = os.fsencode(base_name(place.absolute))
    links: dict[tuple[int, int], bytes] = {}
    if not stat.S_ISDIR(place.status.st_mode):
        if not stat.S_ISSOCK(place.status.st_mode):
            last = os.fsencode(place.last)
            export_entry(Found(last, last, place.parent_fd, 0, place.status), name, links, write, shown)
        write(END)
        return
    directory_fd = fds.openat2(
        place.parent_fd, place.last or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, 0, fds.RESOLVE_BENEATH
    )
    try:
        with Stack.of_directory(directory_fd) as stack:
            _write_tree(stack, b"" if name == b"/" else name, write, from_root=name == b"/", links=links, shown=shown)
    finally:
        os.close(directory_fd)
    write(END)


def _write_tree(
    stack: Stack,
    prefix: bytes,
    write: Write,
    *,
    from_root: bool,
    links: dict[tuple[int, int], bytes],
    shown: Callable[..., Entry],
) -> None:
    top = stack.root_fds[0]
    if fds.file_system_type(top) in VIRTUAL:
        raise Missing(os.fsdecode(prefix))
    write(format_entry(shown(prefix, os.fstat(top), b"", without_engine_xattrs(read_xattrs(top, b".")))))

    def enters(found: Found) -> bool:
        if from_root and found.path == b"dev":
            return os.fstat(top).st_dev == found.status.st_dev  # not what the engine itself mounted there
        return not _leads_to_virtual(found)

    for found in stack.walk(whiteouts=True, enters=enters):
        if stat.S_ISSOCK(found.status.st_mode):
            continue
        try:
            export_entry(found, prefix + b"/" + found.path, links, write, shown)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed or replaced meanwhile


def _leads_to_virtual(found: Found) -> bool:
    if os.fstat(found.directory_fd).st_dev == found.status.st_dev:
        return False
    try:
        descriptor = os.open(found.name, _O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=found.directory_fd)
    except OSError:
        return True  # removed or replaced meanwhile
    try:
        return fds.file_system_type(descriptor) in VIRTUAL
    finally:
        os.close(descriptor)
