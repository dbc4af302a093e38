"""From a reference to one image's manifest and config, through an index if there is one.

Must never take a document for another kind than its descriptor says (CVE-2021-41190), nor follow an index for ever.
"""

from __future__ import annotations

import msgspec

from tare.engine.engine import Engine
from tare.engine.layer_fetch import WantedLayer
from tare.errors import InvalidArgument, NotFound, Unsupported
from tare.images.archive_image import format_platform, ours, suits
from tare.images.records import Platform
from tare.oci.image_spec import (
    CONFIG_TYPE,
    DOCKER_CONFIG_TYPE,
    DOCKER_INDEX_TYPE,
    INDEX_TYPE,
    LAYER_TYPE,
    Descriptor,
    ImageSpec,
    IndexEntry,
    Manifest,
    parse_image_spec,
    parse_index,
    parse_manifest,
)
from tare.registry.endpoints import Endpoint, endpoints
from tare.registry.lookups import at_endpoint
from tare.registry.records import Credentials
from tare.registry.repository import Fetched, Repository
from tare.registry.transport import Transport
from tare.values.digest import is_digest
from tare.values.reference import Reference

DOCKER_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar"
LAYER_TYPES = frozenset(
    (
        LAYER_TYPE,
        f"{LAYER_TYPE}+gzip",
        f"{LAYER_TYPE}+zstd",
        DOCKER_LAYER_TYPE,
        f"{DOCKER_LAYER_TYPE}.gzip",
        f"{DOCKER_LAYER_TYPE}.zstd",
    )
)
INDEX_TYPES = (INDEX_TYPE, DOCKER_INDEX_TYPE)
_MAX_DEPTH = 3
_MAX_LAYERS = 500
_MAX_ENTRIES = 10_000


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference leads to. digest: of what it names, perhaps an index."""

    endpoint: Endpoint
    repository: Repository
    fetched: Fetched

    @property
    def digest(self) -> str:
        return self.fetched.digest


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """One image of it."""

    fetched: Fetched
    manifest: Manifest
    config: bytes
    spec: ImageSpec
    layers: list[WantedLayer]


def find(engine: Engine, transport: Transport, reference: Reference, credentials: Credentials) -> Found:
    """The manifest or index that a reference names, from the first endpoint that has it."""

    def ask(endpoint: Endpoint) -> Found:
        repository = Repository(transport, endpoint, credentials, reference.path)
        fetched = repository.manifest(reference.digest or reference.tag or "latest")
        return Found(endpoint=endpoint, repository=repository, fetched=fetched)

    found = endpoints(reference.domain, engine.registries.settings, mirrors=True)
    return at_endpoint(found, ask)


def choose(found: Found, platform: Platform | None, reference: Reference) -> Chosen:
    """The image for a platform, checked. Raises NotFound if there is none, InvalidArgument for what isn't right."""
    fetched = found.fetched
    depth = 0
    while fetched.media_type in INDEX_TYPES:
        depth += 1
        if depth > _MAX_DEPTH:
            raise InvalidArgument(f"{reference.familiar}: its index is nested too deeply")
        entry = _entry(fetched, platform)
        inner = found.repository.manifest(entry.digest)
        if inner.media_type != entry.media_type or len(inner.document) != entry.size:
            raise InvalidArgument(f"manifest {entry.digest} isn't what its index says")
        fetched = inner
    manifest = parse_manifest(fetched.document)
    config = _config(found.repository, manifest)
    spec = parse_image_spec(config)
    if spec.os != "linux":
        raise InvalidArgument(f'image operating system "{spec.os[:32]}" cannot be used on this platform')
    built = Platform(os=spec.os, architecture=spec.architecture, variant=spec.variant)
    if platform is not None and not suits(built, platform):
        raise NotFound(
            f"image with reference {reference.familiar} was found but its platform ({format_platform(built)}) does not"
            f" match the specified platform ({format_platform(platform)})"
        )
    return Chosen(fetched=fetched, manifest=manifest, config=config, spec=spec, layers=_layers(manifest, spec))


def _entry(fetched: Fetched, platform: Platform | None) -> IndexEntry:
    index = parse_index(fetched.document)
    if len(index.manifests) > _MAX_ENTRIES:
        raise InvalidArgument(f"image index: more than {_MAX_ENTRIES} entries")
    wanted = platform or ours()
    fitting = [entry for entry in index.manifests if _fits(entry, wanted)]
    if not fitting:
        raise NotFound(f"no matching manifest for {format_platform(wanted)} in the manifest list entries")
    exact = [entry for entry in fitting if entry.platform is not None and entry.platform.variant == wanted.variant]
    return (exact or fitting)[0]


def _fits(entry: IndexEntry, wanted: Platform) -> bool:
    if entry.media_type in INDEX_TYPES and entry.platform is None:
        return True
    found = entry.platform
    return found is not None and suits(
        Platform(os=found.os, architecture=found.architecture, variant=found.variant), wanted
    )


def _config(repository: Repository, manifest: Manifest) -> bytes:
    descriptor = manifest.config
    if descriptor.media_type not in (CONFIG_TYPE, DOCKER_CONFIG_TYPE):
        raise InvalidArgument(f'Encountered remote "{descriptor.media_type[:100]}"(unknown) when fetching')
    return repository.blob_document(descriptor.digest, descriptor.size)


def _layers(manifest: Manifest, spec: ImageSpec) -> list[WantedLayer]:
    diff_ids = spec.rootfs.diff_ids
    if len(manifest.layers) > _MAX_LAYERS:
        raise InvalidArgument(f"image manifest: more than {_MAX_LAYERS} layers")
    if len(diff_ids) != len(manifest.layers):
        raise InvalidArgument(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(manifest.layers)}"
        )
    for diff_id in diff_ids:
        if not is_digest(diff_id):
            raise InvalidArgument(f"invalid image configuration: {diff_id[:100]!r} is no digest")
    for descriptor in manifest.layers:
        _check_layer(descriptor)
    return [
        WantedLayer(descriptor=descriptor, diff_id=diff_id)
        for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=True)
    ]


def _check_layer(descriptor: Descriptor) -> None:
    if not is_digest(descriptor.digest):
        raise InvalidArgument(f"invalid digest: {descriptor.digest[:100]!r}")
    if "foreign" in descriptor.media_type or "nondistributable" in descriptor.media_type:
        raise Unsupported(f"layers from elsewhere ({descriptor.media_type[:100]}) are not supported by Tare")
    if descriptor.media_type not in LAYER_TYPES:
        raise InvalidArgument(f"layer {descriptor.digest} has the unknown media type {descriptor.media_type[:100]!r}")
