"""What an engine keeps of registries: settings, blobs under way, what is known of places, how much goes on at once.

<root>/partial/     blobs that are coming in (downloads.py)
<root>/outgoing/    layers that are compressed to be sent; emptied when the engine starts
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tare.registry.known import Known
from tare.registry.partials import Partials
from tare.registry.records import Cancelled, RegistrySettings
from tare.storage.database import Database
from tare.storage.durable import make_private_directory

_EXTRACTIONS = 2
_STOP_S = 5.0


class Work(Protocol):
    """Something that runs in a thread of its own, and can be ended."""

    def cancel(self) -> None: ...

    def join(self, timeout_s: float) -> None: ...


class Slots:
    """How many may do something at once, of each kind; who waits can be called off."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken: Counter[str] = Counter()
        self._given_back = threading.Condition()

    @contextmanager
    def taken(
        self, cancelled: Callable[[], bool], waiting: Callable[[], None] = lambda: None, *, of: str = ""
    ) -> Iterator[None]:
        """One of a kind's slots. waiting is called if none is free. Raises Cancelled."""
        if not self._take(of):
            waiting()
            while not self._take(of, timeout_s=0.1):
                if cancelled():
                    raise Cancelled("cancelled")
        try:
            yield
        finally:
            with self._given_back:
                self._taken[of] -= 1
                if not self._taken[of]:
                    del self._taken[of]
                self._given_back.notify_all()

    def _take(self, of: str, timeout_s: float = 0) -> bool:
        with self._given_back:
            if not self._given_back.wait_for(lambda: self._taken[of] < self._count, timeout_s):
                return False
            self._taken[of] += 1
            return True


class Registries:
    """One per engine."""

    def __init__(self, root: Path, database: Database, settings: RegistrySettings) -> None:
        self.settings = settings
        self.known = Known(database)
        make_private_directory(root)
        self.partials = Partials(root / "partial")
        self._outgoing = root / "outgoing"
        make_private_directory(self._outgoing)
        for entry in os.scandir(self._outgoing):
            os.unlink(entry.path)
        self.downloads = Slots(settings.max_downloads)
        """Of each registry: one that lets us wait holds up nobody who asks another."""
        self.extractions = Slots(_EXTRACTIONS)
        self._lock = threading.Lock()
        self._works: set[Work] = set()

    @contextmanager
    def outgoing_file(self) -> Iterator[int]:
        """An empty file without a name, for a layer on its way out."""
        fd = os.open(self._outgoing, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def began(self, work: Work) -> None:
        with self._lock:
            self._works.add(work)

    def ended(self, work: Work) -> None:
        with self._lock:
            self._works.discard(work)

    def close(self) -> None:
        """Ends all that is under way and waits a little for it: afterwards the database may close."""
        with self._lock:
            works = list(self._works)
        for work in works:
            work.cancel()
        for work in works:
            work.join(_STOP_S)
