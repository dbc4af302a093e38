"""fsck: the data root checked against itself while the engine works: database, layers, images, containers, volumes.

Must never remove anything unless told to repair, and then nothing that a container, a name or the trash still leads to.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from functools import partial

import msgspec

from tare.engine import image_mounts
from tare.engine.engine import Engine, in_thread
from tare.engine.sweep import empty_trash_soon
from tare.engine.telling import Telling
from tare.engine.trash_store import LAYER_ROOT
from tare.errors import Conflict
from tare.images.fsck import check_images
from tare.storage.fsck import Check, check_database, check_layers, check_roots
from tare.storage.fsck import Finding as Finding
from tare.storage.full_disk import naming_the_disk


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a check. layers, images …: how many there were; found, repaired: how many findings."""

    layers: int
    images: int
    containers: int
    volumes: int
    found: int
    repaired: int
    seconds: float


Told = str | Finding | Checked


async def fsck(engine: Engine, *, repair: bool = False, contents: bool = True) -> AsyncGenerator[Told, None]:
    """Checks all there is: what is being looked at, what is wrong as it is found, and a sum at the end.

    contents: reads every byte. Who stops listening ends the check at the next thing. Raises Conflict while one runs.
    """
    if engine.checking:
        raise Conflict("a check is running already")
    engine.checking = True
    told: Telling[Told] = Telling(lambda item: True if isinstance(item, str) else None)
    stopped = False

    def tell(item: Told) -> None:
        if stopped or engine.shutting_down:
            raise Stopped
        told.tell(item)  # findings wait for nobody: locks may be held, and the check keeps them all in any case

    engine.spawn(_run(engine, repair, contents, tell, told), "check")
    try:
        async for item in told.items():
            yield item
    finally:
        stopped = True
        told.leave()


class Stopped(Exception):
    """Nobody listens any more."""


async def _run(engine: Engine, repair: bool, contents: bool, tell: Callable[[Told], None], told: Telling[Told]) -> None:
    failure: Exception | None = None
    end: Checked | None = None
    try:
        with naming_the_disk(engine.layers.root):
            end = await in_thread(_check, engine, repair, contents, tell)
    except Stopped:
        pass
    except Exception as error:
        failure = error
    finally:
        engine.checking = False
    if end is not None:
        told.tell(end)  # only now: who hears it may begin another check
    told.end(failure)
    if repair:
        empty_trash_soon(engine)


def _check(engine: Engine, repair: bool, contents: bool, tell: Callable[[Told], None]) -> Checked:
    began = time.monotonic()
    check = Check(repair=repair, contents=contents, told=tell, heard=tell)
    check_database(check, engine.database)
    check_layers(check, engine.layers)
    check_images(check, engine.images)
    check_roots(check, engine.layers, partial(_is_known, engine))
    _check_snapshots(check, engine)
    _check_containers(check, engine)
    _check_volumes(check, engine)
    return Checked(
        layers=len(engine.layers.all()),
        images=len(engine.images.all()),
        containers=len(list(engine.containers)),
        volumes=len(engine.volumes),
        found=len(check.findings),
        repaired=sum(finding.repaired for finding in check.findings),
        seconds=round(time.monotonic() - began, 2),
    )


def _is_known(engine: Engine, holder: str) -> bool:
    kind, _, name = holder.partition(":")
    if kind == "image":
        return engine.images.find(name) is not None
    if holder.startswith(LAYER_ROOT):
        # The row, since an image comes into the trash in a thread, which tells the engine only at its end.
        return engine.database.one("SELECT 1 FROM trash WHERE id = ?", (name,)) is not None
    return True


def _has_owner(engine: Engine, name: str) -> bool:
    """Whether a snapshot, or the directory of a container's id, is somebody's."""
    known = image_mounts.is_owned(engine, name)
    return known or name.partition(".")[0] in engine.making  # its volumes may take long to be filled


def _check_snapshots(check: Check, engine: Engine) -> None:
    check.told("snapshots")
    snapshots = engine.snapshots
    for name in snapshots.strangers():
        check.found("snapshot", name, "is recorded nowhere", "it is removed", partial(snapshots.remove_stranger, name))
    for snapshot_id in snapshots.ids():
        if not _has_owner(engine, snapshot_id):
            if _settled(lambda: _has_owner(engine, snapshot_id) or not snapshots.exists(snapshot_id)):  # noqa: B023
                continue  # a container in the making, or on its way out
            check.found("snapshot", snapshot_id, "belongs to no container", "it is removed",
                        partial(snapshots.remove, snapshot_id))  # fmt: skip
            continue
        if not snapshots.is_whole(snapshot_id) and not _settled(lambda: snapshots.is_whole(snapshot_id)):  # noqa: B023
            check.found("snapshot", snapshot_id, "its directories are missing: what the container had changed is lost",
                        "empty ones are made", partial(snapshots.make_again, snapshot_id))  # fmt: skip
        for diff_id in snapshots.diff_ids(snapshot_id):
            if not engine.layers.exists(diff_id):
                check.found("snapshot", snapshot_id, f"layer {diff_id} below it is missing: load or pull its image")


def _settled(condition: Callable[[], bool]) -> bool:
    """Whether a condition holds now or within two seconds: things that are being made or removed take that long."""
    for _ in range(20):
        if condition():
            return True
        time.sleep(0.1)
    return False


def _check_containers(check: Check, engine: Engine) -> None:
    check.told("containers")
    names: dict[str, str] = {}
    for container in engine.containers:
        if container.name in names:
            check.found("container", container.id, f"has the name {container.name} of {names[container.name]}")
        names[container.name] = container.id
        if not engine.snapshots.exists(container.id):
            check.found("container", container.id, "its file system is not recorded: it can only be removed")
        directory = engine.container_dir(container.id)
        if not directory.is_dir() and engine.containers.get(container.id) is not None:
            check.found("container", container.id, "its directory (log, hosts file) is missing", "an empty one is made",
                        partial(directory.mkdir, 0o700, True, True))  # fmt: skip
    kept = engine.settings.data_root / "containers"
    for path in sorted(kept.iterdir()):
        if path.name.startswith("."):
            continue
        if not _has_owner(engine, path.name) and not _settled(
            lambda: _has_owner(engine, path.name) or not path.exists()  # noqa: B023
        ):
            check.found("leftover", f"containers/{path.name}", "belongs to no container", "it is removed",
                        partial(engine.layers.trash.throw, path))  # fmt: skip


def _check_volumes(check: Check, engine: Engine) -> None:
    check.told("volumes")
    for volume in engine.volumes:
        place = engine.volumes.mountpoint(volume.name)
        if not place.is_dir() and engine.volumes.get(volume.name) is not None:
            check.found("volume", volume.name, "its directory is missing: its data is lost", "an empty one is made",
                        partial(place.mkdir, 0o755, True, True))  # fmt: skip
    for path in sorted(engine.volumes.root.iterdir()):
        if path.name.startswith(".") or engine.volumes.get(path.name) is not None:
            continue
        if not _settled(lambda: engine.volumes.get(path.name) is not None or not path.exists()):  # noqa: B023
            check.found("leftover", f"volumes/{path.name}", "is a directory of no volume: an engine's start removes it")


async def drop_originals(engine: Engine) -> int:
    """Compressed layers that are kept as they came are given up; returns the bytes."""
    return await in_thread(engine.layers.originals.drop_kept)
