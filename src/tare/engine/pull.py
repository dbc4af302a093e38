"""pull: an image, or all tags of a repository, from a registry into the engine.

Must never record an image before its layers are in the store and agree with its config, nor fetch what is there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack
from functools import partial

import msgspec

from tare import faults
from tare.engine.engine import Engine
from tare.engine.layer_fetch import LayerFetch, LayerFetches
from tare.engine.pull_manifest import INDEX_TYPES, Chosen, Found, choose, find
from tare.engine.registry_jobs import Job, Step, Told
from tare.engine.slim import slim_soon
from tare.errors import Conflict, InvalidArgument, NotFound, TareError, Unsupported
from tare.images.records import Image, Platform
from tare.oci.image_spec import parse_index
from tare.registry.endpoints import endpoints
from tare.registry.lookups import at_endpoint
from tare.registry.records import NOBODY, Credentials, NotAllowed, NotThere, RegistryFailure
from tare.registry.repository import Repository
from tare.registry.transport import Transport
from tare.storage.full_disk import naming_the_disk
from tare.storage.layers import Lease
from tare.values.reference import Reference


class PullOptions(msgspec.Struct, frozen=True, kw_only=True):
    """reference: with a tag or a digest unless all_tags. platform: None for this machine's."""

    reference: Reference
    all_tags: bool = False
    platform: Platform | None = None
    credentials: Credentials = NOBODY


async def pull(engine: Engine, options: PullOptions) -> AsyncGenerator[Told, None]:
    """Pulls; tells how it goes. Raises NotFound, RegistryFailure …; who stops listening calls it off."""
    told = Job(engine, "tare-pull", lambda job: _Pull(job, options).run()).steps()
    try:
        async for item in told:
            yield item
    finally:
        await told.aclose()
        slim_soon(engine)


