"""Layers on their way from a registry into the store: one thread a layer, shared by all pulls that want it.

Must never let a layer be collected between its extraction and the last pull's record of it, nor go on for nobody.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack

import msgspec

from tare import faults
from tare.engine.engine import Engine
from tare.engine.registry_jobs import Job, Say, Step
from tare.errors import InvalidArgument
from tare.oci.image_spec import Descriptor
from tare.registry.downloads import Download
from tare.registry.known import Place
from tare.registry.records import Cancelled
from tare.registry.repository import Repository
from tare.registry.transport import Transport
from tare.registry.uploads import wait_s
from tare.storage.full_disk import naming_the_disk
from tare.values.digest import Digest, hex_of

PROGRESS_INTERVAL_S = 0.1
_ID_LENGTH = 12
_MOST_SOURCES = 4


class WantedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that a manifest lists and a config names."""

    descriptor: Descriptor
    diff_id: str

    @property
    def short_id(self) -> str:
        return hex_of(Digest(self.descriptor.digest))[:_ID_LENGTH]


Sources = Callable[[Transport], list[Repository]]
"""Makes the repositories to fetch from, on a transport."""


class LayerFetch:
    """One layer under way. `future` is done when the layer is in the store."""

    def __init__(self, engine: Engine, wanted: WantedLayer, sources: Sources) -> None:
        self.future: Future[None] = Future()
        self.wanted = wanted
        self.listeners: dict[object, Say] = {}
        self.last: Step | None = None
        self.recorded = False
        """Whether an image has the layer now."""
        self.worthless = False
        """Whether the pull was refused for good: nobody goes on with the blob."""
        self._engine = engine
        self._registries = engine.registries
        self._transport = Transport(engine.registries.settings)
        self._sources = sources(self._transport)
        self._stack = ExitStack()
        self._lease = self._stack.enter_context(engine.layers.lease(what="pull"))
        self._said = 0.0
        self._thread = threading.Thread(target=self._work, name=f"tare-layer-{wanted.short_id}", daemon=True)

    @property
    def cancelled(self) -> bool:
        return self._transport.cancelled

    def start(self) -> None:
        self._registries.began(self)
        self._thread.start()

    def cancel(self) -> None:
        self._transport.cancel()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def add(self, sources: Sources) -> None:
        """Who shares the fetch knows where else the layer is: one registry's slowness is not another's."""
        known = {(source.endpoint, source.path) for source in self._sources}
        more = [one for one in sources(self._transport) if (one.endpoint, one.path) not in known]
        self._sources.extend(more[:_MOST_SOURCES])

    def release(self) -> None:
        """Nobody needs the layer held any more. Threads end here whose pull has failed: what they made goes."""
        self._stack.close()
        if self.worthless:
            self._registries.partials.drop(self.wanted.descriptor.digest)
        if not self.recorded:
            self._engine.layers.collect()
            self._engine.layers.empty_trash()

    def _work(self) -> None:
        try:
            with naming_the_disk(self._registries.partials.root):
                self._fetch()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(None)
        finally:
            self._transport.close()
            self._registries.ended(self)

    def _fetch(self) -> None:
        layer = self.wanted.descriptor
        with self._registries.partials.opened(layer.digest) as fd:
            registry = self._sources[0].endpoint.domain
            with self._registries.downloads.taken(self._is_cancelled, lambda: self._tell("Waiting"), of=registry):
                download = Download(layer.digest, layer.size, self._sources)
                download.fill(fd, self._progress("Downloading"), self._wait_retry, self._attempts)
                self._tell("Verifying Checksum")
                download.check(fd)
                self._tell("Download complete")
            with self._registries.extractions.taken(self._is_cancelled):
                os.lseek(fd, 0, os.SEEK_SET)
                self._extract(_File(fd, self._progress("Extracting"), self._is_cancelled))
        faults.point("pull.layer.extracted")  # the blob's file stays until the image is recorded: what fails goes on
        source = self._sources[0]
        self._registries.known.saw_blob(
            Place(
                diff_id=self.wanted.diff_id,
                digest=layer.digest,
                size_bytes=layer.size,
                media_type=layer.media_type,
                domain=source.endpoint.domain,
                path=source.path,
            )
        )
        self._tell("Pull complete")

    def _extract(self, file: _File) -> None:
        layer = self._engine.layers.add_blob(file, lease=self._lease).layer
        if layer.diff_id != self.wanted.diff_id:
            raise InvalidArgument(
                f'wrong diff id calculated on extraction "{layer.diff_id}" of layer {self.wanted.descriptor.digest}'
            )

    @property
    def _attempts(self) -> int:
        return self._registries.settings.max_attempts

    def _is_cancelled(self) -> bool:
        return self.cancelled

    def _wait_retry(self, seconds: int) -> None:
        for left in range(seconds, 0, -1):
            self._tell(f"Retrying in {left} second{'s' if left > 1 else ''}")
            if not wait_s(1, self._is_cancelled):
                raise Cancelled("cancelled")

    def _progress(self, status: str) -> Callable[[int], None]:
        total = self.wanted.descriptor.size

        def progress(current: int) -> None:
            now = time.monotonic()
            if current and (current == total or now - self._said >= PROGRESS_INTERVAL_S):
                self._said = now
                self._tell(status, current, total)

        return progress

    def _tell(self, status: str, current: int = 0, total: int = 0) -> None:
        step = Step(status=status, id=self.wanted.short_id, layer=True, current=current, total=total)
        self.last = step
        for say in list(self.listeners.values()):
            say(step)


