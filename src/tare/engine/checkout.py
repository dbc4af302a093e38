"""checkout: a container goes back to a version, or a new one forks from it. What it had changed is committed before.

The container keeps its settings, volumes, name and log; its file system becomes the version's.

    lock → stop, if forced → commit what was changed → record and snapshot point to the version (one transaction)
         → empty upper directory → start, if it ran
"""

from __future__ import annotations

import re
import time

import msgspec

from tare import faults
from tare.engine import commit, create, launch, stop
from tare.engine.engine import Engine, in_thread
from tare.engine.image_verbs import resolve_image
from tare.engine.options import CommitOptions, NetworkingOptions
from tare.engine.records import Container
from tare.errors import Conflict
from tare.images import commit as image_commit
from tare.images.records import Image
from tare.oci.image_spec import Origin
from tare.values.ids import short_id
from tare.values.names import check_container_name
from tare.values.reference import Reference, parse_reference

SAVED_REPOSITORY = "tare-checkout"
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


class CheckedOut(msgspec.Struct, frozen=True, kw_only=True):
    """saved_id, saved_name: the commit of what the container had changed, "" if it had changed nothing."""

    container_id: str
    container_name: str
    image_id: str
    saved_id: str = ""
    saved_name: str = ""
    restarted: bool = False


async def checkout(engine: Engine, ref: str, version: str, *, force: bool = False) -> CheckedOut:
    """Takes a container back (or forth) to a version; force: one that runs is stopped and started again.

    Raises NotFound, InvalidArgument, Conflict.
    """
    container = engine.containers.find(ref)
    image = resolve_image(engine, version)
    work = _checkout(engine, container.id, image, version, force)
    return await engine.uninterrupted(work, f"check out {container.id[:12]}")


async def _checkout(engine: Engine, container_id: str, image: Image, version: str, force: bool) -> CheckedOut:
    async with engine.lock(container_id):
        container = engine.containers.find(container_id)
        if container.state.status in ("removing", "dead"):
            raise Conflict(f"container {container.id} is marked for removal and cannot be checked out")
        running = container.state.running
        if running:
            if not force:
                raise Conflict(
                    f'container "{container.name}" is {container.state.status}: stop it before checkout, or use force, '
                    "which stops it and starts it again at the version"
                )
            await stop.stop_now(engine, container, signal=None, timeout_s=None)
            container = engine.containers.find(container_id)
        with engine.layers.lease(image.diff_ids):  # the version may be removed meanwhile
            saved = await _save_changes(engine, container, f"before checkout of {version}")
            faults.point("engine.checkout.saved")
            container = _point_to(engine, container, image, version)
            faults.point("engine.checkout.recorded")
            await in_thread(engine.snapshots.finish_reset, container.id)
        engine.events.container(container, "checkout", imageID=image.id)
        if running:
            await launch.launch(engine, engine.containers.find(container_id))
    return CheckedOut(
        container_id=container.id,
        container_name=container.name,
        image_id=image.id,
        saved_id=saved.id if saved else "",
        saved_name=saved.repo_tags[0] if saved and saved.repo_tags else "",
        restarted=running,
    )


def _point_to(engine: Engine, container: Container, image: Image, version: str) -> Container:
    changed = msgspec.structs.replace(
        container,
        image_id=image.id,
        layers=tuple(image.diff_ids),
        head_id="",
        config=msgspec.structs.replace(container.config, image=version),
    )
    return engine.containers.save(
        changed,
        durable=True,
        along=lambda tx: engine.snapshots.begin_reset(tx, container.id, image.diff_ids),
    )


async def _save_changes(engine: Engine, container: Container, comment: str) -> Image | None:
    """Commits what a stopped container changed, under a name, so that no prune takes it away."""
    if not await in_thread(engine.snapshots.changes, container.id):
        return None
    options = image_commit.CommitOptions(
        config=commit.image_config(container.config),
        comment=comment,
        created_by=" ".join((container.path, *container.args)),
        container_id=container.id,
        origin=Origin(hostname=container.config.hostname, image=container.config.image),
        reference=_free_reference(engine, container.name),
        previous_id=container.head_id or None,
    )
    parent = engine.images.find(container.image_id)
    return await in_thread(image_commit.commit_snapshot, engine.images, engine.snapshots, container.id, parent, options)


def _free_reference(engine: Engine, name: str) -> Reference:
    """tare-checkout/<name>:<moment>"""
    clean = _NOT_IN_NAMES.sub("-", name.lower()).strip("-") or "container"
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    reference = parse_reference(f"{SAVED_REPOSITORY}/{clean}:{moment}")
    number = 1
    while engine.images.referred(reference) is not None:
        number += 1
        reference = reference._replace(tag=f"{moment}-{number}")
    return reference


async def fork(engine: Engine, ref: str, version: str, name: str) -> CheckedOut:
    """A new container with the settings of an old one, at a version, or ("") at what the old one is now.

    The old one stays as it is. Raises NotFound, InvalidArgument, Conflict.
    """
    container = engine.containers.find(ref)
    engine.containers.check_name_free(check_container_name(name))
    saved_id = saved_name = ""
    if not version:
        reference = _free_reference(engine, container.name)
        options = CommitOptions(
            repository=reference.repository, tag=reference.tag or "", comment=f"before fork of {name}", pause=True
        )
        saved_id = await commit.commit_container(engine, container.id, options)
        saved_name = version = reference.familiar
    image = resolve_image(engine, version)
    config = msgspec.structs.replace(container.config, image=version)
    if config.hostname == short_id(container.id):
        config = msgspec.structs.replace(config, hostname="")
    made = await create.create_container(engine, name, config, container.host, NetworkingOptions(), None)
    return CheckedOut(
        container_id=made.id, container_name=name, image_id=image.id, saved_id=saved_id, saved_name=saved_name
    )
