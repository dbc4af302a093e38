"""commit: a container's changes become an image."""

from __future__ import annotations

import msgspec

from tare.engine.engine import Engine, in_thread
from tare.engine.options import CommitOptions, ContainerConfig
from tare.engine.pause import freeze_quietly, thaw_quietly
from tare.engine.records import Container
from tare.engine.sweep import empty_trash_soon
from tare.errors import Conflict
from tare.images import commit as image_commit
from tare.images.records import Image
from tare.oci.image_spec import Healthcheck, ImageConfig, Origin
from tare.values.reference import Reference, parse_reference


async def commit_container(engine: Engine, ref: str, options: CommitOptions) -> str:
    """Makes an image of a container's changes, paused meanwhile if asked for; returns the image's id.

    Raises NotFound, Conflict (being removed), InvalidArgument (a name, a change), with Docker's texts.
    """
    container = engine.containers.find(ref)
    if container.state.status in ("removing", "dead"):
        raise Conflict(f"You cannot commit container {container.id} which is {container.state.status}")
    reference = image_reference(options.repository, options.tag)
    wanted = image_commit.CommitOptions(
        config=image_config(_overridden(container.config, options.config)),
        changes=options.changes,
        author=options.author,
        comment=options.comment,
        created_by=" ".join((container.path, *container.args)),
        container_id=container.id,
        origin=Origin(hostname=container.config.hostname, image=container.config.image),
        reference=reference,
        previous_id=container.head_id or None,
    )
    committing = _commit(engine, container, wanted, pause=options.pause)
    image = await engine.uninterrupted(committing, f"commit {container.id[:12]}")
    engine.events.publish("image", "create", image.id, {**image.config.labels, "name": image.id})
    empty_trash_soon(engine)  # packs what this version has newer
    name = reference.with_default_tag().familiar if reference else ""
    if name:
        engine.events.publish("image", "tag", image.id, {**image.config.labels, "name": name})
    engine.events.container(container, "commit", comment=options.comment, imageID=image.id, imageRef=name)
    return image.id


async def _commit(engine: Engine, container: Container, wanted: image_commit.CommitOptions, *, pause: bool) -> Image:
    async with engine.lock(container.id):
        paused = freeze_quietly(engine, container) if pause else False
        try:
            parent = engine.images.find(container.image_id)
            image = await in_thread(
                image_commit.commit_snapshot, engine.images, engine.snapshots, container.id, parent, wanted
            )
            container = engine.containers.find(container.id)
            engine.containers.save(msgspec.structs.replace(container, head_id=image.id))
            return image
        finally:
            if paused:
                thaw_quietly(engine, container)


def image_reference(repository: str, tag: str) -> Reference | None:
    """The name of a new image, or None if it gets none. Raises InvalidArgument with Docker's text."""
    if not repository:
        return None
    reference = parse_reference(repository)
    if tag:
        reference = parse_reference(f"{reference.domain}/{reference.path}:{tag}")
    return reference.with_default_tag()


def _overridden(config: ContainerConfig, request: ContainerConfig | None) -> ContainerConfig:
    """The container's settings, with those that the request gives in their place (as Docker's merge does)."""
    if request is None:
        return config
    given = {
        name: value
        for name in (
            "cmd",
            "entrypoint",
            "env",
            "exposed_ports",
            "labels",
            "on_build",
            "stop_signal",
            "user",
            "volumes",
            "working_dir",
            "healthcheck",
            "shell",
        )
        if (value := getattr(request, name))
    }
    if "labels" in given:
        given["labels"] = {**(config.labels or {}), **(request.labels or {})}
    if "env" in given:
        names = {variable.partition("=")[0] for variable in request.env or ()}
        kept = [variable for variable in config.env or () if variable.partition("=")[0] not in names]
        given["env"] = (*(request.env or ()), *kept)
    return msgspec.structs.replace(config, **given)


def image_config(config: ContainerConfig) -> ImageConfig:
    """The portable part of a container's settings as an image's."""
    check = config.healthcheck
    return ImageConfig(
        user=config.user,
        exposed_ports=dict(config.exposed_ports or {}),
        env=list(config.env or ()),
        entrypoint=list(config.entrypoint) if config.entrypoint else None,
        cmd=list(config.cmd) if config.cmd else None,
        volumes=dict(config.volumes or {}),
        working_dir=config.working_dir,
        labels=dict(config.labels or {}),
        stop_signal=config.stop_signal,
        healthcheck=None
        if check is None
        else Healthcheck(
            test=list(check.test or ()),
            interval=check.interval,
            timeout=check.timeout,
            retries=check.retries,
            start_period=check.start_period,
        ),
        on_build=list(config.on_build or ()),
        shell=list(config.shell or ()),
    )
