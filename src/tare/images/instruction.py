"""Dockerfile instructions that change an image's config: `--change` of import and commit.

Must never run anything: each instruction only makes a new config out of an old one. Texts of errors are Docker's.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from tare.errors import InvalidArgument
from tare.images.words import expand, name_values, split_words
from tare.oci.image_spec import Healthcheck, ImageConfig
from tare.values.timestamps import parse_duration

_SHELL = ["/bin/sh", "-c"]
_CONTINUED = re.compile(r"\\[ \t]*$")


def apply_changes(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """`config` changed by Dockerfile instructions, in order. Raises InvalidArgument as Docker words it."""
    texts = list(changes)
    if not texts:
        return config
    instructions = _instructions("\n".join(texts))
    if not instructions:
        raise InvalidArgument("file with no instructions")
    for verb, _ in instructions:
        if verb.lower() not in _VERBS:
            raise InvalidArgument(f"{verb} is not a valid change command")
    verbs = {verb.lower() for verb, _ in instructions}
    if "cmd" not in verbs and "entrypoint" in verbs:
        config = msgspec.structs.replace(config, cmd=None)  # a new entry point doesn't get the old one's arguments
    for verb, rest in instructions:
        config = _VERBS[verb.lower()](config, rest)
    return config


def _instructions(text: str) -> list[tuple[str, str]]:
    """(verb, rest) of each line; a backslash at the end continues, # begins a comment line."""
    found = []
    pending = ""
    for line in text.split("\n"):
        if line.lstrip().startswith("#") or (pending and not line.strip()):
            continue
        pending += line
        if _CONTINUED.search(pending):
            pending = _CONTINUED.sub("", pending)
            continue
        if pending.strip():
            verb, _, rest = pending.strip().partition(" ")
            found.append((verb, rest.strip()))
        pending = ""
    if pending.strip():
        verb, _, rest = pending.strip().partition(" ")
        found.append((verb, rest.strip()))
    return found


def _environment(config: ImageConfig) -> Mapping[str, str]:
    return dict(item.partition("=")[::2] for item in config.env)


def _json_words(rest: str) -> list[str] | None:
    """The exec form: a JSON array of strings; anything else is the shell form."""
    if not rest.startswith("["):
        return None
    try:
        words = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in words):
        raise InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")
    return list(words)


def _command(config: ImageConfig, rest: str) -> list[str]:
    words = _json_words(rest)
    if words is not None:
        return words
    return [*(config.shell or _SHELL), *([rest] if rest else [])]


def _cmd(config: ImageConfig, rest: str) -> ImageConfig:
    return msgspec.structs.replace(config, cmd=_command(config, rest) or None)


def _entrypoint(config: ImageConfig, rest: str) -> ImageConfig:
    words = _json_words(rest)
    return msgspec.structs.replace(config, entrypoint=None if words == [] or not rest else _command(config, rest))


def _env(config: ImageConfig, rest: str) -> ImageConfig:
    variables = dict(_environment(config))
    before = dict(variables)  # one line's values don't see each other
    for name, value in name_values("ENV", rest):
        variables[expand(name, before)] = expand(value, before)
    return msgspec.structs.replace(config, env=[f"{name}={value}" for name, value in variables.items()])


def _label(config: ImageConfig, rest: str) -> ImageConfig:
    variables = _environment(config)
    labels = dict(config.labels)
    for name, value in name_values("LABEL", rest):
        labels[expand(name, variables)] = expand(value, variables)
    return msgspec.structs.replace(config, labels=labels)


def _expose(config: ImageConfig, rest: str) -> ImageConfig:
    if not rest:
        raise InvalidArgument("EXPOSE requires at least one argument")
    ports = dict(config.exposed_ports)
    for word in split_words(rest):
        if wanted := expand(word, _environment(config)):
            ports.update((port, {}) for port in _ports(wanted))
    return msgspec.structs.replace(config, exposed_ports=ports)


