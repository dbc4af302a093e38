"""The composition root: builds the rooms, joins them, listens, and takes everything down again."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import shutil
import signal
import socket
from pathlib import Path

from tare.api.serve import Scope, build_api, serve
from tare.daemon.listeners import open_listeners, open_scoped
from tare.daemon.notify import notify
from tare.daemon.scoped_sockets import parse_socket
from tare.daemon.settings import DaemonSettings, parse_trash_free, parse_ulimits, split_pairs
from tare.engine import depends, egress, exits, stop
from tare.engine.engine import Engine, EngineSettings
from tare.engine.log_options import check_log
from tare.engine.options import LogOptions
from tare.engine.restore import restore
from tare.engine.user_namespaces import remapped_range
from tare.errors import KernelError
from tare.images.images import Images
from tare.network.doors import Doors
from tare.network.records import NetworkSettings
from tare.network.service import Network
from tare.registry.records import RegistrySettings
from tare.registry.registries import Registries
from tare.runtime.cgroups import open_cgroup
from tare.runtime.launcher_client import Launcher
from tare.storage.content import Content
from tare.storage.database import Database
from tare.storage.layers import Layers
from tare.storage.snapshots import Snapshots
from tare.values.ids import new_id
from tare.values.timestamps import parse_duration
from tare.values.units import parse_bytes
from tare.volumes.volumes import Volumes

log = logging.getLogger("tared")

DEFAULT_DATA_ROOT = "/var/lib/tare"


async def run_engine(settings: DaemonSettings, launcher_pid: int, connection: socket.socket) -> None:
    """Runs the engine until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    launcher = Launcher(launcher_pid, connection)
    launcher.start()
    engine = build_engine(settings, launcher)
    egress.tell_denied(engine)
    await engine.network.start()
    await restore(engine)
    listeners = open_listeners(settings)
    handler = build_api(engine)
    servers = [await serve(handler, [sock], context) for sock, context in listeners]
    for sock, scoped in open_scoped(settings):
        servers.append(await serve(build_api(engine, Scope(scoped.role, scoped.labels)), [sock]))
    _write_pidfile(settings.pidfile)
    notify("READY=1")
    log.info("listening on %s", ", ".join(settings.hosts))
    await stopping.wait()
    notify("STOPPING=1")
    log.info("shutting down")
    for server in servers:
        await server.close()
    await _shut_down(engine, settings, launcher)


def build_engine(settings: DaemonSettings, launcher: Launcher) -> Engine:
    """All rooms of one engine, joined. Each owns one directory below the data root."""
    data_root = Path(settings.data_root)
    database = Database(data_root / "tare.db")
    layers = Layers(data_root / "layers", database)
    snapshots = Snapshots(data_root / "snapshots", layers, database)
    images = Images(database, Content(data_root / "content"), layers)
    registries = Registries(data_root / "registry", database, _registry_settings(settings))
    registries.known.forget_gone(
        {row["image_id"] for row in database.all("SELECT image_id FROM images")},
        {layer.diff_id for layer in layers.all()},
    )
    doors = Doors(launcher.make_netns, launcher.open_inside)
    network = Network(database, _network_settings(settings), doors)
    return Engine(
        settings=_engine_settings(settings),
        database=database,
        layers=layers,
        snapshots=snapshots,
        images=images,
        volumes=Volumes(data_root / "volumes", database),
        registries=registries,
        network=network,
        launcher=launcher,
        watch=exits.watch,
    )


