"""Which names and options a volume may have, with Docker's texts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tare.errors import InvalidArgument, NotFound
from tare.values.units import parse_bytes
from tare.volumes.records import LOCAL_DRIVER, LocalMount

MAX_NAME_LENGTH = 255
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_TYPE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_OPTIONS = ("type", "o", "device", "size")


def check_name(name: str) -> str:
    """Raises InvalidArgument unless a volume may be called that: it becomes a directory's name (moby-4f84bcb967)."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.match(name):
        raise InvalidArgument(
            f'create {name[:300]}: "{name[:300]}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidArgument(f"create {name[:300]}: volume name is too long, at most {MAX_NAME_LENGTH} characters")
    return name


def check_driver(name: str, driver: str) -> None:
    """Raises NotFound for any driver but the local one: there are no plugins."""
    if driver not in ("", LOCAL_DRIVER):
        raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')


def parse_size(name: str, options: Mapping[str, str] | None) -> int:
    """How many bytes the volume's files may take; 0: no limit. Raises InvalidArgument."""
    text = (options or {}).get("size", "")
    if not text:
        return 0
    try:
        size_bytes = parse_bytes(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"create {name}: {error}") from error
    if size_bytes and (options or {}).get("type"):
        raise InvalidArgument(
            f'create {name}: option "size" limits a directory of the engine\'s own, not what "type" and "device" mount '
            '(for a tmpfs say "o=size=…")'
        )
    return size_bytes


def parse_local_options(name: str, options: Mapping[str, str] | None) -> LocalMount | None:
    """What the options have mounted; None where there are none. Raises InvalidArgument."""
    if not options:
        return None
    for option in options:
        if option not in _OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
    kind, device = options.get("type", ""), options.get("device", "")
    for missing, given in (("device", kind or options.get("o")), ("type", device)):
        if given and not options.get(missing):
            raise InvalidArgument(f'create {name}: missing required option: "{missing}"')
    if not kind:
        return None
    words = tuple(word for word in options.get("o", "").split(",") if word)
    if not _TYPE.match(kind) or any("\0" in word for word in (device, *words)):
        raise InvalidArgument(f"create {name}: invalid mount options")
    mount = LocalMount(type=kind, device=device, options=words)
    if kind == "none" and not mount.is_bind:
        raise InvalidArgument(f'create {name}: type "none" mounts nothing without "o=bind"')
    if mount.is_bind and not device.startswith("/"):
        raise InvalidArgument(f"create {name}: device {device!r} of a bind must be an absolute path")
    return mount
