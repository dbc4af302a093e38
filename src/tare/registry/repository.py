"""One repository at one endpoint: manifests, blobs, tags, by the OCI distribution specification.

Must never hand out a manifest that hasn't the digest asked for, or the digest that the registry says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from tare.errors import InvalidArgument
from tare.oci.image_spec import (
    DOCKER_INDEX_TYPE,
    DOCKER_MANIFEST_TYPE,
    INDEX_TYPE,
    MANIFEST_TYPE,
    MAX_DOCUMENT_BYTES,
    parse_document,
)
from tare.registry.authorization import Authorization
from tare.registry.endpoints import Endpoint
from tare.registry.records import Credentials, RegistryFailure
from tare.registry.transport import Answer, Body, Transport, same_origin
from tare.registry.words import failure_of
from tare.values.digest import digest_bytes, is_digest, parse_digest

MANIFEST_TYPES = (MANIFEST_TYPE, INDEX_TYPE, DOCKER_MANIFEST_TYPE, DOCKER_INDEX_TYPE)
SCHEMA_1_TYPES = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
MAX_TAGS = 10_000
MAX_PAGES = 200
_LIST_BYTES = 4 << 20
_NEXT = re.compile(r'<([^>]+)>\s*;.*\brel="?next"?')
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")


class Fetched(NamedTuple):
    """A manifest or an index as it came."""

    document: bytes
    media_type: str
    digest: str


class _Tags(msgspec.Struct, frozen=True, kw_only=True):
    tags: list[str] = []


class _Claim(msgspec.Struct, frozen=True, kw_only=True):
    media_type: str = msgspec.field(name="mediaType", default="")
    schema_version: int = msgspec.field(name="schemaVersion", default=0)


class Repository:
    """path: the repository's name at this registry. actions: what is asked of the token service: pull, or pull,push."""

    def __init__(
        self, transport: Transport, endpoint: Endpoint, credentials: Credentials, path: str, actions: str = "pull"
    ) -> None:
        self.transport = transport
        self.endpoint = endpoint
        self.path = path
        self.scopes: tuple[str, ...] = (f"repository:{path}:{actions}",)
        self.authorization = Authorization(transport, endpoint, credentials)
        self._root = f"{endpoint.url}/v2/{path}"

    def url(self, rest: str) -> str:
        return f"{self._root}/{rest}"

    # -- asking -------------------------------------------------------------------------------------------------------

    def read(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """A reading request with our authorization; redirects are followed. The answer may be a refusal."""
        sent = dict(headers or {})
        answer = self.transport.follow(
            self.endpoint, method, url, headers={**sent, **self.authorization.header(self.scopes)}
        )
        if answer.status != 401 or not same_origin(answer.url, self.endpoint.url):
            return answer  # where a redirect led to, nobody is told who we are (CVE-2020-15157)
        extra = self.authorization.answer(answer, self.scopes)
        answer.close()
        return self.transport.follow(self.endpoint, method, url, headers={**sent, **extra})

    def write(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        *,
        more_scopes: tuple[str, ...] = (),
        timeout_s: float = 120.0,
    ) -> Answer:
        """A changing request. One with a body that can't be sent twice is preceded by others that got the token."""
        scopes = (*self.scopes, *more_scopes)
        ours = same_origin(url, self.endpoint.url)
        known = self.authorization.header(scopes) if ours else {}
        answer = self.transport.request(
            self.endpoint, method, url, headers={**(headers or {}), **known}, body=body, timeout_s=timeout_s
        )
        if answer.status != 401 or not ours or not (body is None or isinstance(body, bytes)):
            return answer
        extra = self.authorization.answer(answer, scopes)
        answer.close()
        return self.transport.request(
            self.endpoint, method, url, headers={**(headers or {}), **extra}, body=body, timeout_s=timeout_s
        )

    # -- manifests ----------------------------------------------------------------------------------------------------

    def manifest(self, tag_or_digest: str) -> Fetched:
        """A manifest or index. Raises NotFound, InvalidArgument where it isn't what it is said to be."""
        url = self.url(f"manifests/{quote(tag_or_digest, ':')}")
        answer = self.read("GET", url, {"Accept": ", ".join(MANIFEST_TYPES)})
        if answer.status != 200:
            raise failure_of(answer)
        document = answer.document(MAX_DOCUMENT_BYTES)
        digest = digest_bytes(document)
        if ":" in tag_or_digest and digest != tag_or_digest:
            raise InvalidArgument(f"manifest verification failed for digest {tag_or_digest}")
        said = answer.headers.get("docker-content-digest", "")
        if is_digest(said) and said != digest:
            raise InvalidArgument(f"manifest verification failed for digest {said}")
        return Fetched(document, _media_type(answer, document), digest)

    def put_manifest(self, tag_or_digest: str, media_type: str, document: bytes) -> str:
        """Writes a manifest; returns its digest. Raises what the registry refuses."""
        url = self.url(f"manifests/{quote(tag_or_digest, ':')}")
        answer = self.write("PUT", url, {"Content-Type": media_type}, document)
        if answer.status not in (200, 201, 202):
            raise failure_of(answer)
        answer.document(_LIST_BYTES)
        return digest_bytes(document)

    # -- tags ---------------------------------------------------------------------------------------------------------

    def tags(self) -> list[str]:
        """All tags, page by page. Raises NotFound, RegistryFailure where they don't end."""
        found: list[str] = []
        url: str | None = self.url("tags/list")
        for _ in range(MAX_PAGES):
            if url is None:
                return sorted({tag for tag in found if _TAG.match(tag)})
            answer = self.read("GET", url)
            if answer.status != 200:
                raise failure_of(answer)
            page = parse_document(answer.document(_LIST_BYTES), _Tags, "tag list")
            found += page.tags
            if len(found) > MAX_TAGS:
                break
            url = next_page(self.endpoint, answer)
        raise RegistryFailure(f"{self.endpoint.domain}/{self.path} has more than {MAX_TAGS} tags")

    # -- blobs --------------------------------------------------------------------------------------------------------

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has it. Raises what isn't a plain yes or no."""
        answer = self.read("HEAD", self.url(f"blobs/{parse_digest(digest)}"))
        if answer.status == 200:
            answer.document(0)
            return True
        error = failure_of(answer)
        if answer.status == 404:
            return False
        raise error

    def open_blob(self, digest: str, offset: int = 0) -> Answer:
        """A blob's bytes, unchecked, from offset on if the answer's status is 206, else all of them (200)."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self.read("GET", self.url(f"blobs/{parse_digest(digest)}"), headers)
        if answer.status == 200 or (answer.status == 206 and offset and _begins_at(answer, offset)):
            return answer
        if answer.status in (206, 416):
            answer.close()
            answer = self.read("GET", self.url(f"blobs/{digest}"))
            if answer.status == 200:
                return answer
        raise failure_of(answer)

    def blob_document(self, digest: str, size: int) -> bytes:
        """A small blob (an image's configuration), checked. Raises InvalidArgument where it is another."""
        if not 0 <= size <= MAX_DOCUMENT_BYTES:
            raise InvalidArgument(f"{digest} is larger than {MAX_DOCUMENT_BYTES} bytes")
        document = self.open_blob(digest).document(size)
        if digest_bytes(document) != digest:
            raise InvalidArgument(f"image config verification failed for digest {digest}")
        return document


def next_page(endpoint: Endpoint, answer: Answer) -> str | None:
    """Where the next page of a list is, by its Link header (RFC 8288); only at the same endpoint."""
    found = _NEXT.search(answer.headers.get("link", ""))
    if found is None:
        return None
    url: str = urljoin(answer.url, found[1])
    if not same_origin(url, endpoint.url) or not urlsplit(url).path.startswith("/v2/"):
        raise RegistryFailure(f"{answer.url}: the next page is elsewhere: {url[:200]!r}")
    return url


def _begins_at(answer: Answer, offset: int) -> bool:
    return answer.headers.get("content-range", "").replace("bytes ", "").partition("-")[0].strip() == str(offset)


def _media_type(answer: Answer, document: bytes) -> str:
    """What a manifest is: header and document must agree where both say it (CVE-2021-41190)."""
    header = answer.headers.get("content-type", "").partition(";")[0].strip()
    claim = parse_document(document, _Claim, "manifest")
    if header in SCHEMA_1_TYPES or claim.schema_version == 1:
        raise InvalidArgument(
            "Docker Image manifest version 2, schema 1 is not supported: push the image again with a newer Docker"
        )
    if header not in MANIFEST_TYPES:
        header = ""
    if claim.media_type and header and claim.media_type != header:
        raise InvalidArgument(f"manifest says that it is {claim.media_type[:100]!r}, and the registry {header!r}")
    media_type = claim.media_type or header
    if media_type not in MANIFEST_TYPES:
        raise InvalidArgument(f'Encountered remote "{media_type[:100] or "unknown"}"(unknown) when fetching')
    return media_type
