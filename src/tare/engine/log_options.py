"""Log drivers and their options: what is accepted, and what it means for a container's log. Pure.

json-file writes Docker's format; local is the same with a place of its own; none keeps nothing; the others also ship
what is in that file to a server (`log_shipping`). Logs are bounded unless somebody asks otherwise: five files of 20 MB,
as Docker's local driver has it (moby#40207 asks for it since 2020).
"""

from __future__ import annotations

import re

import msgspec

from tare.engine.log_driver_options import CHECKS, SHIPPED, parse_flag
from tare.engine.log_tag import expand_tag
from tare.engine.options import LogOptions
from tare.engine.records import Container
from tare.errors import InvalidArgument, Unsupported
from tare.values.units import parse_bytes

DRIVERS = ("json-file", "local", "none", *SHIPPED)
_DOCKERS_OTHERS = ("awslogs", "splunk", "gcplogs", "etwlogs", "logentries")
DEFAULT_MAX_BYTES = 20 << 20
DEFAULT_MAX_FILES = 5
_OPTIONS = {
    "json-file": (
        "max-size",
        "max-file",
        "labels",
        "labels-regex",
        "env",
        "env-regex",
        "tag",
        "compress",
    ),
    "local": ("max-size", "max-file", "compress"),
    "none": (),
}
_EVERYWHERE = ("mode", "max-buffer-size")


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A container's log. path "": none. max_bytes 0: unbounded. attributes: what every entry bears."""

    path: str = ""
    max_bytes: int = DEFAULT_MAX_BYTES
    max_files: int = DEFAULT_MAX_FILES
    attributes: dict[str, str] = {}
    compress: bool = False
    shipped: bool = False


def check_log(options: LogOptions | None) -> None:
    """Raises InvalidArgument for a wrong option, Unsupported for a driver that isn't there, with Docker's texts."""
    if options is None:
        return
    driver = options.type or "json-file"
    if driver not in DRIVERS and driver not in _DOCKERS_OTHERS:
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    if driver not in DRIVERS:
        raise Unsupported(f"log driver {driver!r} is not supported by Tare yet")
    given = options.config or {}
    _check_everywhere(given)
    if driver in SHIPPED:
        CHECKS[driver](given)
        _limits(_cache_limits(given))
    else:
        for name in given:
            if name not in _OPTIONS[driver] and name not in _EVERYWHERE:
                text = f"for log driver {driver}" if driver == "local" else f"for {driver} log driver"
                raise InvalidArgument(f"unknown log opt '{name}' {text}")
        max_bytes, max_files = _limits(given)
        if parse_flag(given.get("compress", "false")) and (max_files < 2 or not max_bytes):
            raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    for name in ("labels-regex", "env-regex"):
        _matches(given.get(name, ""), "")


def _check_everywhere(given: dict[str, str]) -> None:
    """What every driver has: the mode, and the bounds of the file from which `logs` reads."""
    mode = given.get("mode", "blocking")
    if mode not in ("blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in given:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            parse_bytes(given["max-buffer-size"])
        except InvalidArgument as error:
            raise InvalidArgument(f"error parsing option max-buffer-size: {error}") from error


def _cache_limits(given: dict[str, str]) -> dict[str, str]:
    """Docker's options for the file beside a shipping driver, by the names that json-file has for them."""
    found = {name.removeprefix("cache-"): value for name, value in given.items() if name.startswith("cache-max-")}
    if "max-size" in found and "max-file" not in found:
        found["max-file"] = str(DEFAULT_MAX_FILES)
    return found


def _limits(given: dict[str, str]) -> tuple[int, int]:
    size = given.get("max-size", "")
    max_bytes = 0 if size == "-1" else parse_bytes(size) if size else DEFAULT_MAX_BYTES
    text = given.get("max-file", "")
    if text and (not text.isdigit() or int(text) < 1):
        raise InvalidArgument("max-file cannot be less than 1")
    max_files = int(text) if text else 1 if size else DEFAULT_MAX_FILES
    if max_files > 1 and not max_bytes:
        raise InvalidArgument("max-size must be set if max-file is set to more than 1")
    return max_bytes, max_files


def log_path(driver: str, directory: str, container_id: str) -> str:
    """Where a container's log is; "" if its driver keeps none."""
    if driver == "none":
        return ""
    return f"{directory}/{container_id}-json.log" if driver == "json-file" else f"{directory}/container.log"


def log_settings(container: Container) -> LogSettings:
    """What the container's monitor has to do."""
    options = container.host.log_config or LogOptions()
    given = options.config or {}
    shipped = options.type in SHIPPED
    max_bytes, max_files = _limits(_cache_limits(given) if shipped else given)
    attributes = entry_attributes(container)
    if given.get("tag"):
        tag = expand_tag(given["tag"], container)
        attributes |= {} if shipped else {"tag": tag}
    return LogSettings(
        path=container.log_path,
        max_bytes=max_bytes,
        max_files=max_files,
        attributes=attributes,
        compress=max_files > 1 and parse_flag(given.get("cache-compress" if shipped else "compress", "false")),
        shipped=shipped,
    )


def is_shipped(container: Container) -> bool:
    """Whether the container's log also goes to a server."""
    return container.host.log_config is not None and container.host.log_config.type in SHIPPED


def entry_attributes(container: Container) -> dict[str, str]:
    """The labels and variables that the options choose."""
    given = (container.host.log_config or LogOptions()).config or {}
    labels = container.config.labels or {}
    env = dict(variable.partition("=")[::2] for variable in container.config.env or ())
    found: dict[str, str] = {}
    for source, plain, pattern in ((labels, "labels", "labels-regex"), (env, "env", "env-regex")):
        wanted = [name for name in given.get(plain, "").split(",") if name]
        found |= {name: source[name] for name in wanted if name in source}
        if given.get(pattern):
            found |= {name: value for name, value in source.items() if _matches(given[pattern], name)}
    return found


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise InvalidArgument(f"invalid log option: {pattern!r} is not a regular expression") from error
