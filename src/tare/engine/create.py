"""create: from an image and options to a stored container with a root file system of its own."""

from __future__ import annotations

import contextlib
import shutil

import msgspec

from tare import faults
from tare.engine import check, container_volumes, depends, health_rules, links
from tare.engine.container_networks import wanted_endpoints
from tare.engine.disk_limit import disk_limit
from tare.engine.egress import check_egress, check_networks
from tare.engine.engine import Engine, in_thread
from tare.engine.image_verbs import resolve_image
from tare.engine.log_options import log_path
from tare.engine.mount_specs import Wanted
from tare.engine.network_link import with_states
from tare.engine.oci_resources import resources
from tare.engine.oci_security import asked_profile
from tare.engine.options import ContainerConfig, HostOptions, LogOptions, NetworkingOptions
from tare.engine.records import Container, ContainerState, Created
from tare.engine.user_namespaces import check_user_namespace
from tare.errors import Internal, InvalidArgument, NotFound
from tare.images.documents import for_platform
from tare.images.import_image import parse_platform
from tare.images.records import Image
from tare.kernel.apparmor import has_apparmor
from tare.runtime.cgroups import check_resources
from tare.values.ids import new_id, short_id
from tare.values.names import check_container_name, random_name
from tare.values.signals import parse_signal
from tare.values.timestamps import now_ns


async def create_container(
    engine: Engine,
    name: str | None,
    config: ContainerConfig,
    host: HostOptions,
    networking: NetworkingOptions,
    platform: str | None,
) -> Created:
    """Makes a container; nothing of it runs yet.

    Raises InvalidArgument, NotFound (the image), Conflict (the name), Unsupported (an option), with Docker's texts.
    """
    if name is not None:
        name = check_container_name(name)
        engine.containers.check_name_free(name)
    if not config.image:
        raise InvalidArgument("no command specified" if not config.cmd and not config.entrypoint else "invalid image")
    image = _check_platform(engine, resolve_image(engine, config.image), config.image, platform)
    check.check_config(config)
    health_rules.check_options(config.healthcheck)
    if host.health_on_failure not in health_rules.ON_FAILURE:
        raise InvalidArgument(f"invalid health-on-failure action: {host.health_on_failure}")
    check.check_host(host)
    check.check_shared_namespaces(config, host)
    check_egress(host)
    if disk_limit(host):
        engine.snapshots.quotas.check()
    check_user_namespace(host, engine.settings.userns_remap)
    endpoints = wanted_endpoints(engine, config, host, networking)
    check_networks(engine, host, endpoints)
    depends.check_dependencies(engine, host.depends_on or (), name)
    _, warnings = check_resources(resources(host, None))
    warnings += _warnings(config, host, image)
    config = merge_image_config(config, image)
    host = _with_defaults(engine, host)
    wanted = container_volumes.wanted_mounts(engine, config, host)
    container = links.resolved(engine, with_states(_record(engine, name, config, host, image), endpoints))
    container = await _store(engine, container, wanted)
    engine.events.container(container, "create")
    return Created(id=container.id, warnings=tuple(warnings))


def _record(engine: Engine, name: str | None, config: ContainerConfig, host: HostOptions, image: Image) -> Container:
    id_ = new_id()
    kind = check.network_kind(host.network_mode)
    if not config.hostname and kind in ("bridge", "custom", "none") and host.uts_mode != "host":
        config = msgspec.structs.replace(config, hostname=short_id(id_))
    command = (config.entrypoint or ()) + (config.cmd or ())
    if not command:
        raise InvalidArgument("no command specified")
    directory = engine.container_dir(id_)
    driver = host.log_config.type if host.log_config else "json-file"
    return Container(
        id=id_,
        name=name or _free_name(engine),
        created_ns=now_ns(),
        image_id=image.id,
        layers=tuple(image.diff_ids),
        path=command[0],
        args=tuple(command[1:]),
        config=config,
        host=host,
        state=ContainerState(),
        stop_signal=parse_signal(config.stop_signal) if config.stop_signal else 15,
        log_path=log_path(driver, str(directory), id_),
        directory=str(directory),
    )


