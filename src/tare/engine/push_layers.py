"""Layers on their way to a registry, several at once: what is there stays, what a sister repository has is mounted.

Must never send anything but bytes whose digest was computed from them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from tare.engine.registry_jobs import Job, Step
from tare.errors import Internal, NotFound
from tare.oci.image_spec import LAYER_TYPE, Descriptor
from tare.registry.known import Place
from tare.registry.packing import Packed, copy, pack
from tare.registry.records import Cancelled
from tare.registry.repository import Repository
from tare.registry.uploads import Upload, mount_blob, wait_s
from tare.storage.layers import Lease
from tare.values.digest import Digest, digest_bytes, hex_of

PROGRESS_INTERVAL_S = 0.1
_ID_LENGTH = 12
_MOST_MOUNTS = 4
_MOST_KNOWN = 4
# Compressions that the image specification has a media type for (layer.md).
_COMPRESSED = {"gzip": f"{LAYER_TYPE}+gzip", "zstd": f"{LAYER_TYPE}+zstd"}


class OutgoingLayer(msgspec.Struct, frozen=True, kw_only=True):
    """fixed: as which blob it must go out, where the manifest is given."""

    diff_id: str
    fixed: Descriptor | None = None

    @property
    def short_id(self) -> str:
        return hex_of(Digest(self.diff_id))[:_ID_LENGTH]


class LayerPushes:
    """The layers of one image, to one repository. lease: holds them, and originals that are looked at."""

    def __init__(self, job: Job[None], repository: Repository, lease: Lease) -> None:
        self._job = job
        self._engine = job.engine
        self._registries = job.engine.registries
        self._repository = repository
        self._lease = lease
        self._mounts: dict[str, str] = {}
        """Blobs that this push has taken over from another repository, and from which."""

    def can_have(self, descriptor: Descriptor, diff_id: str) -> bool:
        """Whether a blob can be given out, or is where it should go."""
        if descriptor.digest == diff_id or self._engine.layers.hold_original(descriptor.digest, self._lease):
            return True
        return self._repository.has_blob(descriptor.digest) or self._mounted(diff_id, descriptor.digest) is not None

    def send(self, layers: list[OutgoingLayer]) -> list[Descriptor]:
        """Sends them all; returns what each is in the registry. Raises the first failure."""
        distinct = list({layer.diff_id: layer for layer in layers}.values())
        for layer in distinct:
            self._say(layer, "Preparing")
        workers = self._registries.settings.max_uploads
        for layer in distinct[workers:]:
            self._say(layer, "Waiting")
        with ThreadPoolExecutor(workers, thread_name_prefix="tare-push") as pool:
            futures: dict[str, Future[Descriptor]] = {
                layer.diff_id: pool.submit(self._send, layer) for layer in distinct
            }
            try:
                self._job.wait_all(list(futures.values()))
            except BaseException:
                self._job.transport.cancel()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return [futures[layer.diff_id].result() for layer in layers]

    def send_document(self, digest: str, document: bytes) -> None:
        """A small blob: an image's config."""
        if digest_bytes(document) != digest:
            raise Internal(f"image configuration {digest} is damaged")
        if self._repository.has_blob(digest):
            return
        with self._registries.outgoing_file() as fd:
            os.write(fd, document)
            Upload(self._repository, digest, fd, lambda done: None).send(self._wait, self._attempts)

    # -- one layer, in a thread ---------------------------------------------------------------------------------------

    def _send(self, layer: OutgoingLayer) -> Descriptor:
        self._job.check()
        descriptor = layer.fixed or self._original(layer) or self._known(layer)
        if descriptor is not None and self._is_there(layer, descriptor):
            return self._seen(layer, descriptor)
        with self._registries.outgoing_file() as fd:
            if descriptor is None:
                descriptor = self._pack(layer, fd)
                if self._is_there(layer, descriptor):
                    return self._seen(layer, descriptor)
            else:
                self._write_out(layer, descriptor, fd)
            Upload(self._repository, descriptor.digest, fd, self._progress(layer)).send(
                lambda seconds: self._wait_telling(layer, seconds), self._attempts
            )
        self._say(layer, "Pushed")
        return self._seen(layer, descriptor)

    def _original(self, layer: OutgoingLayer) -> Descriptor | None:
        """The compressed form in which it once came."""
        for original in self._engine.layers.originals.of(layer.diff_id):
            media_type = _COMPRESSED.get(original.compression)
            if media_type and self._engine.layers.hold_original(original.digest, self._lease):
                return Descriptor(media_type=media_type, digest=original.digest, size=original.size_bytes)
        return None

    def _known(self, layer: OutgoingLayer) -> Descriptor | None:
        """As which blob this registry has it already, here or where it can be mounted from."""
        places = [place for place in self._places(layer.diff_id) if place.media_type.endswith("gzip")]
        for place in list({place.digest: place for place in places}.values())[:_MOST_KNOWN]:
            found = Descriptor(media_type=f"{LAYER_TYPE}+gzip", digest=place.digest, size=place.size_bytes)
            if self._repository.has_blob(place.digest) or self._mounted(layer.diff_id, place.digest):
                return found
        return None

    def _is_there(self, layer: OutgoingLayer, descriptor: Descriptor) -> bool:
        if descriptor.digest not in self._mounts and self._repository.has_blob(descriptor.digest):
            self._say(layer, "Layer already exists")
            return True
        source = self._mounted(layer.diff_id, descriptor.digest)
        if source is not None:
            self._say(layer, f"Mounted from {source}")
            return True
        return False

    def _mounted(self, diff_id: str, digest: str) -> str | None:
        """From which repository of the same registry the blob was taken over, if one had it."""
        if digest in self._mounts:
            return self._mounts[digest]
        places = [place for place in self._places(diff_id) if place.digest == digest]
        for place in [place for place in places if place.path != self._repository.path][:_MOST_MOUNTS]:
            try:
                if mount_blob(self._repository, digest, place.path):
                    self._mounts[digest] = place.path
                    return place.path
            except NotFound:
                pass
            self._registries.known.forget_blob(place)
        return None

    def _places(self, diff_id: str) -> list[Place]:
        domain = self._repository.endpoint.domain
        return [place for place in self._registries.known.places(diff_id) if place.domain == domain]

    def _pack(self, layer: OutgoingLayer, fd: int) -> Descriptor:
        packed = pack(self._engine.layers.reassemble(layer.diff_id), fd, self._job.check)
        return Descriptor(media_type=f"{LAYER_TYPE}+gzip", digest=packed.digest, size=packed.size_bytes)

    def _write_out(self, layer: OutgoingLayer, descriptor: Descriptor, fd: int) -> None:
        layers = self._engine.layers
        chunks: Iterator[bytes]
        if descriptor.digest == layer.diff_id:
            chunks = layers.reassemble(layer.diff_id)
        elif layers.hold_original(descriptor.digest, self._lease):
            chunks = layers.originals.open(descriptor.digest)
        else:
            raise NotFound(f"layer {descriptor.digest} is neither here nor in the registry any more")
        if copy(chunks, fd, self._job.check) != Packed(descriptor.digest, descriptor.size):
            raise Internal(f"layer {descriptor.digest} is damaged")

    def _seen(self, layer: OutgoingLayer, descriptor: Descriptor) -> Descriptor:
        self._registries.known.saw_blob(
            Place(
                diff_id=layer.diff_id,
                digest=descriptor.digest,
                size_bytes=descriptor.size,
                media_type=descriptor.media_type,
                domain=self._repository.endpoint.domain,
                path=self._repository.path,
            )
        )
        return descriptor

    # -- telling ------------------------------------------------------------------------------------------------------

    @property
    def _attempts(self) -> int:
        return self._registries.settings.max_attempts

    def _wait(self, seconds: int) -> None:
        if not wait_s(seconds, lambda: self._job.cancelled):
            raise Cancelled("cancelled")

    def _wait_telling(self, layer: OutgoingLayer, seconds: int) -> None:
        for left in range(seconds, 0, -1):
            self._say(layer, f"Retrying in {left} second{'s' if left > 1 else ''}")
            self._wait(1)

    def _progress(self, layer: OutgoingLayer) -> Callable[[int], None]:
        total = self._engine.layers.get(layer.diff_id).size_bytes
        last = [0.0]

        def progress(current: int) -> None:
            now = time.monotonic()
            if now - last[0] >= PROGRESS_INTERVAL_S:
                last[0] = now
                self._say(layer, "Pushing", current, total)

        return progress

    def _say(self, layer: OutgoingLayer, status: str, current: int = 0, total: int = 0) -> None:
        self._job.say(Step(status=status, id=layer.short_id, layer=True, current=current, total=total))
