"""What this kernel and our rights in it allow, found by look-ups and by calls that can't take effect.

Changes nothing on the machine (but the kernel may load a module that a probe asks for), judges nothing, and never
raises: what can't be found out counts as missing.
"""

from __future__ import annotations

import errno
import os
import platform
import socket
import struct

import msgspec

from tare.errors import KernelError, Unsupported
from tare.kernel import capabilities
from tare.kernel.libc import syscall
from tare.kernel.mounts import FilesystemContext, has_overlay_parameters
from tare.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NetlinkSocket, Request, attribute, nested, text

# What each call answers, when it exists, to arguments that make no sense.
_NONSENSE: dict[str, tuple[int | bytes, ...]] = {
    "open_tree": (-1, b"", 0xFFFFFFFF),
    "move_mount": (-1, b"", -1, b"", 0xFFFFFFFF),
    "fsopen": (b"", 0xFFFFFFFF),
    "mount_setattr": (-1, b"", 0xFFFFFFFF, b"", 0),
    "openat2": (-1, b"", b"", 0),
    "pidfd_open": (-1, 0xFFFFFFFF),
    "clone3": (b"", 0),
    "close_range": (0xFFFFFFFF, 0, 0),
}
_SECCOMP_GET_ACTION_AVAIL = 2
_RET_ERRNO = 0x00050000
_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_RTM_NEWLINK = 16
_IFLA_ADDRESS, _IFLA_LINKINFO, _IFLA_INFO_KIND = 1, 18, 1
_NFT_MSG_GETGEN = 10 << 8 | 16
_MULTICAST_ADDRESS = b"\x01\x00\x00\x00\x00\x00"
_ALL_IDS = 0xFFFFFFFF


class Features(msgspec.Struct, frozen=True):
    """Findings. namespaces: kinds that exist, by their name in /proc/self/ns. calls: system calls that are answered.

    nested: we are inside a container. host_user_namespace: root here is root of the machine.
    user_namespaces: more can be made. security_modules: those that are active (lsm). data_filesystem: what holds the
    data root; upper_ok: overlay can have its upper layer there.
    """

    kernel_release: str
    kernel_version: tuple[int, int]
    machine: str
    root: bool
    nested: bool
    host_user_namespace: bool
    systemd: bool
    capabilities: frozenset[str]
    namespaces: frozenset[str]
    user_namespaces: bool
    calls: frozenset[str]
    overlay: bool
    overlay_lowerdir_plus: bool
    overlay_volatile: bool
    idmapped_mounts: bool
    seccomp: bool
    security_modules: tuple[str, ...]
    apparmor: bool
    selinux: bool
    nftables: bool
    bridge: bool
    veth: bool
    ipv4_forwarding: bool
    ipv6: bool
    data_filesystem: str
    upper_ok: bool
    project_quotas: bool
    raise_rlimits: bool
    cpus: int