async def _store(engine: Engine, container: Container, wanted: tuple[Wanted, ...]) -> Container:
    """Writes the container down, with its mounts; if that fails half-way, nothing of it stays."""
    with engine.made(container.id), contextlib.ExitStack() as undo:
        directory = engine.container_dir(container.id)
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.mkdir(mode=0o710)
        faults.point("engine.create.directory")
        undo.callback(engine.snapshots.remove, container.id)
        if engine.layers.packing.concerns(container.layers):
            # An older version whose large files are packed. They stay plain long enough; `prepare` looks again.
            await in_thread(engine.layers.packing.unpack_for, container.layers)
        engine.snapshots.prepare(container.id, container.layers, size_bytes=disk_limit(container.host))
        faults.point("engine.create.snapshot")
        async with container_volumes.prepared(engine, container.id, wanted) as points:
            container = msgspec.structs.replace(container, mounts=points)
            engine.containers.add(container)
            undo.pop_all()
        faults.point("engine.create.stored")
    return container


def merge_image_config(config: ContainerConfig, image: Image) -> ContainerConfig:
    """A container's settings, completed from its image's as Docker does it."""
    base = image.config
    entrypoint, cmd = config.entrypoint, config.cmd
    if entrypoint is None and not cmd:
        cmd = tuple(base.cmd or ()) or cmd
    if entrypoint is None:
        entrypoint = tuple(base.entrypoint) if base.entrypoint else None
    elif entrypoint == ("",):
        entrypoint = None
    given = {variable.partition("=")[0] for variable in config.env or ()}
    env = [variable for variable in base.env or () if variable.partition("=")[0] not in given]
    merged = [*(config.env or ()), *env] if config.env else env
    return msgspec.structs.replace(
        config,
        entrypoint=entrypoint,
        cmd=cmd,
        env=tuple(merged) if merged or config.env is not None else None,
        user=config.user or base.user or "",
        working_dir=config.working_dir or base.working_dir or "",
        labels={**(base.labels or {}), **(config.labels or {})},
        volumes={**{place: {} for place in base.volumes or {}}, **(config.volumes or {})} or None,
        exposed_ports={**{port: {} for port in base.exposed_ports or {}}, **(config.exposed_ports or {})} or None,
        stop_signal=config.stop_signal or base.stop_signal or "",
        healthcheck=health_rules.merged(config.healthcheck, base.healthcheck),
        shell=config.shell or tuple(base.shell) or None,
    )


def _warnings(config: ContainerConfig, host: HostOptions, image: Image) -> list[str]:
    found = []
    kind = check.network_kind(host.network_mode)
    if (host.publish_all_ports or host.port_bindings) and kind not in ("bridge", "custom"):
        found.append(f"Published ports are discarded when using {kind} network mode")
    profile = asked_profile(host)
    if profile not in ("", "unconfined") and not has_apparmor():
        found.append(f"This kernel has no AppArmor: profile {profile} is not applied")
    return found


def _with_defaults(engine: Engine, host: HostOptions) -> HostOptions:
    settings = engine.settings
    log = host.log_config
    if log is None or not log.type:
        log = LogOptions(type=settings.default_log_driver, config=(log and log.config) or settings.default_log_options)
    return msgspec.structs.replace(
        host,
        log_config=log,
        shm_size=host.shm_size or settings.default_shm_size_bytes,
        network_mode=host.network_mode or "default",
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or "private",
        runtime=host.runtime or settings.default_runtime,
        masked_paths=host.masked_paths,
        memory_swap=host.memory_swap or (host.memory * 2 if host.memory > 0 else 0),
    )


def _free_name(engine: Engine) -> str:
    for attempt in range(100):
        name = random_name(attempt // 3)
        if engine.containers.name_is_free(name):
            return name
    return new_id()


def _check_platform(engine: Engine, image: Image, reference: str, platform: str | None) -> Image:
    """The image for the platform: it, or one of its index. Raises NotFound, Internal if it is damaged."""
    if platform:
        image = _of_index(engine, image, platform)
    if image.damaged:
        raise Internal(f"image {reference} is damaged ({image.damaged}): load or pull it again")
    if not platform:
        return image
    spec = image.spec
    os_name, _, architecture = platform.partition("/")
    architecture = architecture.partition("/")[0]
    if os_name != spec.os or (architecture and architecture != spec.architecture):
        raise NotFound(
            f"image with reference {reference} was found but its platform ({spec.os}/{spec.architecture}) "
            f"does not match the specified platform ({platform})"
        )
    return image


def _of_index(engine: Engine, image: Image, platform: str) -> Image:
    try:
        return for_platform(engine.images, image, parse_platform(platform), image.id)
    except (InvalidArgument, NotFound):
        return image  # what it is is compared with what was asked for
