"""What happened: a short memory of events and the streams that follow them. Lives on the event loop's thread."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator

from tare.engine.records import Container, Event
from tare.values.filters import Filters, check_filters, match_labels
from tare.values.timestamps import now_ns

REMEMBERED = 1024
MAX_UNREAD = 8192
log = logging.getLogger("tare.engine")

ACCEPTED_FILTERS = frozenset(
    "config container daemon event image label network node plugin scope secret service type volume".split()
)


class Events:
    """The engine's events: publish, remember, follow."""

    def __init__(self) -> None:
        self._past: deque[Event] = deque(maxlen=REMEMBERED)
        self._followers: set[asyncio.Queue[Event]] = set()

    @property
    def followers(self) -> int:
        """How many streams follow."""
        return len(self._followers)

    def publish(self, type_: str, action: str, actor_id: str, attributes: dict[str, str] | None = None) -> None:
        """Records an event and hands it to all who follow."""
        event = Event(type=type_, action=action, actor_id=actor_id, attributes=dict(attributes or {}), time_ns=now_ns())
        self._past.append(event)
        for queue in tuple(self._followers):
            if queue.qsize() >= MAX_UNREAD:
                self._followers.discard(queue)
                log.warning("a client that follows events has %d unread ones: its stream ends there", MAX_UNREAD)
            else:
                queue.put_nowait(event)

    def container(self, container: Container, action: str, **extra: str) -> None:
        """Publishes an event of a container, with its image, name and labels as attributes."""
        attributes = dict(container.config.labels or {})
        attributes |= {"image": container.config.image, "name": container.name, **extra}
        self.publish("container", action, container.id, attributes)

    async def follow(self, *, since_ns: int | None, until_ns: int | None, filters: Filters) -> AsyncIterator[Event]:
        """Past events from since_ns on (none if None), then new ones until until_ns (for ever if None).

        It ends early, rather than with a gap, for who leaves MAX_UNREAD unread.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue()
        if since_ns is not None or (until_ns is not None and until_ns <= now_ns()):
            for event in self._past:
                if (since_ns is None or event.time_ns >= since_ns) and (until_ns is None or event.time_ns <= until_ns):
                    queue.put_nowait(event)
        self._followers.add(queue)
        try:
            while True:
                try:
                    event = queue.get_nowait()
                except asyncio.QueueEmpty:
                    if queue not in self._followers:
                        return
                    left = None if until_ns is None else (until_ns - now_ns()) / 1e9
                    if left is not None and left <= 0:
                        return
                    try:
                        event = await asyncio.wait_for(queue.get(), left)
                    except TimeoutError:
                        return
                if matches(event, filters):
                    yield event
        finally:
            self._followers.discard(queue)


def check_event_filters(filters: Filters) -> None:
    """Raises InvalidArgument if a filter's name isn't one of Docker's."""
    check_filters(filters, ACCEPTED_FILTERS)


def matches(event: Event, filters: Filters) -> bool:
    """Whether an event passes the filters: every filter's name must match, by any of its values."""
    for name, wanted in filters.items():
        if name == "label":
            if not match_labels(filters, event.attributes):
                return False
        elif not any(_matches_one(event, name, value) for value in wanted):
            return False
    return True


def _matches_one(event: Event, name: str, value: str) -> bool:
    if name == "type":
        return event.type == value
    if name == "event":
        return event.action == value or event.action.partition(":")[0] == value
    if name == "scope":
        return event.scope == value
    if name == "image":
        subject = event.actor_id if event.type == "image" else event.attributes.get("image", "")
        return value in (subject, subject.partition(":")[0], event.attributes.get("name"))
    return event.type == name and (
        event.actor_id == value or event.attributes.get("name") == value or event.actor_id.startswith(value)
    )