def _engine_settings(settings: DaemonSettings) -> EngineSettings:
    data_root = Path(settings.data_root)
    log_options = split_pairs(settings.log_opts, "log option")
    check_log(LogOptions(type=settings.log_driver, config=log_options))
    engine_id = _engine_id(data_root)
    return EngineSettings(
        data_root=data_root,
        exec_root=Path(settings.exec_root),
        engine_id=engine_id,
        cgroup_parent=settings.cgroup_parent or _own_name(settings, "/tare", "/tare-"),
        labels=tuple(settings.labels),
        debug=settings.debug or settings.log_level == "debug",
        init_by_default=settings.init,
        no_new_privileges=settings.no_new_privileges,
        userns_remap=remapped_range(settings.userns_remap, engine_id),
        default_shm_size_bytes=parse_bytes(settings.default_shm_size),
        default_ulimits=parse_ulimits(settings.default_ulimits),
        default_log_driver=settings.log_driver,
        default_log_options=log_options,
        journald_socket=settings.journald_socket,
        dns=tuple(settings.dns),
        dns_search=tuple(settings.dns_search),
        dns_options=tuple(settings.dns_opts),
        trash_keep_s=parse_duration(settings.trash_keep) // 10**9,
        trash_max_bytes=parse_bytes(settings.trash_max),
        trash_free_bytes=parse_trash_free(settings.trash_free)[0],
        trash_free_share=parse_trash_free(settings.trash_free)[1],
    )


def _registry_settings(settings: DaemonSettings) -> RegistrySettings:
    return RegistrySettings(
        certs_root=Path(settings.registry_certs),
        insecure=tuple(settings.insecure_registries),
        mirrors=tuple(settings.registry_mirrors),
        max_downloads=settings.max_concurrent_downloads,
        max_uploads=settings.max_concurrent_uploads,
        max_attempts=settings.max_download_attempts,
    )


def _network_settings(settings: DaemonSettings) -> NetworkSettings:
    enabled = settings.bridge != "none"
    return NetworkSettings(
        enabled=enabled,
        bridge_name=settings.bridge if enabled else "tare0",
        subnet=settings.bip or None,
        mtu=settings.mtu,
        icc=settings.icc,
        guard=settings.network_guard,
        ip_masq=settings.ip_masq,
        ip_forward=settings.ip_forward,
        firewall=settings.iptables,
        default_bind_address=settings.ip,
        ipv6=settings.ipv6,
        subnet6=settings.fixed_cidr_v6,
        publish_allow=tuple(settings.publish_allow),
        allow_direct_routing=settings.allow_direct_routing,
        table="tare" if settings.bridge in ("tare0", "none") else "tare_" + re.sub(r"\W", "_", settings.bridge),
    )


def _own_name(settings: DaemonSettings, default: str, prefix: str) -> str:
    """A name that engines with different data roots don't share."""
    if settings.data_root == DEFAULT_DATA_ROOT:
        return default
    return prefix + hashlib.sha256(settings.data_root.encode()).hexdigest()[:12]


def _engine_id(data_root: Path) -> str:
    path = data_root / "engine-id"
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        fresh = new_id()
        aside = path.with_suffix(".new")
        aside.write_text(fresh + "\n", encoding="ascii")
        aside.rename(path)
        return fresh


def _write_pidfile(path: str) -> None:
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    os.rename(f"{path}.new", path)


async def _shut_down(engine: Engine, settings: DaemonSettings, launcher: Launcher) -> None:
    if not settings.live_restore:
        await _stop_all(engine, settings.shutdown_timeout)
    engine.shutting_down = True
    for live in engine.live.values():
        live.link.close()
    idle = not engine.live
    engine.layers.packing.stop()
    await engine.settle()
    await asyncio.to_thread(engine.registries.close)
    await engine.network.stop(remove=idle)
    launcher.close()
    engine.database.close()
    if idle:
        try:
            open_cgroup(engine.settings.cgroup_parent).remove_if_empty()
        except (OSError, KernelError):
            pass
        shutil.rmtree(engine.settings.exec_root / "containers", ignore_errors=True)
    scoped = (parse_socket(text).path for text in settings.sockets)
    for path in [
        settings.pidfile,
        *scoped,
        *(host.removeprefix("unix://") for host in settings.hosts if "unix://" in host),
    ]:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


async def _stop_all(engine: Engine, timeout_s: int) -> None:
    running = [engine.containers.find(container_id) for container_id in list(engine.live)]
    for group in depends.stop_order(engine, running):
        await asyncio.gather(
            *(stop.stop_now(engine, container, signal=None, timeout_s=timeout_s) for container in group),
            return_exceptions=True,
        )
