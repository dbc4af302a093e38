"""Layers on their way from a registry into the store: one thread a layer, shared by all pulls that want it.

Must never let a layer be collected between its extraction and the last pull's record of it, nor go on for nobody.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack

import msgspec

from tare import faults
from tare.engine.engine import Engine
from tare.engine.registry_jobs import Say, Step
from tare.errors import InvalidArgument
from tare.oci.image_spec import Descriptor
from tare.registry.downloads import Download
from tare.registry.known import Place
from tare.registry.records import Cancelled
from tare.registry.repository import Repository
from tare.registry.transport import Transport
from tare.registry.uploads import wait_s
from tare.values.digest import Digest, hex_of

PROGRESS_INTERVAL_S = 0.1
_ID_LENGTH = 12


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

    def release(self) -> None:
        """Nobody needs the layer held any more."""
        self._stack.close()

    def _work(self) -> None:
        try:
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
            with self._registries.downloads.taken(self._is_cancelled, lambda: self._tell("Waiting")):
                download = Download(self._registries.partials, layer.digest, layer.size, self._sources)
                download.fill(fd, self._progress("Downloading"), self._wait_retry, self._attempts)
                self._tell("Verifying Checksum")
                download.check(fd)
                self._tell("Download complete")
            with self._registries.extractions.taken(self._is_cancelled):
                os.lseek(fd, 0, os.SEEK_SET)
                self._extract(_File(fd, self._progress("Extracting"), self._is_cancelled))
        faults.point("pull.layer.extracted")
        self._registries.partials.drop(layer.digest)
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
            self._registries.partials.drop(self.wanted.descriptor.digest)
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
    """All layers under way in an engine, by the blob's digest and what it should become."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._fetches: dict[tuple[str, int, str], LayerFetch] = {}

    def join(self, who: object, wanted: WantedLayer, sources: Sources, say: Say) -> LayerFetch:
        """Takes part in a layer's fetch, begun if need be. `leave` must follow once the layer is held otherwise."""
        key = self._key(wanted)
        with self._lock:
            fetch = self._fetches.get(key)
            if fetch is None or fetch.cancelled or fetch.future.done():
                if fetch is not None and not fetch.future.done():
                    # The one that was called off still has the file: this one comes after it.
                    fetch.join(60)
                fetch = self._fetches[key] = LayerFetch(self._engine, wanted, sources)
                fetch.listeners[who] = say
                fetch.start()
            else:
                fetch.listeners[who] = say
                if fetch.last is not None:
                    say(fetch.last)
        return fetch

    def leave(self, who: object, fetch: LayerFetch) -> None:
        """Ends a part; with the last one's the fetch is called off, and its layer no longer held."""
        with self._lock:
            fetch.listeners.pop(who, None)
            if fetch.listeners:
                return
            if self._fetches.get(self._key(fetch.wanted)) is fetch and fetch.future.done():
                del self._fetches[self._key(fetch.wanted)]
            fetch.cancel()
        fetch.future.add_done_callback(lambda _: fetch.release())

    @staticmethod
    def _key(wanted: WantedLayer) -> tuple[str, int, str]:
        return wanted.descriptor.digest, wanted.descriptor.size, wanted.diff_id
