"""`--socket path=…,role=…`: sockets on which the API does less than everything. Parses; opens and decides nothing."""

from __future__ import annotations

import grp

import msgspec

from tare.errors import InvalidArgument

ROLES = ("viewer", "operator", "admin")
PROJECT_LABEL = "com.docker.compose.project"
_RESERVED = frozenset("image name signal exitCode execDuration execID oldName container driver reclaimed".split())
"""Names that events bear beside a container's labels: as a scope they would match what isn't a label."""


class ScopedSocket(msgspec.Struct, frozen=True, kw_only=True):
    """A socket, who may open it, and what may be done there, to containers with which labels."""

    path: str
    role: str
    labels: dict[str, str] = {}
    group: str = ""


def parse_socket(text: str) -> ScopedSocket:
    """`path=/run/x.sock,role=operator,label=team=red,project=shop,group=dev`. Raises InvalidArgument."""
    given: dict[str, str] = {}
    labels: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise InvalidArgument(f"invalid socket {text!r}: {part!r} is not key=value")
        if key == "label":
            name, separator, wanted = value.partition("=")
            if not separator or not name or name in _RESERVED:
                raise InvalidArgument(f"invalid socket {text!r}: a label is label=NAME=VALUE, and NAME not an event's")
            _add(labels, name, wanted, text)
        elif key == "project":
            _add(labels, PROJECT_LABEL, value, text)
        elif key in ("path", "role", "group"):
            _add(given, key, value, text)
        else:
            raise InvalidArgument(f"invalid socket {text!r}: no such key: {key}")
    if not given.get("path", "").startswith("/"):
        raise InvalidArgument(f"invalid socket {text!r}: it needs an absolute path")
    if given.get("role") not in ROLES:
        raise InvalidArgument(f"invalid socket {text!r}: role is one of {', '.join(ROLES)}")
    if labels and given["role"] == "admin":
        raise InvalidArgument(f"invalid socket {text!r}: an admin's labels would bind nobody; use role=operator")
    return ScopedSocket(path=given["path"], role=given["role"], labels=labels, group=given.get("group", ""))


def check_group(wanted: ScopedSocket) -> None:
    """Raises InvalidArgument if this machine doesn't have the group."""
    try:
        if wanted.group:
            grp.getgrnam(wanted.group)
    except KeyError as error:
        raise InvalidArgument(f"invalid socket {wanted.path}: no such group: {wanted.group}") from error


def _add(found: dict[str, str], key: str, value: str, text: str) -> None:
    if key in found:
        raise InvalidArgument(f"invalid socket {text!r}: {key} is given twice")
    found[key] = value
