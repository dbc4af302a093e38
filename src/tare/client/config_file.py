"""The user's config.json, shared with Docker's own: where it is, what it says, and changing one key of it.

Must never lose a key that it doesn't know, nor let others read the file: it may hold passwords.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def config_directory() -> str:
    """`TARE_CONFIG`, `DOCKER_CONFIG` (also set by --config), or ~/.docker."""
    found = os.environ.get("TARE_CONFIG") or os.environ.get("DOCKER_CONFIG")
    return found or os.path.expanduser("~/.docker")


def read_config() -> dict[str, Any]:
    """What config.json says; nothing if it can't be read."""
    from tare.client.jsontext import parse_json

    try:
        with open(os.path.join(config_directory(), "config.json"), "rb") as file:
            parsed = parse_json(file.read())
    except (OSError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def write_config_key(name: str, value: object) -> None:
    """Sets one key, or removes it (None), and keeps the others. ValueError if the file there isn't JSON."""
    from tare.client.jsontext import format_json, parse_json

    path = os.path.join(config_directory(), "config.json")
    parsed: Any = {}
    try:
        with open(path, "rb") as file:
            parsed = parse_json(file.read())
    except FileNotFoundError:
        pass
    if not isinstance(parsed, dict):
        raise ValueError(f"{path} doesn't hold a JSON object")
    parsed.pop(name, None)
    if value is not None:
        parsed[name] = value
    os.makedirs(config_directory(), mode=0o700, exist_ok=True)
    write_aside(path, format_json(parsed, "\t").encode(), 0o600)


def write_aside(path: str, data: bytes, mode: int) -> None:
    """Writes a file whole or not at all. A symbolic link stays one: its target is replaced."""
    path = os.path.realpath(path)
    aside = f"{path}.tare-{os.getpid()}"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(aside, path)
    except BaseException:
        os.unlink(aside)
        raise
