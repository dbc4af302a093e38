"""The container list, and its filters."""

from __future__ import annotations

from collections.abc import Callable

from tare.engine.check import parse_port
from tare.engine.engine import Engine, in_thread
from tare.engine.image_verbs import resolve_image
from tare.engine.records import Container, ContainerSummary
from tare.errors import InvalidArgument, NotFound, TareError
from tare.values.filters import Filters, check_filters, flag, match_labels
from tare.values.pattern import matcher

ACCEPTED_FILTERS = frozenset(
    "ancestor before exited expose health id is-task isolation label name network publish since status volume".split()
)
STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
HEALTHS = ("none", "starting", "healthy", "unhealthy")


async def list_containers(
    engine: Engine,
    *,
    all: bool,
    limit: int | None,
    size: bool,
    filters: Filters,
    cut: Callable[[list[Container]], list[Container]] = list,
) -> list[ContainerSummary]:
    """Containers, newest first. all: also those that don't run; limit: at most so many (which implies all).

    cut: takes a page of them out, before their sizes are asked for.

    Raises InvalidArgument for a wrong filter, with Docker's texts.
    """
    check_filters(filters, ACCEPTED_FILTERS)
    for status in filters.get("status", ()):
        if status not in STATUSES:
            raise InvalidArgument(f"invalid filter 'status={status}'")
    for health in filters.get("health", ()):
        if health not in HEALTHS:
            raise InvalidArgument(f"unrecognized filter value for health: {health}")
    everything = all or bool(limit) or any(name in filters for name in ("status", "exited", "before", "since"))
    chooser = _Chooser(engine, filters)
    found = []
    for container in sorted(engine.containers, key=lambda container: container.created_ns, reverse=True):
        if (everything or container.state.running) and chooser.accepts(container):
            found.append(container)
            if limit and len(found) >= limit:
                break
    return [await _summary(engine, container, size) for container in cut(found)]


async def _summary(engine: Engine, container: Container, size: bool) -> ContainerSummary:
    size_rw = size_root = None
    if size:
        size_rw, size_root = await in_thread(engine.snapshots.sizes, container.id)
    return ContainerSummary(
        container=container, image_name=_image_name(engine, container), size_rw_bytes=size_rw, size_root_bytes=size_root
    )


def _image_name(engine: Engine, container: Container) -> str:
    """What the user called the image, or its id if that name means another image now."""
    try:
        if resolve_image(engine, container.config.image).id == container.image_id:
            return container.config.image
    except TareError:
        pass
    return container.image_id


class _Chooser:
    """The filters of one list call."""

    def __init__(self, engine: Engine, filters: Filters) -> None:
        self._filters = filters
        self._health = filters.get("health", ())
        self._before = self._instant(engine, "before")
        self._since = self._instant(engine, "since")
        self._exited = self._codes()
        self._ancestors = self._images(engine)
        self._public, self._exposed = (
            [_port_range(text) for text in filters.get(name, ())] for name in ("publish", "expose")
        )
        self._by_name = matcher(filters.get("name", ()))
        flag(filters, "is-task", False)

    def _instant(self, engine: Engine, name: str) -> int | None:
        refs = self._filters.get(name, ())
        return engine.containers.find(refs[-1]).created_ns if refs else None

    def _codes(self) -> set[int]:
        try:
            return {int(code) for code in self._filters.get("exited", ())}
        except ValueError as error:
            raise InvalidArgument(f"invalid filter 'exited={self._filters['exited'][0]}'") from error

    def _images(self, engine: Engine) -> set[str] | None:
        if "ancestor" not in self._filters:
            return None
        found = set()
        for name in self._filters["ancestor"]:
            try:
                found.add(resolve_image(engine, name).id)
            except (NotFound, InvalidArgument):
                pass
        return found

    def accepts(self, container: Container) -> bool:
        """Whether a container passes all filters."""
        filters, state = self._filters, container.state
        return (
            (self._before is None or container.created_ns < self._before)
            and (self._since is None or container.created_ns > self._since)
            and ("status" not in filters or state.status in filters["status"])
            and (not self._exited or (state.status == "exited" and state.exit_code in self._exited))
            and (self._ancestors is None or container.image_id in self._ancestors)
            and ("id" not in filters or container.id.startswith(tuple(filters["id"])))
            and ("name" not in filters or self._by_name(f"/{container.name}") or self._by_name(container.name))
            and match_labels(filters, container.config.labels or {})
            and ("network" not in filters or self._in_network(container))
            and ("volume" not in filters or self._has_mount(container))
            and ("is-task" not in filters or not flag(filters, "is-task", False))
            and ("health" not in filters or _health(container) in self._health)
            and self._has_port(container)
        )

    def _in_network(self, container: Container) -> bool:
        return any(
            wanted == endpoint.network or (wanted and endpoint.network_id.startswith(wanted))
            for endpoint in container.endpoints
            for wanted in self._filters["network"]
        )

    def _has_mount(self, container: Container) -> bool:
        wanted = self._filters["volume"]
        return any(mount.destination in wanted or (mount.name or mount.source) in wanted for mount in container.mounts)

    def _has_port(self, container: Container) -> bool:
        if self._public:
            ports = [port for endpoint in container.endpoints for port in endpoint.ports if container.state.running]
            if not _any_within(self._public, [(port.host_port, port.protocol) for port in ports]):
                return False
        if self._exposed:
            names = (*(container.host.port_bindings or {}), *(container.config.exposed_ports or {}))
            return _any_within(self._exposed, [parse_port(name) for name in names])
        return True


def _port_range(text: str) -> tuple[int, int, str]:
    """(first, last, protocol) of what the filters of ports take: `80`, `80/udp`, `80-90/tcp`."""
    ports, _, protocol = text.partition("/")
    first, _, last = ports.partition("-")
    low, protocol = parse_port(f"{first}/{protocol}")
    high, _ = parse_port(last or first)
    if high < low:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return low, high, protocol


def _any_within(ranges: list[tuple[int, int, str]], ports: list[tuple[int, str]]) -> bool:
    return any(low <= port <= high and protocol == of for low, high, of in ranges for port, protocol in ports)


def _health(container: Container) -> str:
    return container.state.health.status if container.state.health else "none"