class _Pull:
    def __init__(self, job: Job[None], options: PullOptions) -> None:
        self._job = job
        self._engine = job.engine
        self._options = options
        self._new = False

    def run(self) -> None:
        reference = self._options.reference
        try:
            if self._options.all_tags:
                for tag in self._tags():
                    self._one(reference._replace(tag=tag))
            else:
                self._one(reference)
        except NotThere as error:
            raise _not_found(reference, error, self._options.all_tags) from error
        except NotAllowed as error:
            if error.code == "NO_CREDENTIALS" or (error.code == "UNAUTHORIZED" and not self._options.credentials.empty):
                raise RegistryFailure(str(error)) from error
            raise NotFound(
                f"pull access denied for {reference.repository}, repository does not exist or may require"
                f" 'docker login': {error}"
            ) from error
        what = "Downloaded newer image" if self._new else "Image is up to date"
        self._job.say(Step(status=f"Status: {what} for {reference.familiar}"))

    def _tags(self) -> list[str]:
        found = endpoints(self._options.reference.domain, self._engine.registries.settings, mirrors=True)
        tags: list[str] = at_endpoint(
            found,
            lambda one: Repository(
                self._job.transport, one, self._options.credentials, self._options.reference.path
            ).tags(),
        )
        return tags

    def _one(self, reference: Reference) -> None:
        found = find(self._engine, self._job.transport, reference, self._options.credentials)
        self._job.say(
            Step(
                status=f"Pulling from {reference.path}",
                id=reference.canonical if reference.digest else reference.tag or "latest",
            )
        )
        chosen = choose(found, self._options.platform, reference)
        with naming_the_disk(self._engine.layers.root), ExitStack() as stack:
            lease = stack.enter_context(self._engine.layers.lease(what="pull"))
            fetches: list[LayerFetch] = []
            try:
                if self._held(chosen, lease) is None:
                    self._fetch_all(found, chosen, lease, stack, fetches)
                faults.point("pull.layers.held")
                self._record(reference, found, chosen)
            except (InvalidArgument, Unsupported, NotFound):
                for fetch in fetches:
                    fetch.worthless = True
                self._forget(chosen)  # it was no accident: nothing of it is worth going on with
                raise
            for fetch in fetches:
                fetch.recorded = True
        self._forget(chosen)
        self._job.say(Step(status=f"Digest: {found.digest}"))
        self._job.publish("pull", reference.familiar, reference.repository)

    def _held(self, chosen: Chosen, lease: Lease) -> Image | None:
        """The image if it is here, with its layers held."""
        image = self._engine.images.find(chosen.manifest.config.digest)
        if image is None:
            return None
        here = all(self._engine.layers.hold(diff_id, lease) is not None for diff_id in image.diff_ids)
        return image if here else None

    def _forget(self, chosen: Chosen) -> None:
        for wanted in chosen.layers:
            fetches_of(self._engine).forget(wanted)

    def _fetch_all(
        self, found: Found, chosen: Chosen, lease: Lease, stack: ExitStack, fetches: list[LayerFetch]
    ) -> None:
        layers = self._engine.layers
        shared = fetches_of(self._engine)
        missing = []
        for wanted in chosen.layers:
            here = layers.hold(wanted.diff_id, lease) is not None
            if here and layers.hold_original(wanted.descriptor.digest, lease) is None:
                # A pull that died between layer and original left the blob: what came is kept as it came.
                here = not self._engine.registries.partials.path(wanted.descriptor.digest).exists()
            if not here:
                missing.append(wanted)
            self._job.say(Step(status="Already exists" if here else "Pulling fs layer", id=wanted.short_id, layer=True))
        for wanted in {one.descriptor.digest: one for one in missing}.values():
            who = object()
            fetch = shared.join(self._job, who, wanted, partial(self._sources, found))
            stack.callback(shared.leave, who, fetch)
            fetches.append(fetch)
        self._job.wait_all([fetch.future for fetch in fetches])

    def _sources(self, found: Found, transport: Transport) -> list[Repository]:
        """Where the layers are: the endpoint that had the manifest, and behind a mirror the hub itself."""
        every = endpoints(self._options.reference.domain, self._engine.registries.settings, mirrors=True)
        places = [found.endpoint, *(one for one in every if found.endpoint.mirror and not one.mirror)]
        return [
            Repository(transport, place, self._options.credentials, self._options.reference.path) for place in places
        ]

    def _record(self, reference: Reference, found: Found, chosen: Chosen) -> None:
        images = self._engine.images
        by_digest = reference._replace(tag=None, digest=found.digest)
        names = [by_digest] if reference.digest is not None else [reference, by_digest]
        with images.lock:
            wanted_id = chosen.manifest.config.digest
            if any(images.referred(name) != wanted_id for name in names):
                self._new = True
            manifest = self._kept_manifest(chosen)
            in_index = manifest is not None and self._lists(found, chosen)
            image = images.record_document(
                chosen.config, why="pull", manifest=manifest, references=() if in_index else names
            )
            if in_index:  # the names stand for the index, as far as it is here
                members = {chosen.fetched.digest: image.id}
                image = images.record_index(found.fetched.document, members, image.id, why="pull", references=names)
        if image.id != chosen.manifest.config.digest:
            raise Conflict(f"image {image.id} isn't what was pulled")
        self._engine.registries.known.saw_manifest(image.id, chosen.fetched.digest, chosen.fetched.document)

    @staticmethod
    def _lists(found: Found, chosen: Chosen) -> bool:
        """Whether what the name leads to is an index that lists the image itself, not by another index."""
        if found.fetched.media_type not in INDEX_TYPES:
            return False
        return any(entry.digest == chosen.fetched.digest for entry in parse_index(found.fetched.document).manifests)

    def _kept_manifest(self, chosen: Chosen) -> bytes | None:
        """The manifest where everything that it lists can be given out again bit for bit."""
        originals = self._engine.layers.originals
        whole = all(
            layer.descriptor.digest == layer.diff_id or originals.has(layer.descriptor.digest)
            for layer in chosen.layers
        )
        return chosen.fetched.document if whole else None


def fetches_of(engine: Engine) -> LayerFetches:
    """The layers under way in this engine."""
    if engine.layer_fetches is None:
        engine.layer_fetches = LayerFetches(engine)
    return engine.layer_fetches


def _not_found(reference: Reference, error: NotThere, all_tags: bool) -> TareError:
    if error.code == "NAME_UNKNOWN" or all_tags:
        return NotFound(f"repository {reference.repository} not found: {error}")
    if error.code in ("BLOB_UNKNOWN",):
        return InvalidArgument(f"{reference.familiar}: {error}")
    return NotFound(f"manifest for {reference.familiar} not found: {error}")
