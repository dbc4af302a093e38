"""Device nodes and device rules of a container. Reads the host's device nodes; changes nothing."""

from __future__ import annotations

import os
import re
import stat

from tare.engine.options import DeviceMapping, HostOptions
from tare.errors import InvalidArgument, system_text
from tare.oci.runtime_spec import LinuxDevice, LinuxDeviceCgroup

_RULE = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})\Z")


def device_nodes(host: HostOptions) -> tuple[LinuxDevice, ...] | None:
    """The nodes beyond the default ones that the container gets."""
    if host.privileged:
        return tuple(_all_host_devices()) or None
    found: list[LinuxDevice] = []
    for mapping in host.devices or ():
        found.extend(node for node, _ in _mapped(mapping))
    return tuple(found) or None


def device_rules(host: HostOptions) -> tuple[LinuxDeviceCgroup, ...]:
    """What the device cgroup allows: nothing, then the default nodes, then what was asked for."""
    if host.privileged:
        return (LinuxDeviceCgroup(allow=True, access="rwm"),)
    rules = [LinuxDeviceCgroup(allow=False, access="rwm")]
    for major, minor in ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1), (1, 7), (5, 2)):
        rules.append(LinuxDeviceCgroup(allow=True, type="c", major=major, minor=minor, access="rwm"))
    rules.append(LinuxDeviceCgroup(allow=True, type="c", major=136, minor=-1, access="rwm"))
    for kind in ("c", "b"):  # a node may be made; without a rule below it can't be opened
        rules.append(LinuxDeviceCgroup(allow=True, type=kind, major=-1, minor=-1, access="m"))
    for mapping in host.devices or ():
        rules.extend(rule for _, rule in _mapped(mapping))
    rules.extend(_parse_rule(text) for text in host.device_cgroup_rules or ())
    return tuple(rules)


def _parse_rule(text: str) -> LinuxDeviceCgroup:
    found = _RULE.match(text)
    if not found:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = found.groups()
    return LinuxDeviceCgroup(
        allow=True,
        type=kind,
        major=-1 if major == "*" else int(major),
        minor=-1 if minor == "*" else int(minor),
        access=access,
    )


def _mapped(mapping: DeviceMapping) -> list[tuple[LinuxDevice, LinuxDeviceCgroup]]:
    source = mapping.path_on_host
    target = mapping.path_in_container or source
    access = mapping.cgroup_permissions or "rwm"
    if not set(access) <= set("rwm"):
        raise InvalidArgument(f"invalid device mode: {access}")
    failed = f'error gathering device information while adding custom device "{source}"'
    try:
        if os.path.isdir(source):
            found = [(f"{source}/{name}", f"{target}/{name}") for name in sorted(os.listdir(source))]
            pairs = [(path, inside) for path, inside in found if _is_device(os.stat(path).st_mode)]
        else:
            pairs = [(source, target)]
            if not _is_device(os.stat(source).st_mode):
                raise InvalidArgument(f"{failed}: not a device node")
        if not pairs:
            raise InvalidArgument(f"{failed}: no such file or directory")
        return [_node(path, inside, access) for path, inside in pairs]
    except OSError as error:
        raise InvalidArgument(f"{failed}: {system_text(error.errno or 0).lower()}") from error


def _node(path: str, inside: str, access: str) -> tuple[LinuxDevice, LinuxDeviceCgroup]:
    info = os.stat(path)
    kind = "b" if stat.S_ISBLK(info.st_mode) else "c"
    major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
    node = LinuxDevice(
        type=kind,  # type: ignore[arg-type]
        path=inside,
        major=major,
        minor=minor,
        file_mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
    )
    return node, LinuxDeviceCgroup(allow=True, type=kind, major=major, minor=minor, access=access)


def _is_device(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


_LEFT_OUT = ("/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev")


def _all_host_devices() -> list[LinuxDevice]:
    found = []
    for directory, names, files in os.walk("/dev"):
        names[:] = [name for name in names if f"{directory}/{name}" not in _LEFT_OUT]
        for name in files:
            path = f"{directory}/{name}"
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if _is_device(mode) and path not in ("/dev/console", "/dev/ptmx"):
                found.append(_node(path, path, "rwm")[0])
    return found
