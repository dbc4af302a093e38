"""Where `cp` puts things, and under which names: the rules of Docker's command line on paths. Touches only local paths.

A path that ends in `/.` means a directory's content, one that ends in `/` a directory.
"""

from __future__ import annotations

import os
import stat

from tare.cli.command import CliError

_LINKS_MAX = 10


class Thing:
    """A source or destination. rebase: the name its archive's entries should begin with, "" for its own."""

    __slots__ = ("exists", "is_directory", "path", "rebase")

    def __init__(self, path: str, exists: bool, is_directory: bool, rebase: str = "") -> None:
        self.path = path
        self.exists = exists
        self.is_directory = is_directory
        self.rebase = rebase


def split_argument(argument: str) -> tuple[str, str]:
    """(container, path); the container is "" for a local path: an absolute one, or one that begins with a dot."""
    if argument.startswith("/"):
        return "", argument
    container, colon, path = argument.partition(":")
    if not colon or container.startswith("."):
        return "", argument
    return container, path


def names_content(path: str) -> bool:
    return path == "." or path.endswith("/.")


def names_directory(path: str) -> bool:
    return path.endswith("/") or names_content(path)


def clean(path: str) -> str:
    """The shortest path that means the same (as Go's path.Clean)."""
    found = os.path.normpath(path)
    return found[1:] if found.startswith("//") else found


def keep_ending(cleaned: str, original: str) -> str:
    """`cleaned` with the ending of `original` that says it is a directory, or its content."""
    if names_content(original) and not names_content(cleaned):
        return cleaned.rstrip("/") + "/."
    if original.endswith("/") and not cleaned.endswith("/"):
        return cleaned + "/"
    return cleaned


def local_path(path: str) -> str:
    """An absolute local path with its ending kept."""
    return keep_ending(clean(os.path.join(os.getcwd(), path)), path)


def split_entry(path: str) -> tuple[str, str]:
    """(directory, name); the name is "." where the path means a directory's content."""
    cleaned = clean(path)
    if names_content(path) and not names_content(cleaned):
        cleaned = cleaned.rstrip("/") + "/."
    directory, name = os.path.split(cleaned)
    if cleaned == "/":
        name = ""
    return directory, name


def base(path: str) -> str:
    """The last component (as Go's path.Base)."""
    return path.rstrip("/").rpartition("/")[2] or ("/" if path else ".")


def rebased(path: str, target: str) -> tuple[str, str]:
    """A link's target with the link's ending, and the name to give it if that is another."""
    target = keep_ending(target, path)
    return target, base(path) if base(path) != base(target) else ""


def local_source(path: str, follow: bool) -> Thing:
    """A local source; links on the way to it are followed, the last one only if asked for."""
    rebase = ""
    if follow:
        target, rebase = rebased(path, os.path.realpath(path, strict=True))
    else:
        directory, _, last = path.rpartition("/")
        target = os.path.realpath(directory or "/", strict=True).rstrip("/") + "/" + last
        if path.endswith("/") and base(path) != base(target):
            rebase = base(path)
    return Thing(target, True, stat.S_ISDIR(os.lstat(target).st_mode), rebase)


def local_destination(path: str) -> Thing:
    """A local destination; a link there is followed, even to nothing. Its parent directory must be there."""
    for _ in range(_LINKS_MAX + 1):
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            parent = split_entry(path)[0]
            if not stat.S_ISDIR(os.stat(parent).st_mode):
                raise CliError("not a directory") from None
            return Thing(path, False, False)
        if not stat.S_ISLNK(mode):
            return Thing(path, True, stat.S_ISDIR(mode))
        path = os.path.join(split_entry(path)[0], os.readlink(path))
    raise CliError(f'too many symlinks in "{path}"')


def check_local_output(path: str) -> None:
    parent = os.path.dirname(clean(path))
    if parent and not os.path.exists(parent):
        raise CliError(f'invalid output path: directory "{parent}" does not exist')
    if os.path.exists(path) and (stat.S_ISBLK(os.stat(path).st_mode) or stat.S_ISCHR(os.stat(path).st_mode)):
        raise CliError(f'invalid output path: "{path}" must be a directory or a regular file: got a device')


def placed(source: Thing, target: Thing) -> tuple[str, str, str]:
    """(directory to unpack in, old, new): names of entries get their first `old` replaced by `new`."""
    directory, new = split_entry(target.path)
    old = source.rebase or split_entry(source.path)[1]
    if target.exists and target.is_directory:
        return target.path, "", ""
    if target.exists and source.is_directory:
        raise CliError("cannot copy directory")
    if not target.exists and not source.is_directory and names_directory(target.path):
        raise CliError("no such directory")
    return directory, old, new


def renamed(name: str, old: str, new: str) -> str:
    if not old and not new:
        return name
    return name.replace(old, new, 1) if old != "/" else new + name
