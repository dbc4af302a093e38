"""move, at its source: a container is held still, described, read part by part, and removed once it is whole elsewhere.

    depart (stopped or frozen, marked: it can't be started) → its parts are read, as often as need be
      → departed: into the trash          or → stay: as it was before

The mark is in the container's record: an engine that dies meanwhile finds it, and nobody starts the container while it
may run elsewhere already.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec

from tare import faults
from tare.engine import launch, pause, remove, restart_policy, stop
from tare.engine.engine import Engine
from tare.engine.portable import LOG, UPPER, VOLUME, Obstacle, Portable, obstacles, portable
from tare.engine.records import Container
from tare.engine.thread_stream import begun_in_thread
from tare.errors import Conflict, InvalidArgument, NotFound
from tare.storage.carry import pack_tree, pack_upper
from tare.values.ids import new_id

RAN, STOOD, FROZEN = "ran", "stood", "frozen"
"""What a container that leaves was before: it is to run at its end; it isn't; it is to run, and only froze here."""


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """What depart tells."""

    moved: Portable
    obstacles: list[Obstacle]


async def describe(engine: Engine, ref: str, *, with_volumes: bool = True) -> Leaving:
    """What would travel of a container, and what couldn't. Raises NotFound."""
    container = engine.containers.find(ref)
    was, _, token = container.leaving.partition(" ")
    moved = portable(
        container,
        {volume.name: volume.labels for volume in engine.volumes},
        token=token or new_id(),
        ran=was in (RAN, FROZEN) if was else container.state.running,
        with_volumes=with_volumes,
    )
    return Leaving(moved=moved, obstacles=obstacles(container))


async def depart(engine: Engine, ref: str, *, how: str, with_volumes: bool) -> Leaving:
    """Holds a container still, so that it can be carried away; repeated, it only tells again.

    how: what is done with one that runs: stop, pause, or "" (refused). Raises NotFound, Conflict, InvalidArgument.
    """
    if how not in ("", "stop", "pause"):
        raise InvalidArgument(f"a container is stopped or paused before it travels, not {how[:32]!r}")
    container = engine.containers.find(ref)
    if container.state.status == "running" and how == "pause":
        await pause.pause_container(engine, container.id)
    await engine.uninterrupted(_hold(engine, container.id, how), f"depart {container.id[:12]}")
    return await describe(engine, container.id, with_volumes=with_volumes)


async def _hold(engine: Engine, container_id: str, how: str) -> None:
    async with engine.lock(container_id):
        container = engine.containers.find(container_id)
        if container.leaving:
            return
        if container.state.status in ("removing", "dead"):
            raise Conflict(f"container {container.id} is marked for removal and cannot be moved")
        if container.host.auto_remove and how != "pause" and container.state.running:
            raise Conflict(f'container "{container.name}" is removed when it stops (--rm): it can only be paused')
        ran = container.state.running
        if ran and not container.state.paused:
            if how != "stop":
                raise Conflict(f'container "{container.name}" is {container.state.status}: stop or pause it to move it')
            _mark(engine, container, RAN)
            faults.point("engine.depart.marked")
            await stop.stop_now(engine, container, signal=None, timeout_s=None)
        else:
            _mark(engine, container, FROZEN if ran else STOOD)
        restart_policy.cancel(engine, container_id)
        faults.point("engine.depart.held")


def _mark(engine: Engine, container: Container, what: str) -> None:
    engine.containers.save(msgspec.structs.replace(container, leaving=f"{what} {new_id()}"), durable=True)


async def part(engine: Engine, ref: str, name: str) -> AsyncIterator[bytes]:
    """One of a container's streams: its upper layer, its log, a volume. Raises NotFound before the first chunk."""
    container = engine.containers.find(ref)
    if name == UPPER:
        upper = engine.snapshots.upper(container.id)
        return await begun_in_thread(lambda write: pack_upper(upper, write))
    if name == LOG:
        directory, own = engine.container_dir(container.id), container.log_path.rpartition("/")[2].encode() or b"\0"
        return await begun_in_thread(lambda write: pack_tree(directory, write, lambda path: path.startswith(own)))
    volume = name.removeprefix(VOLUME)
    if name != VOLUME + volume or not any(one.type == "volume" and one.name == volume for one in container.mounts):
        raise NotFound(f"no part {name[:100]!r} of container {container.id}")
    mountpoint = engine.volumes.mountpoint(engine.volumes.find(volume).name)
    return await begun_in_thread(lambda write: pack_tree(mountpoint, write))


async def stay(engine: Engine, ref: str) -> Container:
    """Gives a departure up: the container is as it was before. Raises NotFound."""
    container = engine.containers.find(ref)
    return await engine.uninterrupted(_stay(engine, container.id), f"stay {container.id[:12]}")


async def _stay(engine: Engine, container_id: str) -> Container:
    async with engine.lock(container_id):
        container = engine.containers.find(container_id)
        was = container.leaving.partition(" ")[0]
        container = engine.containers.save(msgspec.structs.replace(container, leaving=""), durable=True)
        faults.point("engine.depart.unmarked")
        if was == RAN and not container.state.running:
            await launch.launch(engine, container)
    if was == FROZEN and container.state.paused:
        await pause.unpause_container(engine, container_id)
    return engine.containers.find(container_id)


async def departed(engine: Engine, ref: str) -> None:
    """The container is whole elsewhere: here it goes, into the trash. Raises NotFound, Conflict if it isn't leaving."""
    container = engine.containers.find(ref)
    if not container.leaving:
        raise Conflict(f"container {container.id} is not about to leave")
    faults.point("engine.depart.leaving")
    with contextlib.suppress(NotFound):  # with --rm it goes by itself once it is killed
        await remove.remove_container(engine, container.id, force=True, volumes=False, link=False, keep=True)


__all__ = ["Leaving", "depart", "departed", "describe", "part", "stay"]
