"""Users and groups as the files inside a root name them. Never asks the host's databases, and loads no NSS module.

Rules: an all-digit name is a number, never looked up (CVE-2016-3697, CVE-2026-46680); numbers end at 2147483647
(CVE-2024-40635); the primary group is among the supplementary ones (CVE-2022-36109); only small regular files are read
(CVE-2024-9676).
"""

from __future__ import annotations

import msgspec

from tare.errors import InvalidArgument
from tare.kernel.fds import read_in_root

ID_MAX = 2147483647
FILE_LIMIT_BYTES = 4 * 1024 * 1024


class ResolvedUser(msgspec.Struct, frozen=True):
    """Who a process runs as. home: of the passwd entry, or `/`."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    home: str


class _Entry(msgspec.Struct):
    name: str
    uid: int
    gid: int
    home: str


class _Group(msgspec.Struct):
    name: str
    gid: int
    members: list[str]


def _lines(root_fd: int, path: str) -> list[list[str]]:
    content = read_in_root(root_fd, path, FILE_LIMIT_BYTES)
    if content is None:
        return []
    return [line.split(":") for line in content.decode("utf-8", "surrogateescape").split("\n")]


def _number(text: str) -> int:
    """A uid or gid of a file; -1 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1


def _read_passwd(root_fd: int) -> list[_Entry]:
    entries = []
    for fields in _lines(root_fd, "/etc/passwd"):
        if len(fields) >= 6 and 0 <= _number(fields[2]) <= ID_MAX and 0 <= _number(fields[3]) <= ID_MAX:
            entries.append(_Entry(fields[0], int(fields[2]), int(fields[3]), fields[5]))
    return entries


def _read_group(root_fd: int) -> list[_Group]:
    groups = []
    for fields in _lines(root_fd, "/etc/group"):
        if len(fields) >= 3 and 0 <= _number(fields[2]) <= ID_MAX:
            members = [name.strip() for name in fields[3].split(",")] if len(fields) > 3 else []
            groups.append(_Group(fields[0], int(fields[2]), members))
    return groups


def _parse_id(text: str) -> int | None:
    """The number that an all-digit text is; None for a name; InvalidArgument where it is out of range."""
    if not (text.isascii() and text.isdigit()):
        # "-1" and "+5" are neither numbers nor names that anyone could mean.
        if text[:1] in "-+" and text[1:].isdigit():
            raise InvalidArgument("uids and gids must be in range 0-2147483647")
        return None
    if len(text) > 10 or int(text) > ID_MAX:
        raise InvalidArgument("uids and gids must be in range 0-2147483647")
    return int(text)


def _find_gid(name: str, groups: list[_Group]) -> int:
    number = _parse_id(name)
    if number is not None:
        return number
    for group in groups:
        if group.name == name:
            return group.gid
    raise InvalidArgument(f"unable to find group {name}: no matching entries in group file")


def resolve_user(root_fd: int, user: str, group_add: tuple[str, ...] = ()) -> ResolvedUser:
    """Resolves Docker's `--user` (`name`, `uid`, `name:group`, `uid:gid`, empty for root) and `--group-add` in a root.

    With an explicit group the user's other groups don't count, as in Docker.
    """
    user_part, _, group_part = user.partition(":")
    uid_given = _parse_id(user_part)
    passwd = _read_passwd(root_fd)
    groups = _read_group(root_fd)
    entry = None
    if uid_given is not None or not user_part:
        uid = uid_given or 0
        entry = next((entry for entry in passwd if entry.uid == uid), None)
    else:
        entry = next((entry for entry in passwd if entry.name == user_part), None)
        if entry is None:
            raise InvalidArgument(f"unable to find user {user_part}: no matching entries in passwd file")
        uid = entry.uid
    if group_part:
        gid = _find_gid(group_part, groups)
        additional: list[int] = []
    else:
        gid = entry.gid if entry else 0
        name = entry.name if entry else None
        additional = [group.gid for group in groups if name is not None and name in group.members]
    additional += [_find_gid(name, groups) for name in group_add]
    unique = dict.fromkeys((gid, *additional))
    return ResolvedUser(uid, gid, tuple(unique), (entry.home if entry else "") or "/")


def find_home(root_fd: int, uid: int) -> str:
    """The home directory of a numeric user; `/` where the root doesn't tell, or tells in a file we won't read."""
    try:
        passwd = _read_passwd(root_fd)
    except InvalidArgument:
        return "/"
    return next((entry.home for entry in passwd if entry.uid == uid), "") or "/"
