"""What a runtime spec must hold before anything is made of it; pure. Names the field and the value that are wrong."""

from __future__ import annotations

import posixpath
import re

from tare.errors import InvalidArgument, Unsupported
from tare.oci.runtime_spec import Linux, Process, Spec

_IPC_SYSCTLS = frozenset(
    "kernel." + name for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_CONTAINER_ID = re.compile(r"[\w+.-]{1,1024}", re.ASCII)


def check_container_id(container_id: str) -> str:
    """An id that is safe as a directory name: letters, digits and `_+-.`, not `.` or `..`."""
    if not _CONTAINER_ID.fullmatch(container_id) or container_id in (".", ".."):
        raise InvalidArgument(f"invalid container ID format: {container_id!r}")
    return container_id


def _check_text(what: str, text: str) -> None:
    if "\0" in text:
        raise InvalidArgument(f"{what} holds a NUL byte: {text!r}")


def check_process(process: Process) -> None:
    """Checks a process document."""
    if not process.args:
        raise InvalidArgument("args must not be empty")
    for word in (*process.args, *(process.env or ())):
        _check_text("process", word)
    if not process.cwd:
        raise InvalidArgument("Cwd property must not be empty")
    if not process.cwd.startswith("/"):
        raise InvalidArgument("Cwd must be an absolute path")
    _check_text("cwd", process.cwd)
    user = process.user
    for number in (user.uid, user.gid, *(user.additional_gids or ())):
        if not 0 <= number < 0xFFFFFFFF:
            raise InvalidArgument(f"uid or gid out of range: {number}")
    if user.umask is not None and not 0 <= user.umask <= 0o777:
        raise InvalidArgument(f"umask out of range: {user.umask}")
    if process.oom_score_adj is not None and not -1000 <= process.oom_score_adj <= 1000:
        raise InvalidArgument(f"oomScoreAdj out of range: {process.oom_score_adj}")
    names = [rlimit.type for rlimit in process.rlimits or ()]
    if len(set(names)) != len(names):
        raise InvalidArgument("rlimit named twice")


def check_spec(spec: Spec) -> None:
    """Checks a whole spec."""
    if spec.process is None:
        raise InvalidArgument("process must be set in the OCI runtime spec")
    check_process(spec.process)
    linux = spec.linux or Linux()
    namespaces: dict[str, str] = {n.type: n.path for n in linux.namespaces or ()}
    if len(namespaces) != len(linux.namespaces or ()):
        raise InvalidArgument("malformed spec file: duplicated ns")
    for path in namespaces.values():
        _check_text("namespace path", path)
    if (spec.hostname or spec.domainname) and "uts" not in namespaces:
        raise InvalidArgument("unable to set hostname without a private UTS namespace")
    for mount in spec.mounts or ():
        _check_text("mount", mount.source + mount.destination + mount.type)
        if not mount.destination.startswith("/"):
            raise InvalidArgument(f"mount destination {mount.destination!r} is not absolute")
        if posixpath.normpath(mount.destination) in ("/", "//"):
            raise InvalidArgument("mount destination can't be the root")
    for path in (*(linux.masked_paths or ()), *(linux.readonly_paths or ())):
        _check_text("path", path)
        if not path.startswith("/"):
            raise InvalidArgument(f"masked or read-only path {path!r} is not absolute")
    for device in linux.devices or ():
        _check_text("device", device.path)
        if not device.path.startswith("/"):
            raise InvalidArgument(f"device path {device.path!r} is not absolute")
    _check_user_namespace(linux, namespaces)
    _check_sysctls(linux, namespaces)
    _check_unsupported(linux)


def _check_user_namespace(linux: Linux, namespaces: dict[str, str]) -> None:
    mapped = bool(linux.uid_mappings or linux.gid_mappings)
    if "user" not in namespaces:
        if mapped:
            raise InvalidArgument("user namespace mappings specified, but user namespace isn't enabled in the config")
        return
    if not namespaces["user"] and not (linux.uid_mappings and linux.gid_mappings):
        raise InvalidArgument("user namespace needs uid and gid mappings")
    for mapping in (*(linux.uid_mappings or ()), *(linux.gid_mappings or ())):
        if mapping.size <= 0 or mapping.container_id < 0 or mapping.host_id < 0:
            raise InvalidArgument("invalid id mapping")


def sysctl_path(key: str) -> str:
    """The file below /proc/sys of a sysctl. `a.b/c.d` has dots in a part, `a/b.c` too: the first separator decides."""
    dot, slash = key.find("."), key.find("/")
    if dot < 0 or 0 <= slash < dot:
        return key
    return key.translate({ord("."): "/", ord("/"): "."})


def _check_sysctls(linux: Linux, namespaces: dict[str, str]) -> None:
    """Only sysctls of the container's own namespaces: any other would change the host."""
    for key, value in (linux.sysctl or {}).items():
        _check_text("sysctl", key + value)
        path = sysctl_path(key)
        name = path.replace("/", ".")
        if not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise InvalidArgument(f"invalid sysctl {key!r}")
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            needed = "ipc"
        elif name.startswith("net."):
            needed = "network"
        elif name in ("kernel.domainname", "kernel.hostname"):
            needed = "uts"
        else:
            raise InvalidArgument(f'sysctl "{key}" is not in a separate kernel namespace')
        if needed not in namespaces:
            raise InvalidArgument(f'sysctl "{key}" is not allowed in the hosts {needed} namespace')


def _check_unsupported(linux: Linux) -> None:
    for name, value in (
        ("linux.intelRdt", linux.intel_rdt),
        ("linux.netDevices", linux.net_devices),
        ("linux.memoryPolicy", linux.memory_policy),
        ("linux.mountLabel", linux.mount_label),
    ):
        if value:
            raise Unsupported(f"{name} in the OCI runtime spec")
    if linux.personality is not None and linux.personality.flags:
        raise Unsupported("linux.personality.flags in the OCI runtime spec")
