"""Capabilities, seccomp and the other security options of a container, as Docker understands them."""

from __future__ import annotations

import msgspec

from tare.engine.options import HostOptions
from tare.errors import InvalidArgument, Unsupported
from tare.kernel.apparmor import has_apparmor, loaded_profiles
from tare.oci.runtime_spec import Capabilities, LinuxSeccomp
from tare.runtime import seccomp

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
ALL_CAPABILITIES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
DEFAULT_PROFILES = ("tare-default", "docker-default")
"""Applied where the user names none, the first that is loaded."""


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """What the security options say. apparmor_profile: "" where the kernel has none, else perhaps `unconfined`."""

    seccomp: LinuxSeccomp | None = None
    no_new_privileges: bool = False
    system_paths_open: bool = False
    apparmor_profile: str = ""


def effective_capabilities(host: HostOptions) -> tuple[str, ...]:
    """The capabilities that the container's root has. Raises InvalidArgument for an unknown name."""
    if host.privileged:
        return ALL_CAPABILITIES
    added = [_normal(name) for name in host.cap_add or ()]
    dropped = [_normal(name) for name in host.cap_drop or ()]
    if "ALL" in added:
        kept = [name for name in ALL_CAPABILITIES if name not in dropped]
        return tuple(kept)
    base = [] if "ALL" in dropped else [name for name in DEFAULT_CAPABILITIES if name not in dropped]
    return tuple(base + [name for name in dict.fromkeys(added) if name not in base])


def capabilities(host: HostOptions) -> Capabilities:
    """The capability sets; inheritable and ambient stay empty (CVE-2022-24769)."""
    names = held(effective_capabilities(host))
    return Capabilities(bounding=names, permitted=names, effective=names)


def held(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the names that this process has itself: nobody can hand on what it lacks (capabilities(7))."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapBnd:"):
                bits = int(line.split()[1], 16)
                return tuple(name for name in names if bits >> ALL_CAPABILITIES.index(name) & 1)
    return names


def _normal(name: str) -> str:
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in ALL_CAPABILITIES:
        raise InvalidArgument(f'invalid CapAdd: unknown capability: "{full}"')
    return full


def parse_security(host: HostOptions, *, no_new_privileges: bool = False) -> Security:
    """The security options, with the seccomp profile made for the container's capabilities.

    Raises InvalidArgument for what Docker refuses, Unsupported for labels and profiles that this engine can't apply.
    """
    profile: bytes | None = None
    confined, paths_open = not host.privileged, False
    for option in host.security_opt or ():
        key, separator, value = option.partition("=")
        if not separator:
            key, separator, value = option.partition(":")
        if key == "no-new-privileges":
            no_new_privileges = _flag(option, value) if separator else True
        elif key == "seccomp" and separator:
            confined = value != "unconfined"
            profile = None if value in ("unconfined", "builtin") else value.encode()
        elif key == "systempaths" and value == "unconfined":
            paths_open = True
        elif key == "apparmor":
            pass  # see apparmor_profile
        elif key == "label":
            if value != "disable":
                raise Unsupported(f"security option {option!r}: SELinux labels are not supported by Tare yet")
        elif key != "writable-cgroups":
            raise InvalidArgument(f'invalid --security-opt {2 if separator else 1}: "{option}"')
        else:
            raise Unsupported(f"security option {option!r} is not supported by Tare yet")
    return Security(
        seccomp=_seccomp(host, profile) if confined else None,
        no_new_privileges=no_new_privileges,
        system_paths_open=paths_open,
        apparmor_profile=apparmor_profile(host),
    )


def asked_profile(host: HostOptions) -> str:
    """The AppArmor profile that the user names, "" if none."""
    found = ""
    for option in host.security_opt or ():
        key, separator, value = option.partition("=")
        if not separator:
            key, _, value = option.partition(":")
        if key == "apparmor":
            found = value
    return found


def apparmor_profile(host: HostOptions) -> str:
    """The profile that a container gets: the one that is asked for, else the default one if that is loaded.

    "" where the kernel has no AppArmor, whatever is asked for, as Docker does.
    """
    if not has_apparmor():
        return ""
    asked = asked_profile(host)
    if asked or host.privileged:
        return asked or "unconfined"
    loaded = loaded_profiles()
    return next((name for name in DEFAULT_PROFILES if name in loaded), "unconfined")


def _flag(option: str, value: str) -> bool:
    if value in ("true", "1"):
        return True
    if value in ("false", "0"):
        return False
    raise InvalidArgument(f'invalid --security-opt 2: "{option}"')


_resolved: dict[tuple[bytes | None, tuple[str, ...]], LinuxSeccomp | None] = {}


def _seccomp(host: HostOptions, profile: bytes | None) -> LinuxSeccomp | None:
    names = effective_capabilities(host)
    key = (profile, names)
    if key not in _resolved:
        if len(_resolved) > 64:
            _resolved.clear()
        text = seccomp.default_profile() if profile is None else profile
        _resolved[key] = seccomp.resolve_profile(text, frozenset(names))
    return _resolved[key]
