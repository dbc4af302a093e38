"""push: an image's tag, or all tags of a repository, to a registry.

Must never name a tag in the registry before all that it needs is there. A layer that came compressed goes out bit for
bit; one that was made here is compressed the same way each time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from tare import faults
from tare.engine.engine import Engine
from tare.engine.push_layers import LayerPushes, OutgoingLayer
from tare.engine.registry_jobs import Job, Sent, Step, Told
from tare.errors import InvalidArgument, NotFound
from tare.images import documents
from tare.images.archive_image import format_platform, suits
from tare.images.images import name_of, set_reference
from tare.images.records import Image, Platform
from tare.oci.image_spec import (
    CONFIG_TYPE,
    DOCKER_CONFIG_TYPE,
    DOCKER_MANIFEST_TYPE,
    LAYER_TYPE,
    Descriptor,
    Manifest,
    format_document,
    parse_index,
    parse_manifest,
)
from tare.registry.endpoints import Endpoint, endpoints
from tare.registry.lookups import at_endpoint, ping
from tare.registry.records import NOBODY, Credentials, NotAllowed, RegistryFailure
from tare.registry.repository import Repository
from tare.values.digest import digest_bytes, is_digest
from tare.values.reference import Reference

_DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class PushOptions(msgspec.Struct, frozen=True, kw_only=True):
    """reference: with a tag, or without to push all tags of the repository. platforms: that the images must be for."""

    reference: Reference
    credentials: Credentials = NOBODY
    platforms: tuple[Platform, ...] = ()


class _WholeIndex(msgspec.Struct, frozen=True, kw_only=True):
    """An index all of which is here. members: ids of its images by their manifests' digests, in its order."""

    document: bytes
    media_type: str
    members: dict[str, str]


def push(engine: Engine, options: PushOptions) -> AsyncGenerator[Told, None]:
    """Pushes; tells how it goes. Raises NotFound, NotAllowed …; who stops listening calls it off."""
    if options.reference.digest is not None:
        raise InvalidArgument("cannot push a digest reference")
    return Job(engine, "tare-push", lambda job: _Push(job, options).run()).steps()


