"""What a list of device rules comes to, as cgroup v1's kernel code would decide it; pure, used for v1 and v2 alike."""

from __future__ import annotations

import msgspec

from tare.errors import InvalidArgument
from tare.oci.runtime_spec import LinuxDeviceCgroup

ALL_ACCESS = "rwm"


class DevicePolicy(msgspec.Struct, frozen=True):
    """Allow (or deny) everything but the exceptions: (type, major, minor) → access; None is any number."""

    allow_by_default: bool
    exceptions: dict[tuple[str, int | None, int | None], frozenset[str]]


def _number(number: int | None) -> int | None:
    return None if number is None or number < 0 else number


def _is_all(rule: LinuxDeviceCgroup) -> bool:
    return rule.type == "a" and rule.major is None and rule.minor is None and rule.access == ALL_ACCESS


def expand_rules(rules: tuple[LinuxDeviceCgroup, ...]) -> tuple[LinuxDeviceCgroup, ...]:
    """The rules checked and spelled out, with type `a` only where every access to every device is meant.

    The kernel takes any line that begins with `a` as "all devices, all access", whatever numbers follow
    (cgroup-v1/devices.rst): passed on as it is, `a 1:3 r` would open every device of the host.
    """
    expanded: list[LinuxDeviceCgroup] = []
    for rule in rules:
        kind, access = rule.type or "a", rule.access or ALL_ACCESS
        if kind not in ("a", "b", "c"):
            raise InvalidArgument(f"invalid device type {kind!r} in a device rule")
        if not set(access) <= set(ALL_ACCESS):
            raise InvalidArgument(f"invalid device access {access!r} in a device rule")
        access = "".join(letter for letter in ALL_ACCESS if letter in access)
        full = LinuxDeviceCgroup(rule.allow, kind, _number(rule.major), _number(rule.minor), access)
        if kind != "a" or _is_all(full):
            expanded.append(full)
        else:
            expanded += [msgspec.structs.replace(full, type=each) for each in ("b", "c")]
    return tuple(expanded)


def format_rule(rule: LinuxDeviceCgroup) -> str:
    """An expanded rule as devices.allow takes it: `c 1:3 rwm`, or `a`."""
    if rule.type == "a":
        return "a"
    major = "*" if rule.major is None else rule.major
    minor = "*" if rule.minor is None else rule.minor
    return f"{rule.type} {major}:{minor} {rule.access}"


def resolve_rules(rules: tuple[LinuxDeviceCgroup, ...]) -> DevicePolicy:
    """The policy after all rules, in their order, on a new cgroup, which allows everything."""
    allow_by_default = True
    exceptions: dict[tuple[str, int | None, int | None], frozenset[str]] = {}
    for rule in expand_rules(rules):
        if rule.type == "a":
            allow_by_default, exceptions = rule.allow, {}
            continue
        device = (rule.type, rule.major, rule.minor)
        access = exceptions.get(device, frozenset())
        if rule.allow == allow_by_default:
            access -= frozenset(rule.access)
        else:
            access |= frozenset(rule.access)
        if access:
            exceptions[device] = access
        else:
            exceptions.pop(device, None)
    return DevicePolicy(allow_by_default, exceptions)