class _File:
    """A checked blob as a stream for the extraction."""

    def __init__(self, fd: int, progress: Callable[[int], None], cancelled: Callable[[], bool]) -> None:
        self._fd = fd
        self._progress = progress
        self._cancelled = cancelled
        self._done = 0

    def read(self, size: int, /) -> bytes:
        if self._cancelled():
            raise Cancelled("cancelled")
        data = os.read(self._fd, size)
        if data:
            self._done += len(data)
            self._progress(self._done)
        return data


class LayerFetches:
    """All layers under way in an engine, by the blob's digest: one at a time writes a blob's file."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._fetches: dict[str, LayerFetch] = {}

    def join(self, job: Job[None], who: object, wanted: WantedLayer, sources: Sources) -> LayerFetch:
        """Takes part in a layer's fetch, begun if need be. `leave` must follow once the layer is held otherwise.

        Waits for one that was called off, or that wants the blob to be something else. Raises Cancelled.
        """
        while True:
            with self._lock:
                fetch = self._fetches.get(wanted.descriptor.digest)
                if fetch is None or fetch.future.done():
                    fetch = self._fetches[wanted.descriptor.digest] = LayerFetch(self._engine, wanted, sources)
                    fetch.listeners[who] = job.say
                    fetch.start()
                    return fetch
                if not fetch.cancelled and fetch.wanted == wanted:
                    fetch.listeners[who] = job.say
                    fetch.add(sources)
                    if fetch.last is not None:
                        job.say(fetch.last)
                    return fetch
            wait([fetch.future, job.gone], return_when=FIRST_COMPLETED)
            job.check()

    def leave(self, who: object, fetch: LayerFetch) -> None:
        """Ends a part; with the last one's the fetch is called off, and its layer no longer held."""
        digest = fetch.wanted.descriptor.digest
        with self._lock:
            fetch.listeners.pop(who, None)
            if fetch.listeners:
                return
            if self._fetches.get(digest) is fetch and fetch.future.done():
                del self._fetches[digest]
            fetch.cancel()
        fetch.future.add_done_callback(lambda _: fetch.release())

    def forget(self, wanted: WantedLayer) -> None:
        """Deletes what is kept of a blob, unless it is under way."""
        digest = wanted.descriptor.digest
        with self._lock:
            fetch = self._fetches.get(digest)
            if fetch is None or fetch.future.done():
                self._engine.registries.partials.drop(digest)
