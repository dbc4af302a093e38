"""Images' files in containers, read-only: `--mount type=image`. A snapshot of the image for each holds its layers.

The snapshot is named for the container and the place: <container id>.<digest of the place>. It stays as long as the
container has the mount, in the trash, too, so that the files are there whatever becomes of the image and its name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

import msgspec

from tare import faults
from tare.engine.engine import Engine
from tare.engine.records import Container, MountPoint
from tare.errors import Internal, InvalidArgument
from tare.images.resolve import resolve
from tare.storage import inside


def snapshot_id(container_id: str, destination: str) -> str:
    """The name of the snapshot behind a mount."""
    return f"{container_id}.{hashlib.sha256(os.fsencode(destination)).hexdigest()[:16]}"


def snapshot_ids(container: Container) -> list[str]:
    """Those of all its mounts of images."""
    return [snapshot_id(container.id, point.destination) for point in container.mounts if point.type == "image"]


def is_owned(engine: Engine, name: str) -> bool:
    """Whether a snapshot is a container's own root, or behind a mount that one has; also of one in the trash."""
    container_id, dot, _ = name.partition(".")
    container = engine.containers.get(container_id)
    if container is None:
        entry = engine.trash.get(container_id)
        container = entry.record if entry is not None and isinstance(entry.record, Container) else None
    return container is not None and (not dot or name in snapshot_ids(container))


def prepare(engine: Engine, container_id: str, point: MountPoint) -> MountPoint:
    """Finds the image and holds it; returns the mount with it. For a thread.

    Raises NotFound (the image), InvalidArgument (nothing is at the subpath), Internal (the image is damaged).
    """
    if not point.image_id:
        image = resolve(engine.images, point.name)
        if image.damaged:
            raise Internal(f"image {point.name} is damaged ({image.damaged}): load or pull it again")
        point = msgspec.structs.replace(point, image_id=image.id, source=image.id, layers=tuple(image.diff_ids))
    name = snapshot_id(container_id, point.destination)
    if not engine.snapshots.exists(name):
        engine.snapshots.prepare(name, point.layers)
    try:
        faults.point("engine.images.held")
        _check_there(engine, point)
    except BaseException:
        engine.snapshots.remove(name)
        raise
    return point


def _check_there(engine: Engine, point: MountPoint) -> None:
    if not point.subpath:
        return
    with engine.snapshots.stack_of(point.layers) as stack:
        if inside.resolve(stack, os.fsencode(point.subpath)) is None:
            raise InvalidArgument(
                f'invalid mount config for type "image": image {point.name} has nothing at subpath {point.subpath}'
            )


def remove(engine: Engine, container_id: str, points: Iterable[MountPoint]) -> None:
    """Lets go of what mounts held."""
    for point in points:
        if point.type == "image":
            engine.snapshots.remove(snapshot_id(container_id, point.destination))


def layers(engine: Engine, container_id: str, points: Iterable[MountPoint]) -> dict[str, tuple[str, ...]]:
    """The layer directories behind each mount of an image, by its place, as the runtime wants them."""
    return {
        point.destination: engine.snapshots.view(snapshot_id(container_id, point.destination))
        for point in points
        if point.type == "image"
    }
