"""The engine's context: everything that the verbs share. It has no verbs of its own and knows nothing of HTTP.

A verb is a function in a file of its own (`start.py`, `stop.py` …) that takes the engine first. All verbs run on the
event loop's thread; what takes long (tar, hashing, walking trees) they hand to a thread with `in_thread`, or, if it
waits for others' bytes, with `in_own_thread`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import posixpath
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import msgspec

from tare.engine.containers import Containers
from tare.engine.events import Events
from tare.engine.locks import Locks
from tare.engine.records import ExecRecord, IdRange, WaitResult
from tare.engine.trash_store import TrashStore
from tare.errors import TareError
from tare.images.images import Images
from tare.network.service import Network
from tare.registry.registries import Registries
from tare.runtime.launcher_client import Launcher
from tare.runtime.messages import StreamWish
from tare.runtime.monitor_client import MonitorLink
from tare.storage.database import Database
from tare.storage.layers import Layers
from tare.storage.snapshots import Snapshots
from tare.volumes.volumes import Volumes

if TYPE_CHECKING:
    from tare.engine.layer_fetch import LayerFetches
    from tare.engine.log_shipping import Shipper

log = logging.getLogger("tare.engine")

P = ParamSpec("P")
R = TypeVar("R")
_THREADS_END_S = 5
_own_threads: set[Future[Any]] = set()


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is told at start. cgroup_parent: the cgroup below which containers live."""

    data_root: Path
    exec_root: Path
    engine_id: str
    cgroup_parent: str = "/tare"
    default_runtime: str = "tare"
    labels: tuple[str, ...] = ()
    debug: bool = False
    init_by_default: bool = False
    no_new_privileges: bool = False
    default_shm_size_bytes: int = 64 << 20
    default_ulimits: dict[str, tuple[int, int]] = {}
    default_log_options: dict[str, str] = {}
    default_log_driver: str = "json-file"
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    default_stop_timeout_s: int = 10
    journald_socket: str = "/run/systemd/journal/socket"
    userns_remap: IdRange | None = None
    trash_keep_s: int = 24 * 3600
    trash_max_bytes: int = 5 * 10**9
    trash_free_bytes: int = 0
    trash_free_share: float = 0.0
    """How much of the disk the trash may not take: bytes, or where these are 0 a share of it."""


class Live:
    """What the engine holds of a running container: gone when it ends."""

    def __init__(self, link: MonitorLink, pid: int) -> None:
        self.link = link
        self.pid = pid
        self.handled = asyncio.Event()
        """Set when the container's end has been dealt with: state stored, network released."""


class LiveExec:
    """What the engine holds of an exec: its record, and the link to its monitor while it runs."""

    def __init__(self, record: ExecRecord) -> None:
        self.record = record
        self.link: MonitorLink | None = None
        self.launched = asyncio.Event()
        self.ended = asyncio.Event()


