"""Reads single flag values of run and create, and refuses bad ones with Docker's words. Pure but for the environment
(`--env NAME` takes NAME's value from it) and relative bind sources (made absolute here, where the user is)."""

from __future__ import annotations

import os

from tare.cli.flagkinds import parse_bytes, parse_int

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ATTACHABLE = ("stdin", "stdout", "stderr")
SYSCTLS = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
    "kernel.shm_rmid_forced".split()
)
ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


def check_attach(text: str) -> str:
    lowered = text.lower()
    if lowered not in ATTACHABLE:
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return lowered


def check_env(text: str) -> str | None:
    """NAME=value as it is; NAME alone takes the value of this process's variable, or stays alone (which unsets it)."""
    name, separator, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if separator:
        return text
    value = os.environ.get(name)
    return text if value is None else f"{name}={value}"


def check_label(text: str) -> str:
    name, _, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def check_link(text: str) -> str:
    if not text:
        raise ValueError("empty string specified for links")
    parts = text.split(":")
    if len(parts) > 2:
        raise ValueError(f"bad format for links: {text}")
    return text


def check_extra_host(text: str) -> str:
    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not separator or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    if address != "host-gateway":
        if address.startswith("[") and address.endswith("]"):
            address = address[1:-1]
        try:
            address_of(address)
        except ValueError:
            raise ValueError(f'invalid IP address in add-host: "{address}"') from None
    return f"{name}:{address}"


def address_of(text: str) -> str:
    import _socket

    family = _socket.AF_INET6 if ":" in text else _socket.AF_INET
    try:
        _socket.inet_pton(family, text)
    except (OSError, UnicodeEncodeError):
        raise ValueError(f"{text} is not an ip address") from None
    return text


def check_address(text: str) -> str:
    stripped = text.strip()
    try:
        return address_of(stripped)
    except ValueError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None


def check_dns_search(text: str) -> str:
    text = text.strip()
    if text == ".":
        return text
    name = text.removesuffix(".")
    letters = all(letter.isascii() and (letter.isalnum() or letter in "-_.") for letter in name)
    if not letters or not name or len(name) > 255 or ".." in name or name[0] in "-." or name[-1] == "-":
        raise ValueError(f"{text} is not a valid domain")
    return name


def check_sysctl(text: str) -> str:
    name, separator, _ = text.partition("=")
    known = name in SYSCTLS or name.startswith(("net.", "fs.mqueue."))
    if not separator or not known:
        raise ValueError(f"sysctl '{text}' is not allowed")
    return text


def _device_and_number(text: str, what: str) -> tuple[str, str]:
    path, separator, number = text.partition(":")
    if not separator:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, number


def check_weight_device(text: str) -> dict[str, Any]:
    path, number = _device_and_number(text, "weight")
    try:
        weight = parse_int(number, "uint16")
    except ValueError:
        raise ValueError(f"invalid weight for device: {text}") from None
    if weight and not 10 <= weight <= 1000:
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": weight}


def check_bps_device(text: str) -> dict[str, Any]:
    path, number = _device_and_number(text, "rate")
    try:
        rate = parse_bytes(number)
    except ValueError:
        rate = -1
    if rate < 0:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a "
            "positive integer. Unit is optional and can be kb, mb, or gb"
        )
    return {"Path": path, "Rate": rate}


def check_iops_device(text: str) -> dict[str, Any]:
    path, number = _device_and_number(text, "rate")
    if not (number.isascii() and number.isdigit()) or int(number) >= 1 << 64:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive "
            "integer"
        )
    return {"Path": path, "Rate": int(number)}


def check_cgroup_rule(text: str) -> str:
    kind, _, rest = text.partition(" ")
    numbers, _, access = rest.partition(" ")
    major, separator, minor = numbers.partition(":")
    fine = kind in ("a", "b", "c") and separator and access and len(access) <= 3 and not set(access) - set("rwm")
    if not fine or not all(part == "*" or part.isdigit() for part in (major, minor)):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def check_ulimit(text: str) -> dict[str, Any]:
    name, separator, limits = text.partition("=")
    if not separator:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    soft_text, separator, hard_text = limits.partition(":")
    if ":" in hard_text:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    soft = _limit(soft_text)
    hard = _limit(hard_text) if separator else soft
    if hard != -1 and (soft == -1 or soft > hard):
        shown = -1 if soft == -1 else soft
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {shown} > {hard}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def _limit(text: str) -> int:
    return parse_int(text, "int64")


def check_gpus(text: str) -> dict[str, Any]:
    """`all`, a number, or driver=…,count=…,device=…,capabilities=…,options=… as one CSV line."""
    from tare.cli.flagkinds import split_csv

    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": None, "Options": {}}
    seen: set[str] = set()
    capabilities: list[str] = []
    for field in split_csv(text):
        name, separator, value = field.partition("=")
        if name in seen:
            raise ValueError(f"gpu request key '{name}' can be specified only once")
        seen.add(name)
        if not separator:
            seen.add("count")
            request["Count"] = _gpu_count(name)
        elif name == "driver":
            request["Driver"] = value
        elif name == "count":
            request["Count"] = _gpu_count(value)
        elif name == "device":
            request["DeviceIDs"] = value.split(",")
        elif name == "capabilities":
            capabilities = value.split(",")
        elif name == "options":
            request["Options"] = dict(_pair(item) for item in split_csv(value))
        else:
            raise ValueError(f"unexpected key '{name}' in '{field}'")
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    request["Capabilities"] = [[*capabilities, *([] if "gpu" in capabilities else ["gpu"])]]
    return request


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'invalid count ({text}): value must be either "all" or an integer: invalid syntax') from None


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def pairs(items: list[str]) -> dict[str, str]:
    """name=value items as a map; a name alone has the empty value."""
    return dict(_pair(item) for item in items)