def probe(data_root: str = "/") -> Features:
    """Looks at everything once; takes about a millisecond. data_root: where images and containers are kept."""
    modules = tuple(name for name in _read("/sys/kernel/security/lsm").strip().split(",") if name)
    held = _held_capabilities()
    calls = frozenset(call for call in _NONSENSE if _answers(call))
    namespaces = frozenset(_list("/proc/self/ns"))
    filesystem, options = _filesystem_of(data_root)
    release = os.uname().release
    version = _version(release)
    return Features(
        kernel_release=release,
        kernel_version=version,
        machine=platform.machine(),
        root=os.geteuid() == 0,
        nested=_nested(),
        host_user_namespace=_owns_all_ids(),
        systemd=os.path.isdir("/run/systemd/system"),
        capabilities=held,
        namespaces=frozenset(name for name in namespaces if not name.endswith("_for_children")),
        user_namespaces="user" in namespaces and _user_namespaces(held),
        calls=calls,
        overlay=_has_filesystem("overlay"),
        overlay_lowerdir_plus=has_overlay_parameters(),
        overlay_volatile=_overlay_volatile(version),
        idmapped_mounts="mount_setattr" in calls and version >= (5, 19),
        seccomp=_seccomp(),
        security_modules=modules,
        apparmor=_read("/sys/module/apparmor/parameters/enabled").startswith("Y"),
        selinux=os.path.exists("/sys/fs/selinux/enforce"),
        nftables=_nftables(),
        bridge=_has_link_kind("bridge"),
        veth=_has_link_kind("veth"),
        ipv4_forwarding=_read("/proc/sys/net/ipv4/ip_forward").startswith("1"),
        ipv6=os.path.exists("/proc/net/if_inet6"),
        data_filesystem=filesystem,
        upper_ok=filesystem not in ("overlay", "nfs", "nfs4", "cifs", "vfat", "9p")
        and not filesystem.startswith("fuse"),
        project_quotas=any(option in ("prjquota", "pquota") for option in options),
        raise_rlimits="CAP_SYS_RESOURCE" in held and _owns_all_ids(),
        cpus=len(os.sched_getaffinity(0)),
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _version(release: str) -> tuple[int, int]:
    numbers = [part for part in release.replace("-", ".").split(".")[:2] if part.isdecimal()]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (0, 0)


def _held_capabilities() -> frozenset[str]:
    try:
        effective = capabilities.capget()[0]
    except (KernelError, Unsupported):
        return frozenset()
    return frozenset(name for number, name in enumerate(capabilities.NAMES) if effective >> number & 1)


def _answers(call: str) -> bool:
    """Whether the kernel has a call: it then finds fault with the arguments, where a missing one gives ENOSYS."""
    try:
        syscall(call, *_NONSENSE[call])
    except Unsupported:
        return False
    except KernelError as error:
        # EPERM: a seccomp filter around us (an engine in a container) refuses the call before it looks.
        return error.errno not in (errno.ENOSYS, errno.EPERM)
    return True


def _nested() -> bool:
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return True
    return b"container=" in _read("/proc/1/environ").encode()


def _owns_all_ids() -> bool:
    """Whether this is the machine's first user namespace, whose map is everything (user_namespaces(7))."""
    fields = _read("/proc/self/uid_map").split()
    return len(fields) == 3 and fields[0] == fields[1] == "0" and int(fields[2]) == _ALL_IDS


def _user_namespaces(held: frozenset[str]) -> bool:
    limit = _read("/proc/sys/user/max_user_namespaces").strip()
    if limit.isdecimal() and int(limit) == 0:
        return False
    restricted = _read("/proc/sys/kernel/unprivileged_userns_clone").startswith("0")
    restricted = restricted or _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").startswith("1")
    return not restricted or "CAP_SYS_ADMIN" in held


def _has_filesystem(name: str) -> bool:
    try:
        FilesystemContext(name).close()
        return True
    except (KernelError, Unsupported):
        return any(line.split()[-1:] == [name] for line in _read("/proc/filesystems").splitlines())


def _overlay_volatile(version: tuple[int, int]) -> bool:
    """Whether overlay has `volatile` (Linux 5.10): set, and never mounted. Before Linux 6.5 any option could be set."""
    if version < (6, 5):
        return version >= (5, 10)
    try:
        context = FilesystemContext("overlay")
    except (KernelError, Unsupported):
        return False
    try:
        context.set_flag("volatile")
        return True
    except KernelError:
        return False
    finally:
        context.close()


def _seccomp() -> bool:
    try:
        syscall("seccomp", _SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("=I", _RET_ERRNO))
        return True
    except (KernelError, Unsupported):
        return False


def _nftables() -> bool:
    """Asks for the rule set's generation; needs CAP_NET_ADMIN, as using nftables does."""
    try:
        with NetlinkSocket(_NETLINK_NETFILTER) as netfilter:
            netfilter.execute([Request(_NFT_MSG_GETGEN, 0, struct.pack("=BBH", 0, 0, 0), "NFT_MSG_GETGEN")])
        return True
    except (KernelError, OSError):
        return False


def _has_link_kind(kind: str) -> bool:
    """Asks for a link with a multicast address, which no bridge and no veth may have.

    A kind that the kernel knows answers EADDRNOTAVAIL, one that it doesn't EOPNOTSUPP, and without the right to make
    links the answer is EPERM.
    """
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
    body += attribute(_IFLA_ADDRESS, _MULTICAST_ADDRESS) + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind))
    try:
        with NetlinkSocket(_NETLINK_ROUTE) as route:
            route.execute([Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "RTM_NEWLINK", kind)])
    except KernelError as error:
        return error.errno == errno.EADDRNOTAVAIL
    except OSError:
        return False
    return True


def _filesystem_of(path: str) -> tuple[str, list[str]]:
    """Type and options of the file system that holds `path` or the nearest directory above it that exists."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    best, found = "", ("unknown", [""])
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        point = fields[4]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best) and (fields[2] == number or kinds[0] in ("btrfs", "overlay")):
            best, found = point, (kinds[0], kinds[-1].split(","))
    return found
