"""rename."""

from __future__ import annotations

import msgspec

from tare.engine import links
from tare.engine.engine import Engine
from tare.errors import Conflict, InvalidArgument
from tare.values.names import check_container_name


async def rename_container(engine: Engine, ref: str, new_name: str) -> None:
    """Gives a container another name. Raises NotFound, InvalidArgument, Conflict with Docker's texts."""
    container = engine.containers.find(ref)
    if not new_name:
        raise InvalidArgument("Neither old nor new names may be empty")
    try:
        name = check_container_name(new_name)
        if name != container.name:
            engine.containers.check_name_free(name)
    except (InvalidArgument, Conflict) as error:
        raise type(error)(f"Error when allocating new name: {error}") from error
    if name == container.name:
        raise InvalidArgument("Renaming a container with the same name as its current name")
    if container.state.status in ("removing", "dead"):
        raise Conflict("container is marked for removal and cannot be renamed")
    old = container.name
    container = engine.containers.save(msgspec.structs.replace(container, name=name), durable=True)
    links.rename(engine, container, old)
    if container.endpoint is not None and container.endpoint.endpoint_id:
        engine.network.rename(container.id, old, name)
    engine.events.container(container, "rename", oldName=f"/{old}")