class Engine:
    """Everything that the verbs share."""

    def __init__(
        self,
        *,
        settings: EngineSettings,
        database: Database,
        layers: Layers,
        snapshots: Snapshots,
        images: Images,
        volumes: Volumes,
        registries: Registries,
        network: Network,
        launcher: Launcher,
        watch: Callable[[Engine, str, Live], Coroutine[Any, Any, None]],
    ) -> None:
        self.settings = settings
        self.database = database
        self.layers = layers
        self.snapshots = snapshots
        self.images = images
        self.volumes = volumes
        self.registries = registries
        self.layer_fetches: LayerFetches | None = None
        self.network = network
        self.launcher = launcher
        self.containers = Containers(database)
        self.events = Events()
        self.live: dict[str, Live] = {}
        self.making: set[str] = set()
        """Ids of containers that have files already, and no record yet; see `made`."""
        self.execs: dict[str, LiveExec] = {}
        self.pending_streams: dict[str, list[tuple[StreamWish, socket.socket]]] = {}
        """Streams attached before the container runs; they go to its monitor with the start."""
        self.waits: dict[str, list[tuple[str, asyncio.Future[WaitResult]]]] = {}
        self.log_shippers: dict[str, Shipper] = {}
        self.restart_tasks: dict[str, asyncio.Task[None]] = {}
        self.unfinished: dict[str, tuple[Callable[[], Awaitable[object]], asyncio.Task[None]]] = {}
        """What failed and is tried again (unfinished.py), by the names of its locks."""
        self.trash = TrashStore(database)
        self.trash_timer: asyncio.TimerHandle | None = None
        self._locks = Locks()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.shutting_down = False
        self.trash_is_full = False
        self.sweeping = False
        self.discarded: list[Path] = []
        self.checking = False
        self.slimming = False
        self.slim_again = False
        self.watch = watch
        """What is run beside each running container until it ends (`exits.watch`; named here it would be a circle)."""

    def lock(self, container_id: str) -> asyncio.Lock:
        """The lock that a verb holds while it takes a container, or what else is named, from one state to the next."""
        return self._locks[container_id]

    @contextlib.contextmanager
    def made(self, container_id: str) -> Iterator[None]:
        """Within the block a container is being made: what there is of it belongs to somebody."""
        self.making.add(container_id)
        try:
            yield
        finally:
            self.making.discard(container_id)

    def container_dir(self, container_id: str) -> Path:
        """Where a container's files are kept: its log, /etc/hosts, /etc/hostname, /etc/resolv.conf."""
        return self.settings.data_root / "containers" / container_id

    def run_dir(self, container_id: str) -> Path:
        """Where a container's monitor lives, below the exec root."""
        return self.settings.exec_root / "containers" / container_id

    def cgroup_path(self, container_id: str, parent: str = "") -> str:
        """The path of a container's cgroup in each hierarchy. parent: as the user wrote it, perhaps relative."""
        above = posixpath.normpath(f"/{(parent or self.settings.cgroup_parent).lstrip('/')}")
        return f"{above.rstrip('/')}/{container_id}"

    def drop_pending_streams(self, container_id: str) -> None:
        """Closes the streams that wait for a start that won't come."""
        for _, stream in self.pending_streams.pop(container_id, []):
            stream.close()

    def spawn(self, work: Coroutine[Any, Any, R], name: str) -> asyncio.Task[R]:
        """Runs work beside the caller; its failure is logged."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    async def uninterrupted(self, work: Coroutine[Any, Any, R], name: str) -> R:
        """Runs work to its end though the caller may be cancelled meanwhile, since its client hung up.

        For what takes a container from one state to the next: that must not stop half-way.
        """
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell_nobody)
            raise

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def settle(self) -> None:
        """Cancels what still runs beside and waits until it has stopped."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if _own_threads:  # their clients were hung up on, so that they come to an end
            await asyncio.wait([asyncio.wrap_future(one) for one in _own_threads], timeout=_THREADS_END_S)


def _tell_nobody(task: asyncio.Task[Any]) -> None:
    """Notes in the log how work failed that its client no longer waits for."""
    if not task.cancelled() and (error := task.exception()) is not None:
        told = None if isinstance(error, TareError) else error
        log.warning("%s failed after its client had left: %s", task.get_name(), error, exc_info=told)


async def in_thread(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs a function that blocks in a worker thread: only one that waits for nobody outside."""
    return await asyncio.to_thread(function, *args, **kwargs)


async def in_own_thread(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """The same for what waits for a client's body, for a reader or for another server: a thread of its own.

    Those of `in_thread` are few (processors + 4) and every verb needs them: clients that stall mustn't take them all.
    """
    done: Future[R] = Future()
    done.set_running_or_notify_cancel()

    def work() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(result)

    _own_threads.add(done)
    done.add_done_callback(_own_threads.discard)
    threading.Thread(target=work, name="tare-stream", daemon=True).start()
    return await asyncio.wrap_future(done)