class _Push:
    def __init__(self, job: Job[None], options: PushOptions) -> None:
        self._job = job
        self._engine = job.engine
        self._options = options

    def run(self) -> None:
        reference = self._options.reference
        self._job.say(Step(status=f"The push refers to repository [{reference.domain}/{reference.path}]"))
        tags = self._tags(reference)
        settings = self._engine.registries.settings
        endpoint = at_endpoint(endpoints(reference.domain, settings), self._reached)
        repository = Repository(self._job.transport, endpoint, self._options.credentials, reference.path, "pull,push")
        for tag, image in tags:
            self._check_platform(image, reference._replace(tag=tag))
        try:
            for tag, image in tags:
                self._one(repository, reference._replace(tag=tag), image)
        except NotAllowed as error:
            if error.code == "NO_CREDENTIALS":
                raise RegistryFailure("no basic auth credentials") from error
            raise

    def _reached(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint if somebody answers there. What it answers comes again with the first real request."""
        ping(self._job.transport, endpoint).close()
        return endpoint

    def _tags(self, reference: Reference) -> list[tuple[str, Image]]:
        """The tags to push. Raises NotFound with Docker's texts."""
        images = self._engine.images
        rows = images.db.all(
            "SELECT suffix, image_id FROM image_references WHERE name = ? ORDER BY suffix", (name_of(reference),)
        )
        if not rows:
            raise NotFound(f"An image does not exist locally with the tag: {reference.repository}")
        found = [(row["suffix"][1:], images.get(row["image_id"])) for row in rows if row["suffix"].startswith(":")]
        if reference.tag is not None:
            found = [(tag, image) for tag, image in found if tag == reference.tag]
            if not found:
                raise NotFound(f"tag does not exist: {reference.familiar}")
        if not found:
            raise NotFound(f"no tags to push for {reference.repository}")
        return found

    def _check_platform(self, image: Image, reference: Reference) -> None:
        built = Platform(os=image.spec.os, architecture=image.spec.architecture, variant=image.spec.variant)
        for wanted in self._options.platforms:
            if not suits(built, wanted):
                raise NotFound(
                    f"image with reference {reference.familiar} was found but does not provide the specified platform"
                    f" ({format_platform(wanted)})"
                )

    def _one(self, repository: Repository, reference: Reference, image: Image) -> None:
        index = self._whole_index(reference)
        if index is None:
            digest, document = self._send(repository, reference.tag or "latest", reference, image)
        else:
            for manifest_digest, member in index.members.items():
                self._send(repository, manifest_digest, reference, self._engine.images.get(member))
            document = index.document
            digest = repository.put_manifest(reference.tag or "latest", index.media_type, document)
        faults.point("push.manifest.sent")
        self._engine.registries.known.saw_manifest(image.id, digest, document)
        self._name(image, reference._replace(tag=None, digest=digest), digest if index else "")
        tag = reference.tag or "latest"
        self._job.say(Step(status=f"{tag}: digest: {digest} size: {len(document)}"))
        self._job.say(Sent(tag=tag, digest=digest, size=len(document)))
        self._job.publish("push", reference.familiar, reference.repository)

    def _whole_index(self, reference: Reference) -> _WholeIndex | None:
        """The index that a name stands for, if all that it lists is here; only then it can go out."""
        images = self._engine.images
        target = images.target(reference)
        if target not in documents.of(images, images.referred(reference) or "", "index"):
            return None
        document = images.content.get(target)
        index = parse_index(document)
        members = documents.members(images, target)
        wanted = self._options.platforms
        if wanted or not index.manifests or any(entry.digest not in members for entry in index.manifests):
            return None
        return _WholeIndex(
            document=document,
            media_type=index.media_type,
            members={entry.digest: members[entry.digest] for entry in index.manifests},
        )

    def _send(self, repository: Repository, name: str, reference: Reference, image: Image) -> tuple[str, bytes]:
        """Sends one image's blobs, then its manifest under a tag or its digest; returns the manifest and its digest."""
        with self._engine.layers.lease(image.diff_ids, what="push", reads=True) as lease:
            pushes = LayerPushes(self._job, repository, lease)
            part = is_digest(name)
            first = name if part else self._engine.images.target(reference)
            found = self._original_manifest(image, pushes, first, part_of_index=part)
            if found is None and part:
                raise NotFound(f"a layer of {name}, which {reference.familiar} lists, can't be given out as it came")
            fixed = found[0].layers if found else [None] * len(image.diff_ids)
            layers = pushes.send(
                [OutgoingLayer(diff_id=diff_id, fixed=one) for diff_id, one in zip(image.diff_ids, fixed, strict=True)]
            )
            pushes.send_document(image.id, self._engine.images.content.get(image.id))
            faults.point("push.blobs.sent")
            if found:
                manifest, document = found
                return repository.put_manifest(name, manifest.media_type, document), document
            return self._put_made(repository, reference, image, layers)

    def _original_manifest(
        self, image: Image, pushes: LayerPushes, first: str, *, part_of_index: bool
    ) -> tuple[Manifest, bytes] | None:
        """A manifest that the image came or went with, if all that it lists can be had; None to make one.

        first: the digest of the one to look at before the others; the only one where the image is part of an index.
        """
        images = self._engine.images
        digests = [image.manifest_digest, *documents.of(images, image.id, "manifest")]
        digests.sort(key=lambda digest: digest != first)
        found = [images.content.get(digest) for digest in digests]
        for document in [*found, *self._engine.registries.known.manifests(image.id)]:
            manifest = parse_manifest(document)
            if part_of_index and digest_bytes(document) != first:
                continue
            if manifest.config.digest != image.id or len(manifest.layers) != len(image.diff_ids):
                continue
            pairs = list(zip(manifest.layers, image.diff_ids, strict=True))
            if pairs and not part_of_index and all(layer.digest == diff_id for layer, diff_id in pairs):
                continue  # plain tars, as archives have them: they go out compressed
            if all(pushes.can_have(layer, diff_id) for layer, diff_id in pairs):
                return manifest, document
        return None

    def _put_made(
        self, repository: Repository, reference: Reference, image: Image, layers: list[Descriptor]
    ) -> tuple[str, bytes]:
        size = len(self._engine.images.content.get(image.id))
        manifest = Manifest(config=Descriptor(media_type=CONFIG_TYPE, digest=image.id, size=size), layers=layers)
        document = format_document(manifest)
        tag = reference.tag or "latest"
        try:
            return repository.put_manifest(tag, manifest.media_type, document), document
        except RegistryFailure:
            if any(layer.media_type != f"{LAYER_TYPE}+gzip" for layer in layers):
                raise
        # A registry from before the OCI's types.
        manifest = Manifest(
            media_type=DOCKER_MANIFEST_TYPE,
            config=Descriptor(media_type=DOCKER_CONFIG_TYPE, digest=image.id, size=size),
            layers=[msgspec.structs.replace(layer, media_type=_DOCKER_GZIP) for layer in layers],
        )
        document = format_document(manifest)
        return repository.put_manifest(tag, manifest.media_type, document), document

    def _name(self, image: Image, reference: Reference, target: str) -> None:
        """The image is known by the pushed manifest's digest from now on, if it is still there."""
        images = self._engine.images
        with images.lock:
            if images.find(image.id) is None:
                return
            with images.db.transaction() as tx:
                set_reference(tx, reference, image.id, why="push", target=target)
