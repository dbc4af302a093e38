"""The pieces of the create body that need more than copying: files of variables, health checks, logging, restart,
security options."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.command import Values

BOM = "\ufeff"


def _read_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="strict") as file:
            text = file.read()
    except OSError as error:
        raise ValueError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"env file {path} contains invalid utf8 bytes at byte {error.start}") from None
    return text.removeprefix(BOM).split("\n")


def _read_pairs(path: str, take_from_environment: bool) -> list[str]:
    """NAME=value lines; # comments, blank lines and NAME alone are skipped, unless this process has such a variable."""
    found = []
    for raw in _read_lines(path):
        line = raw.lstrip().removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not name.strip():
            raise ValueError(f"invalid env file ({path}): no variable name on line '{line}'")
        if any(letter.isspace() for letter in name):
            raise ValueError(f"invalid env file ({path}): variable '{name}' contains whitespaces")
        if separator:
            found.append(f"{name}={value}")
        elif take_from_environment and name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found


def read_environment(files: list[str], given: list[str]) -> list[str]:
    found: list[str] = []
    for path in files:
        found += _read_pairs(path, take_from_environment=True)
    latest = {item.partition("=")[0]: item for item in given}
    return found + list(latest.values())


def read_labels(files: list[str], given: list[str]) -> dict[str, str]:
    found: list[str] = []
    for path in files:
        found += _read_pairs(path, take_from_environment=False)
    labels = {}
    for item in found + given:
        name, _, value = item.partition("=")
        labels[name] = value
    return labels


def health_config(flags: Values) -> dict[str, Any] | None:
    command = flags.text("health-cmd")
    durations = {
        "Interval": ("health-interval", flags["health-interval"]),
        "Timeout": ("health-timeout", flags["health-timeout"]),
        "StartPeriod": ("health-start-period", flags["health-start-period"]),
        "StartInterval": ("health-start-interval", flags["health-start-interval"]),
        "Retries": ("health-retries", flags["health-retries"]),
    }
    wanted = bool(command) or any(value for _, value in durations.values())
    if flags.on("no-healthcheck"):
        if wanted:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not wanted:
        return None
    config: dict[str, Any] = {"Test": ["CMD-SHELL", command]} if command else {}
    for key, (flag, value) in durations.items():
        if value < 0:
            raise ValueError(f"--{flag} cannot be negative")
        if value:
            config[key] = value
    return config


def log_config(driver: str, options: list[str]) -> dict[str, Any]:
    config = {}
    for item in options:
        name, _, value = item.partition("=")
        config[name] = value
    if driver == "none" and options:
        raise ValueError("invalid logging opts for driver none")
    return {"Type": driver, "Config": config}


def parse_restart(text: str) -> dict[str, Any]:
    """no, always, unless-stopped, on-failure[:most]"""
    name, separator, count = text.partition(":")
    if separator and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    most = 0
    if count:
        try:
            most = int(count)
        except ValueError:
            raise ValueError("invalid restart policy format: maximum retry count must be an integer") from None
    return {"Name": name, "MaximumRetryCount": most}


def storage_options(items: list[str]) -> dict[str, str]:
    options = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator:
            raise ValueError("invalid storage option")
        options[name] = value
    return options


def security_options(items: list[str]) -> tuple[list[str] | None, bool]:
    """(SecurityOpt, whether masked and read-only paths are lifted). A seccomp profile's file is read here."""
    kept: list[str] = []
    unmasked = False
    for item in items:
        name, separator, value = item.partition("=")
        if not separator and name != "no-new-privileges":
            name, separator, value = item.partition(":")
            if not separator:
                raise ValueError(f'Invalid --security-opt: "{item}"')
        if name == "systempaths" and value == "unconfined" and "=" in item:
            unmasked = True
            continue
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            item = f"seccomp={_read_profile(value)}"
        kept.append(item)
    return kept or (None if not unmasked else []), unmasked


def _read_profile(path: str) -> str:
    from tare.client.jsontext import format_json, parse_json

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"opening seccomp profile ({path}) failed: open {path}: {reason}") from None
    try:
        return format_json(parse_json(text))
    except ValueError as error:
        raise ValueError(f"compacting json for seccomp profile ({path}) failed: {error}") from None
