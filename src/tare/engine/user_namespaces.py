"""Which containers have a user namespace of their own, and which of the host's ids are theirs (user_namespaces(7)).

Two containers never have the same ids, but where the whole engine is remapped to one range, as with dockerd. Files keep
their owners on the disks, whatever the range (the runtime's mounts are mapped), so that it may differ at each start.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from tare.engine.engine import Engine
from tare.engine.options import HostOptions
from tare.engine.records import Container, IdRange
from tare.errors import InvalidArgument, ResourceExhausted, Unsupported

IDS = 65536
"""How many a container has: 0 to 65535 inside, which is all that files of images are owned by."""

FIRST, PAST = 0x10000000, 0x70000000
"""Where ranges are taken from if the machine's files don't say (uid_t is 32 bits; programs misread the upper half)."""

SUBORDINATE = ("tare", "dockremap")
"""The users whose lines of /etc/subuid and /etc/subgid are for containers (subuid(5))."""

REMAP_PAST = 0x7FFF0000
"""Up to where remapped engines have their ranges, from PAST on, if the machine's files don't say."""


def is_private(host: HostOptions, remapped: IdRange | None) -> bool:
    """Whether a container has a user namespace of its own."""
    return host.userns_mode == "private" or (remapped is not None and host.userns_mode != "host")


def check_user_namespace(host: HostOptions, remapped: IdRange | None) -> None:
    """Raises InvalidArgument, with Docker's texts, for what can't be had with one; Unsupported for what we can't do."""
    if not is_private(host, remapped):
        return
    if host.privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace "
            "when running privileged mode"
        )
    if host.network_mode == "host":
        raise InvalidArgument("cannot share the host's network namespace when user namespaces are enabled")
    if host.pid_mode == "host":
        raise InvalidArgument("cannot share the host PID namespace when user namespaces are enabled")
    if host.ipc_mode == "host":
        raise InvalidArgument("cannot share the host's IPC namespace when user namespaces are enabled")
    joins = [("PID", host.pid_mode), ("IPC", host.ipc_mode)]
    if host.userns_mode == "private":  # else they have the same ids, and one user namespace can be both's
        joins.append(("network", host.network_mode))
    for kind, mode in joins:
        if mode.startswith("container:"):
            raise Unsupported(
                f"joining another container's {kind} namespace from a user namespace of one's own is not supported by "
                "Tare yet"
            )
    for device in host.devices or ():
        if device.path_in_container not in ("", device.path_on_host):
            raise Unsupported(
                f"device {device.path_on_host} at another place in a user namespace is not supported by Tare yet"
            )


def assigned(engine: Engine, container: Container) -> Container:
    """The container with the ids that it will run with, stored. Raises ResourceExhausted if all are taken."""
    remapped = engine.settings.userns_remap
    check_user_namespace(container.host, remapped)
    ids: IdRange | None = None
    if container.host.userns_mode == "private":
        taken = {other.ids.uid for other in engine.containers if other.ids is not None and other.id != container.id}
        ids = container.ids
        if ids is None or ids.uid in taken or ids == remapped:
            ids = _free_range(engine.settings.engine_id, taken | ({remapped.uid} if remapped else set()))
    elif is_private(container.host, remapped):
        ids = remapped
    if ids == container.ids:
        return container
    return engine.containers.save(msgspec.structs.replace(container, ids=ids))


def _free_range(engine_id: str, taken: set[int]) -> IdRange:
    for user in SUBORDINATE:
        found = [*_lines("uid", user), *_lines("gid", user)]
        if len(found) == 2:
            return _free_in(found[0], found[1], taken, user, engine_id)
    return _free_between(FIRST, PAST, taken, engine_id)


def _free_between(begin: int, end: int, taken: set[int], engine_id: str) -> IdRange:
    foreign = [(first, first + count) for kind in ("uid", "gid") for _, first, count in subordinate(kind)]
    for slot in _slots((end - begin) // IDS, engine_id):
        first = begin + slot * IDS
        if first not in taken and not any(low < first + IDS and first < past for low, past in foreign):
            return IdRange(uid=first, gid=first)
    raise ResourceExhausted("all ranges of user ids are taken by other containers")


def _slots(count: int, engine_id: str) -> Iterator[int]:
    """All of them; each engine begins elsewhere, since two on one machine don't know of each other's containers."""
    begin = int.from_bytes(sha256(engine_id.encode()).digest()[:4], "big")
    return ((begin + number) % count for number in range(count))


def _free_in(uids: tuple[int, int], gids: tuple[int, int], taken: set[int], user: str, engine_id: str) -> IdRange:
    for number in _slots(min(uids[1], gids[1]) // IDS, engine_id):
        found = IdRange(uid=uids[0] + number * IDS, gid=gids[0] + number * IDS)
        if found.uid not in taken:
            return found
    raise ResourceExhausted(
        f"the subordinate ids of user {user} (/etc/subuid, /etc/subgid) are taken by other containers"
    )


def _lines(kind: str, user: str) -> list[tuple[int, int]]:
    """The first range of a user that is large enough."""
    return [(first, count) for name, first, count in subordinate(kind) if name == user and count >= IDS][:1]


def subordinate(kind: str) -> list[tuple[str, int, int]]:
    """(user, first id, how many) of each line of /etc/subuid or /etc/subgid. kind: uid or gid."""
    try:
        lines = Path(f"/etc/sub{kind}").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        name, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if first.isascii() and first.isdigit() and count.isascii() and count.isdigit():
            found.append((name, int(first), int(count)))
    return found


def remapped_range(text: str, engine_id: str) -> IdRange | None:
    """What `--userns-remap` says: the ids of all containers. Raises InvalidArgument if such a user has none.

    What the machine's files say is the administrator's word, also where it makes two engines share a range.
    """
    if not text:
        return None
    if text == "default":
        for user in SUBORDINATE:
            ranges = [*_lines("uid", user), *_lines("gid", user)]
            if len(ranges) == 2:
                return IdRange(uid=ranges[0][0], gid=ranges[1][0])
        return _free_between(PAST, REMAP_PAST, set(), engine_id)
    user, _, group = text.partition(":")
    uids = [found for name in _user_names(user) for found in _lines("uid", name)]
    gids = [found for name in (_group_names(group) if group else _user_names(user)) for found in _lines("gid", name)]
    if not uids or not gids:
        file, whom = ("uid", user) if not uids else ("gid", group or user)
        raise InvalidArgument(f"userns-remap: no {IDS} subordinate ids found for {whom} in /etc/sub{file}")
    return IdRange(uid=uids[0][0], gid=gids[0][0])


def _user_names(text: str) -> list[str]:
    """A user and its other name: lines may begin with the name or the number (subuid(5))."""
    try:
        if text.isascii() and text.isdigit():
            return [text, pwd.getpwuid(int(text)).pw_name]
        return [text, str(pwd.getpwnam(text).pw_uid)]
    except KeyError:
        return [text]


def _group_names(text: str) -> list[str]:
    try:
        if text.isascii() and text.isdigit():
            return [text, grp.getgrgid(int(text)).gr_name]
        return [text, str(grp.getgrnam(text).gr_gid)]
    except KeyError:
        return [text]


def id_maps(ids: IdRange | None) -> tuple[str, str] | None:
    """The contents of uid_map and gid_map."""
    if ids is None:
        return None
    return f"0 {ids.uid} {IDS}\n", f"0 {ids.gid} {IDS}\n"
