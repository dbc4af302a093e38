"""The OCI image specification's documents as records, with the fields that Docker adds to an image's config. No I/O.

Documents that came from elsewhere are kept as the bytes they are; these records are for reading them and making new.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from tare.errors import InvalidArgument

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
MAX_DOCUMENT_BYTES = 4 << 20  # CVE-2023-25153
_MAX_DEPTH = 32
_Document = TypeVar("_Document")


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a document refers to (descriptor.md)."""

    media_type: str = msgspec.field(name="mediaType")
    digest: str
    size: int
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One image: its config and its layers, bottom first (manifest.md)."""

    schema_version: int = msgspec.field(name="schemaVersion", default=2)
    media_type: str = msgspec.field(name="mediaType", default=MANIFEST_TYPE)
    config: Descriptor
    layers: list[Descriptor]


class DescriptorPlatform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What machine an index's entry is for (image-index.md, "platform")."""

    os: str = ""
    architecture: str = ""
    variant: str = ""


class IndexEntry(Descriptor, frozen=True, kw_only=True, omit_defaults=True):
    """An image, or another index, in an index."""

    platform: DescriptorPlatform | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Several images, or one for several platforms (image-index.md)."""

    schema_version: int = msgspec.field(name="schemaVersion", default=2)
    media_type: str = msgspec.field(name="mediaType", default=INDEX_TYPE)
    manifests: list[IndexEntry]


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """Docker's: how to tell whether a container works. Times are nanoseconds; 0 means inherited or default."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """How containers of an image run unless told otherwise (config.md, "config"), and Docker's additions."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] = {}
    env: list[str] = []
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, Any]] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    on_build: list[str] = []
    shell: list[str] = []


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    """The layers' diff IDs, bottom first."""

    type: str = "layers"
    diff_ids: list[str] = []


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one layer came to be; an empty layer has no diff ID of its own."""

    created: str = ""
    author: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """Docker's: of the container that was committed, what its image's config doesn't say."""

    hostname: str = ""
    image: str = ""


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The image's configuration document (config.md); its digest is the image's id."""

    architecture: str
    os: str
    rootfs: RootFS
    variant: str = ""
    created: str = ""
    author: str = ""
    config: ImageConfig = ImageConfig()
    history: list[History] = []
    container: str = ""
    container_config: Origin | None = None


def parse_image_spec(document: bytes) -> ImageSpec:
    """A configuration document as a record; null counts as absent. Raises InvalidArgument."""
    return parse_document(document, ImageSpec, "image configuration")


def parse_manifest(document: bytes) -> Manifest:
    """A manifest as a record; one that could also be an index is refused (CVE-2021-41190)."""
    manifest = parse_document(document, Manifest, "image manifest")
    if b'"manifests"' in document and "manifests" in msgspec.json.decode(document):
        raise InvalidArgument("image manifest: has the fields of an index too")
    return manifest


def parse_index(document: bytes) -> Index:
    """An index as a record; one that could also be a manifest is refused (CVE-2021-41190)."""
    index = parse_document(document, Index, "image index")
    found = msgspec.json.decode(document)
    for field in ("config", "layers", "fsLayers"):
        if field in found:
            raise InvalidArgument(f'image index: has the field "{field}" of a manifest too')
    return index


def format_document(record: ImageSpec | Manifest | Index) -> bytes:
    """The record as JSON with sorted keys: equal records have equal digests."""
    return msgspec.json.encode(record, order="sorted")


def parse_document(document: bytes, kind: type[_Document], what: str) -> _Document:
    """A foreign JSON document as a record; null counts as absent. Raises InvalidArgument."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise InvalidArgument(f"{what}: larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        return msgspec.convert(_without_nulls(msgspec.json.decode(document)), kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgument(f"{what}: {error}") from error


def _without_nulls(value: Any, depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        raise InvalidArgument("document is nested too deeply")
    if isinstance(value, dict):
        return {key: _without_nulls(item, depth + 1) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item, depth + 1) for item in value]
    return value