def _ports(text: str) -> list[str]:
    """`80`, `80/udp`, `8000-8002/tcp`, and `[ip:][host:]container` of which only the container's part counts."""
    numbers, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    numbers = numbers.rpartition(":")[2]
    if not numbers:
        raise InvalidArgument(f"No port specified: {text}<empty>")
    first, dash, last = numbers.partition("-")
    if not all(
        part.isascii() and part.isdigit() and int(part) <= 65535 for part in ((first, last) if dash else (first,))
    ):
        raise InvalidArgument(f"Invalid containerPort: {numbers}")
    if dash and int(last) < int(first):
        raise InvalidArgument(f"Invalid containerPort: {numbers}")
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"Invalid proto: {protocol}")
    return [f"{port}/{protocol}" for port in range(int(first), int(last if dash else first) + 1)]


def _onbuild(config: ImageConfig, rest: str) -> ImageConfig:
    if not rest:
        raise InvalidArgument("ONBUILD requires at least one argument")
    verb = rest.split()[0].upper()
    if verb == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if verb in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{verb} isn't allowed as an ONBUILD trigger")
    return msgspec.structs.replace(config, on_build=[*config.on_build, rest])


def _one_argument(verb: str, config: ImageConfig, rest: str) -> str:
    if not rest:
        raise InvalidArgument(f"{verb} requires exactly one argument")
    return expand(rest, _environment(config))


def _user(config: ImageConfig, rest: str) -> ImageConfig:
    return msgspec.structs.replace(config, user=_one_argument("USER", config, rest))


def _workdir(config: ImageConfig, rest: str) -> ImageConfig:
    wanted = _one_argument("WORKDIR", config, rest)
    if not wanted:
        raise InvalidArgument("cannot normalize nothing")
    path = posixpath.normpath(posixpath.join("/", config.working_dir, wanted))
    return msgspec.structs.replace(config, working_dir="/" + path.lstrip("/"))


def _stopsignal(config: ImageConfig, rest: str) -> ImageConfig:
    return msgspec.structs.replace(config, stop_signal=_one_argument("STOPSIGNAL", config, rest))


def _volume(config: ImageConfig, rest: str) -> ImageConfig:
    words = _json_words(rest)
    if words is None:
        words = split_words(rest)
    if not words:
        raise InvalidArgument("VOLUME requires at least one argument")
    volumes = dict(config.volumes)
    for word in words:
        volume = expand(word, _environment(config)).strip()
        if not volume:
            raise InvalidArgument("VOLUME specified can not be an empty string")
        volumes[volume] = {}
    return msgspec.structs.replace(config, volumes=volumes)


def _healthcheck(config: ImageConfig, rest: str) -> ImageConfig:
    flags: dict[str, int] = {}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.strip()
        name, _, value = flag[2:].partition("=")
        flags.update([_health_flag(name, value)])
    if not rest:
        raise InvalidArgument("HEALTHCHECK requires at least one argument")
    kind, _, command = rest.partition(" ")
    kind, command = kind.upper(), command.strip()
    if kind == "NONE":
        if command:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        test = ["NONE"]
    elif kind == "CMD":
        if not command:
            raise InvalidArgument("Missing command after HEALTHCHECK CMD")
        words = _json_words(command)
        test = ["CMD", *words] if words is not None else ["CMD-SHELL", command]
    else:
        raise InvalidArgument(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    return msgspec.structs.replace(config, healthcheck=msgspec.convert({"Test": test, **flags}, Healthcheck))


_HEALTH_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _health_flag(name: str, value: str) -> tuple[str, int]:
    if name == "retries":
        try:
            retries = int(value)
        except ValueError:
            raise InvalidArgument(f'strconv.ParseInt: parsing "{value}": invalid syntax') from None
        if retries < 1:
            raise InvalidArgument(f"--retries must be at least 1 (not {retries})")
        return "Retries", retries
    if name not in _HEALTH_TIMES:
        raise InvalidArgument(f"Unknown flag: {name}")
    duration = parse_duration(value)
    if duration < 1_000_000:
        raise InvalidArgument(f'Interval "{name}" cannot be less than 1ms')
    return _HEALTH_TIMES[name], duration


_VERBS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "cmd": _cmd,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "healthcheck": _healthcheck,
    "label": _label,
    "onbuild": _onbuild,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
