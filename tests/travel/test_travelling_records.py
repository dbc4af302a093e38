"""What a container's record has and what of it travels: a field that comes to either must be decided on here.

The description of a container on its way (engine/portable.py) repeats fields of the stored record on purpose: one is a
format between two engines, the other one engine's own.
"""

from __future__ import annotations

import ast
import inspect
import types
import typing
from typing import Any

import msgspec
import pytest

from tare.engine import arrival
from tare.engine.options import ContainerConfig, DeviceMapping, HostOptions
from tare.engine.portable import Portable, format_portable, obstacles, parse_portable, portable
from tare.engine.records import Container, ContainerState
from tare.values.ids import new_id

SAME = frozenset("id name created_ns image_id layers path args config host state mounts stop_signal head_id".split())
"""Fields that both have, of one type: they travel as they are."""

STAYS = {
    "endpoint": "networks: names, aliases and wishes; addresses are the other engine's",
    "more_endpoints": "networks",
    "platform": "there is one",
    "log_path": "log_name: the path is the other engine's",
    "directory": "the other engine's",
    "leaving": "said here alone: the departure's token goes",
    "change": "over before a container leaves",
    "ids": "chosen at its next start",
}
"""The other fields of the record, and what stands for them."""

ADDED = frozenset("format token networks volumes ran log_name".split())
"""Fields that only the description has."""

TIED = frozenset(
    "device_cgroup_rules device_requests devices blkio_device_read_bps blkio_device_write_bps blkio_device_read_iops "
    "blkio_device_write_iops blkio_weight_device links depends_on cgroup_parent cpuset_cpus cpuset_mems network_mode "
    "pid_mode ipc_mode".split()
)
"""Host options that may tie a container to its host or to another container: `obstacles` tells of them."""

LEFT = frozenset(("volumes_from", "depends_on", "links"))
"""Host options that don't travel: other containers of the host."""

FREE = frozenset(
    "cpu_shares memory nano_cpus blkio_weight cpu_period cpu_quota cpu_realtime_period cpu_realtime_runtime "
    "memory_reservation memory_swap memory_swappiness oom_kill_disable pids_limit ulimits cpu_count cpu_percent "
    "io_maximum_iops io_maximum_bandwidth kernel_memory kernel_memory_tcp container_id_file log_config port_bindings "
    "restart_policy auto_remove volume_driver console_size annotations cap_add cap_drop cgroupns_mode dns dns_options "
    "dns_search extra_hosts group_add cgroup oom_score_adj privileged publish_all_ports readonly_rootfs security_opt "
    "storage_opt tmpfs uts_mode userns_mode shm_size sysctls runtime isolation init health_on_failure egress "
    "masked_paths readonly_paths".split()
)
"""Host options that mean the same anywhere."""

BY_MOUNTS = frozenset(("binds", "mounts"))
"""Host options that `mounts` of the record says more exactly: obstacles are told of those."""


def names(record: type[msgspec.Struct]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(record)}


def kinds(record: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(record)}


def test_each_field_of_a_container_is_decided_on() -> None:
    """One that comes to the record, or to the description, fails here until it is said what becomes of it."""
    assert names(Container) == SAME | set(STAYS)
    assert names(Portable) == SAME | ADDED
    assert {name: kinds(Container)[name] for name in SAME} == {name: kinds(Portable)[name] for name in SAME}


def test_each_host_option_is_decided_on() -> None:
    assert names(HostOptions) == TIED | LEFT | FREE | BY_MOUNTS
    assert not FREE & (TIED | LEFT | BY_MOUNTS)


def made(kind: Any, seed: int = 7) -> Any:
    """A value of a type, as unlike its default as can be."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return made(next(arg for arg in args if arg is not type(None)), seed)
    if origin is tuple:
        return (made(args[0], seed),) if args[1:] == (...,) else tuple(made(arg, seed) for arg in args)
    if origin in (dict, list):
        return {"key": made(args[1], seed)} if origin is dict else [made(args[0], seed)]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind(**{field.name: made(field.type, seed) for field in msgspec.structs.fields(kind)})
    return {str: "text", int: seed, float: 0.5, bool: True, object: "thing"}[kind]


def container() -> Container:
    """One with something in each field."""
    found: Container = made(Container)
    changes = {"id": new_id(), "name": "some", "leaving": ""}
    host = msgspec.structs.replace(found.host, network_mode="bridge", pid_mode="", ipc_mode="")
    return msgspec.structs.replace(found, host=host, **changes)


def test_what_travels_comes_through() -> None:
    """Each field that is to travel is in the description, and in it after the way."""
    leaves = container()
    told = portable(leaves, {"text": {"a": "b"}}, token=new_id(), ran=True, with_volumes=True)
    for name in SAME - {"host", "state"}:
        assert getattr(told, name) == getattr(leaves, name), name
    for name in names(HostOptions):
        expected = None if name in LEFT else getattr(leaves.host, name)
        assert getattr(told.host, name) == expected, name
    assert [network.name for network in told.networks] == [state.network for state in leaves.endpoints]
    bare = msgspec.structs.replace(told, mounts=())
    assert parse_portable(format_portable(bare)) == bare


def test_a_record_is_made_of_all_that_travels() -> None:
    """The arriving side sets every field of the record that came, by its name."""
    tree = ast.parse(inspect.getsource(arrival._record))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made_of = [
        {keyword.arg for keyword in call.keywords}
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "Container"
    ]
    assert len(made_of) == 1 and made_of[0] >= SAME


@pytest.mark.parametrize("name", sorted(TIED))
def test_what_ties_to_a_host_is_told(name: str) -> None:
    value: Any = made(kinds(HostOptions)[name])
    if name == "devices":
        value = (DeviceMapping(path_on_host="/dev/x"),)
    if name.endswith("_mode"):
        value = "container:other"
    free = Container(
        id=new_id(),
        name="some",
        created_ns=1,
        image_id="sha256:0",
        layers=(),
        path="true",
        args=(),
        config=ContainerConfig(),
        host=HostOptions(),
        state=ContainerState(),
    )
    assert obstacles(free) == []
    tied = msgspec.structs.replace(free, host=msgspec.structs.replace(free.host, **{name: value}))
    assert [one.kind for one in obstacles(tied)] == ["host"]
