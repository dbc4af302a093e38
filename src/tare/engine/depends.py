"""Boot order: a container waits for others before it starts (`depends_on`, Tare's own). It never stops a container.

A dependency is `NAME[:CONDITION]`: started (it runs), healthy (its health check says so), completed (it ended with 0).
Names are looked up at each start, so that a dependency may be removed and made anew under its name.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

import msgspec

from tare.engine import health_rules
from tare.engine.engine import Engine
from tare.engine.records import Container
from tare.errors import Conflict, InvalidArgument, NotFound, NotModified

Starter = Callable[[Engine, str], Awaitable[None]]
CONDITIONS = ("started", "healthy", "completed")


class Dependency(msgspec.Struct, frozen=True):
    """Another container, and what must be true of it."""

    ref: str
    condition: str = "started"


def parse_dependency(text: str) -> Dependency:
    """`NAME[:CONDITION]`. Raises InvalidArgument."""
    ref, separator, condition = text.partition(":")
    if not ref:
        raise InvalidArgument(f"invalid dependency {text!r}: no container's name")
    if separator and condition not in CONDITIONS:
        raise InvalidArgument(f"invalid dependency {text!r}: the condition is one of {', '.join(CONDITIONS)}")
    return Dependency(ref, condition or "started")


def dependencies(container: Container) -> tuple[Dependency, ...]:
    """What a container waits for."""
    return tuple(parse_dependency(text) for text in container.host.depends_on or ())


def check_dependencies(engine: Engine, texts: Iterable[str], name: str | None) -> None:
    """Raises InvalidArgument for what can never be met (a circle, no health check), NotFound for who isn't there.

    name: what the container that is being made will be called; None if nothing can wait for it yet.
    """
    for text in texts:
        wanted = parse_dependency(text)
        if wanted.ref == name:
            raise InvalidArgument(f"dependency circle: {name} → {name}")
        other = engine.containers.find(wanted.ref)
        if wanted.condition == "healthy" and not health_rules.command(other):
            raise InvalidArgument(f"container {other.name} has no health check, so that it never becomes healthy")
        if name is not None:
            _refuse_circle(engine, other, [name])


def _refuse_circle(engine: Engine, container: Container, path: list[str]) -> None:
    path = [*path, container.name]
    for wanted in dependencies(container):
        if wanted.ref == path[0]:
            raise InvalidArgument(f"dependency circle: {' → '.join([*path, path[0]])}")
        other = _known(engine, wanted.ref)
        if other is not None and other.name not in path:
            _refuse_circle(engine, other, path)


def _known(engine: Engine, ref: str) -> Container | None:
    try:
        return engine.containers.find(ref)
    except (NotFound, InvalidArgument):
        return None


async def wait_dependencies(engine: Engine, container: Container, start: Starter) -> None:
    """Starts what a container depends on where it doesn't run, and waits until all conditions are met.

    start: the verb (it calls this function, so that it can't be imported here).

    Raises Conflict when one can't be met any more, NotFound if a dependency was removed, and what its start raises.
    """
    wanted = dependencies(container)
    if not wanted:
        return
    _refuse_circle(engine, container, [])
    for dependency in wanted:
        other = engine.containers.find(dependency.ref)
        await _start(engine, other, dependency.condition, start)
        await _wait_met(engine, container, other.id, dependency)


async def _start(engine: Engine, other: Container, condition: str, start: Starter) -> None:
    """Starts a dependency, unless it runs, is about to, or has done its work."""
    state = other.state
    done = condition == "completed" and state.status == "exited" and state.exit_code == 0
    if state.running or done:
        return
    try:
        await start(engine, other.id)
    except NotModified:
        pass  # somebody else has just started it


async def _wait_met(engine: Engine, container: Container, other_id: str, dependency: Dependency) -> None:
    """Looks again after each event of any container; there is no await between a look and the next wait."""
    events = engine.events.follow(since_ns=None, until_ns=None, filters={"type": ("container",)})
    async with _closing(events):
        while not _is_met(engine, other_id, dependency):
            if engine.containers.get(container.id) is None:
                raise NotFound(f"No such container: {container.id}")
            await anext(events)


@contextlib.asynccontextmanager
async def _closing(events: AsyncIterator[object]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        aclose = getattr(events, "aclose", None)
        if aclose is not None:
            await aclose()


def _is_met(engine: Engine, other_id: str, dependency: Dependency) -> bool:
    """Raises Conflict if it can't come true by waiting, NotFound if the dependency is gone."""
    other = engine.containers.get(other_id)
    if other is None:
        raise NotFound(f"dependency {dependency.ref} was removed")
    state, name = other.state, other.name
    if dependency.condition == "completed":
        if state.status not in ("exited", "dead", "created"):
            return False
        if state.exit_code or state.status != "exited":
            raise Conflict(f"dependency {name} did not complete: it ended with exit code {state.exit_code}")
        return True
    if state.status == "restarting":
        return False
    if not state.running:
        raise Conflict(f"dependency {name} is not running: it ended with exit code {state.exit_code}")
    if dependency.condition == "started":
        return True
    if state.health is None:
        raise Conflict(f"dependency {name} has no health check, so that it never becomes healthy")
    if state.health.status == "unhealthy":
        raise Conflict(f"dependency {name} is unhealthy")
    return state.health.status == "healthy"


def stop_order(engine: Engine, running: Iterable[Container]) -> list[list[Container]]:
    """Groups of containers in the order in which they stop: those that depend on others before these."""
    left = {container.id: container for container in running}
    needed = {id_: _needs(engine, container, left) for id_, container in left.items()}
    groups: list[list[Container]] = []
    while left:
        still_needed = {other for id_ in left for other in needed[id_]}
        free = [container for id_, container in left.items() if id_ not in still_needed]
        group = free or list(left.values())  # a circle, by renaming: all at once
        groups.append(group)
        for container in group:
            del left[container.id]
    return groups


def _needs(engine: Engine, container: Container, running: Mapping[str, Container]) -> set[str]:
    found = (_known(engine, dependency.ref) for dependency in dependencies(container))
    return {other.id for other in found if other is not None and other.id in running and other.id != container.id}
