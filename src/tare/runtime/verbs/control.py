"""`pause`, `resume`, `update` and `ps`: what is done to a running container."""

from __future__ import annotations

import sys

import msgspec

from tare.errors import Conflict, InvalidArgument, KernelError
from tare.oci.runtime_spec import LinuxBlockIO, LinuxCPU, LinuxMemory, LinuxPids, LinuxResources, parse_resources
from tare.runtime.arguments import Arguments, parse_arguments
from tare.runtime.cgroups import open_cgroup
from tare.runtime.store import ContainerStore

_UPDATE = (
    *("resources", "blkio-weight", "cpu-period", "cpu-quota", "cpu-burst", "cpu-share", "cpu-rt-period"),
    *("cpu-rt-runtime", "cpuset-cpus", "cpuset-mems", "cpu-idle", "memory", "memory-reservation", "memory-swap"),
    *("pids-limit", "kernel-memory", "kernel-memory-tcp"),
)


def pause(store: ContainerStore, words: list[str]) -> int:
    """Stops all processes of a container."""
    record = store.load(parse_arguments(words, {}, {}).only_container_id())
    status = store.status(record)
    if status not in ("running", "created"):
        raise Conflict(f"container not running: {status}")
    open_cgroup(record.cgroup).freeze()
    return 0


def resume(store: ContainerStore, words: list[str]) -> int:
    """Lets them go on."""
    record = store.load(parse_arguments(words, {}, {}).only_container_id())
    if store.status(record) != "paused":
        raise Conflict("container not paused")
    open_cgroup(record.cgroup).thaw()
    return 0


def _number(arguments: Arguments, name: str) -> int | None:
    text = arguments.get(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"invalid value {text!r} of --{name}") from None


def _resources(arguments: Arguments) -> LinuxResources:
    source = arguments.get("resources")
    if source:
        try:
            if source == "-":
                return parse_resources(sys.stdin.buffer.read())
            with open(source, "rb") as file:
                return parse_resources(file.read())
        except OSError as error:
            raise KernelError(error.errno or 5, "open", source) from error
    limit = _number(arguments, "pids-limit")
    weight = _number(arguments, "blkio-weight")
    return LinuxResources(
        memory=LinuxMemory(
            limit=_number(arguments, "memory"),
            reservation=_number(arguments, "memory-reservation"),
            swap=_number(arguments, "memory-swap"),
        ),
        cpu=LinuxCPU(
            shares=_number(arguments, "cpu-share"),
            quota=_number(arguments, "cpu-quota"),
            period=_number(arguments, "cpu-period"),
            burst=_number(arguments, "cpu-burst"),
            realtime_runtime=_number(arguments, "cpu-rt-runtime"),
            realtime_period=_number(arguments, "cpu-rt-period"),
            cpus=arguments.get("cpuset-cpus"),
            mems=arguments.get("cpuset-mems"),
            idle=_number(arguments, "cpu-idle"),
        ),
        pids=None if limit is None else LinuxPids(limit),
        block_io=None if weight is None else LinuxBlockIO(weight=weight),
    )


def update(store: ContainerStore, words: list[str]) -> int:
    """Changes the limits of a container."""
    arguments = parse_arguments(words, dict.fromkeys(_UPDATE, True), {"r": "resources"})
    record = store.load(arguments.container_id())
    if store.status(record) == "stopped":
        raise Conflict("container not running")
    open_cgroup(record.cgroup).apply(_resources(arguments))
    return 0


def ps(store: ContainerStore, words: list[str]) -> int:
    """Lists the processes of a container: as JSON their pids, as a table what `ps` says of them."""
    arguments = parse_arguments(words, {"format": True}, {"f": "format"})
    record = store.load(arguments.container_id())
    pids = open_cgroup(record.cgroup).pids()
    layout = arguments.get("format", "table")
    if layout == "json":
        print(msgspec.json.encode(pids).decode())
        return 0
    if layout != "table":
        raise InvalidArgument(f"invalid format option: {layout}")
    import subprocess

    words = arguments.rest[1:] or ["-ef"]
    lines = subprocess.run(["ps", *words], check=True, capture_output=True, text=True).stdout.splitlines()
    column = lines[0].split().index("PID")
    print(lines[0])
    for line in lines[1:]:
        fields = line.split()
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            print(line)
    return 0
