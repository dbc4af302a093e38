"""How many bytes a container's own files may take: `--storage-opt size=…`, at create and changed while it runs."""

from __future__ import annotations

import contextlib
import errno
from functools import lru_cache
from typing import Literal

import msgspec

from tare import faults
from tare.engine.engine import Engine, in_thread
from tare.engine.oci_security import Security
from tare.engine.options import HostOptions
from tare.engine.pause import frozen
from tare.engine.records import Container
from tare.errors import InvalidArgument, TareError
from tare.oci.runtime_spec import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall
from tare.values.units import format_bytes_binary, parse_bytes

_CHANGES_ATTRIBUTES = (0x401C5820, 0x40086602, 0x40046602)
"""FS_IOC_FSSETXATTR, FS_IOC_SETFLAGS and its 32-bit form (include/uapi/linux/fs.h)."""


def disk_limit(host: HostOptions) -> int:
    """The bytes that a container's own files may take; 0: no limit. Raises InvalidArgument, with Docker's texts."""
    size_bytes = 0
    for name, text in (host.storage_opt or {}).items():
        if name.lower() != "size":
            raise InvalidArgument(f"Unknown option {name}")
        size_bytes = parse_bytes(text)
    return size_bytes


async def change_limit(
    engine: Engine, container: Container, options: dict[str, str], undo: contextlib.AsyncExitStack
) -> tuple[str, ...]:
    """Another limit, at once if the container runs; its record keeps it. Returns warnings.

    undo: gets what takes it back. The caller holds the container's lock. Raises InvalidArgument, Unsupported.
    """
    host = msgspec.structs.replace(container.host, storage_opt=options)
    size_bytes = disk_limit(host)
    if size_bytes:
        engine.snapshots.quotas.check()
    try:
        used = await _set(engine, container.id, options)
    except BaseException:
        with contextlib.suppress(TareError, OSError):
            await _set(engine, container.id, container.host.storage_opt)
        raise
    undo.push_async_callback(_set, engine, container.id, container.host.storage_opt)
    if 0 < size_bytes < used:
        taken = format_bytes_binary(used)
        return (f"The container's files take {taken} already: it can write nothing more until it has removed some.",)
    return ()


async def _set(engine: Engine, container_id: str, options: dict[str, str] | None) -> int:
    """Stores it in one transaction with what the storage is to do, which is taken up after a crash; then does it."""
    container = engine.containers.find(container_id)
    host = msgspec.structs.replace(container.host, storage_opt=options)
    engine.containers.save(
        msgspec.structs.replace(container, host=host),
        durable=True,
        along=lambda tx: engine.snapshots.begin_limit(tx, container_id, disk_limit(host)),
    )
    faults.point("engine.limit.recorded")
    # What is there already gets its project file by file: a program that moves files about could keep some from it.
    async with frozen(engine, container_id):
        return await in_thread(engine.snapshots.finish_limit, container_id)


def confined(engine: Engine, container: Container, security: Security) -> Security:
    """A process of a container that has a limit, or a volume with one, can't take its files out of their project.

    The kernel lets a file's owner give it to another project, or have a directory not hand its own on, but from a user
    namespace (ioctl_xfs_fsgetxattr(2), ioctl_iflags(2)): so the calls that change attributes are filtered.
    """
    if container.ids is not None or security.seccomp is None:
        return security
    volumes = (engine.volumes.get(point.name) for point in container.mounts if point.type == "volume")
    if not disk_limit(container.host) and not any(volume is not None and volume.project_id for volume in volumes):
        return security
    return msgspec.structs.replace(security, seccomp=_keeping_attributes(security.seccomp))


@lru_cache(8)
def _keeping_attributes(seccomp: LinuxSeccomp) -> LinuxSeccomp:
    """Of rules that meet the first counts, but one without conditions before all: there is to be none for ioctl(2)."""
    denied = [
        LinuxSyscall(names=("ioctl",), action="SCMP_ACT_ERRNO", errno_ret=errno.EPERM, args=(_argument(value, "EQ"),))
        for value in _CHANGES_ATTRIBUTES
    ]
    denied.append(LinuxSyscall(names=("file_setattr",), action="SCMP_ACT_ERRNO", errno_ret=errno.ENOSYS))
    kept = []
    for call in seccomp.syscalls or ():
        if "ioctl" not in call.names or call.args:
            kept.append(call)
            continue
        rest = tuple(name for name in call.names if name != "ioctl")
        kept.append(msgspec.structs.replace(call, names=("ioctl",), args=(_argument(0, "GE"),)))
        if rest:
            kept.append(msgspec.structs.replace(call, names=rest))
    return msgspec.structs.replace(seccomp, syscalls=(*denied, *kept))


def _argument(value: int, comparison: Literal["EQ", "GE"]) -> LinuxSeccompArg:
    return LinuxSeccompArg(1, value, "SCMP_CMP_EQ" if comparison == "EQ" else "SCMP_CMP_GE")
