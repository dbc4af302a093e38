"""inspect: all that is known of a container."""

from __future__ import annotations

from tare.engine.check import network_kind
from tare.engine.engine import Engine, in_thread
from tare.engine.log_shipping import shipping_state
from tare.engine.oci_security import apparmor_profile, asked_profile
from tare.engine.records import Container, ContainerDetail


async def inspect_container(engine: Engine, ref: str, *, size: bool) -> ContainerDetail:
    """Everything about a container; with size, also the bytes of its own layer and its whole root. Raises NotFound."""
    container = engine.containers.find(ref)
    root = engine.snapshots.root_filesystem(container.id)
    size_rw = size_root = None
    if size:
        size_rw, size_root = await in_thread(engine.snapshots.sizes, container.id)
    shared = network_kind(container.host.network_mode) == "container"
    owner = engine.containers.find(container.host.network_mode.partition(":")[2]) if shared else container
    return ContainerDetail(
        container=container,
        exec_ids=tuple(
            live.record.id
            for live in engine.execs.values()
            if live.record.container_id == container.id and (live.record.running or live.record.exit_code is None)
        ),
        hostname_path=f"{owner.directory}/hostname",
        hosts_path=f"{owner.directory}/hosts",
        resolv_conf_path=f"{owner.directory}/resolv.conf",
        lower_dirs=root.lower,
        upper_dir=root.upper or "",
        work_dir=root.work or "",
        sandbox_id=container.endpoint.endpoint_id if container.endpoint else "",
        size_rw_bytes=size_rw,
        size_root_bytes=size_root,
        log_shipping=shipping_state(engine, container),
        apparmor_profile=_profile(container),
    )


def _profile(container: Container) -> str:
    """The AppArmor profile: before the first start what was asked for, then what there is, as Docker has it."""
    host = container.host
    return asked_profile(host) if container.state.status == "created" else apparmor_profile(host)
