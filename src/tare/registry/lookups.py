"""Questions to a whole registry: is it there, who am I to it, which repositories has it, what does a search find."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from tare.errors import TareError
from tare.oci.image_spec import parse_document
from tare.registry.authorization import Authorization
from tare.registry.endpoints import Endpoint, endpoints
from tare.registry.records import (
    HUB_DOMAIN,
    HUB_KEY,
    Cancelled,
    Credentials,
    Interrupted,
    NotAllowed,
    RegistryFailure,
    RegistrySettings,
)
from tare.registry.repository import Repository, next_page
from tare.registry.transport import Answer, Transport
from tare.registry.words import failure_of

_DOCUMENT_BYTES = 4 << 20
MAX_REPOSITORIES = 10_000
_PAGE = 1000
T = TypeVar("T")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A repository that a search found."""

    name: str = ""
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Search(msgspec.Struct, frozen=True, kw_only=True):
    results: list[Found] = []


class _Catalog(msgspec.Struct, frozen=True, kw_only=True):
    repositories: list[str] = []


def domain_of(server: str) -> str:
    """The registry that a server address means: `https://index.docker.io/v1/` and "" are the hub."""
    if server in ("", HUB_KEY, HUB_DOMAIN):
        return HUB_DOMAIN
    host = server.partition("://")[2] or server
    host = host.partition("/")[0]
    return HUB_DOMAIN if host in ("index.docker.io", "registry-1.docker.io") else host


def at_endpoint(found: list[Endpoint], ask: Callable[[Endpoint], T]) -> T:
    """What the first endpoint that can be reached answers; mirrors may fail in any way.

    An unchecked registry that speaks no TLS is spoken to without (only such have a second endpoint).
    """
    failures: list[TareError] = []
    for endpoint in found:
        try:
            return ask(endpoint)
        except Cancelled:
            raise
        except Interrupted as error:
            failures.append(error)
        except TareError as error:
            if not endpoint.mirror:
                raise
            failures.append(error)
    raise failures[-1]


def ping(transport: Transport, endpoint: Endpoint) -> Answer:
    """GET /v2/ without credentials. Raises Interrupted where nobody answers."""
    return transport.follow(endpoint, "GET", f"{endpoint.url}/v2/")


def login(settings: RegistrySettings, credentials: Credentials, transport: Transport) -> str:
    """Checks credentials; returns the identity token that the registry gives in their place, or "".

    Raises NotAllowed, RegistryFailure.
    """
    found = endpoints(domain_of(credentials.server), settings)
    return at_endpoint(found, lambda one: _login(transport, one, credentials))


def _login(transport: Transport, endpoint: Endpoint, credentials: Credentials) -> str:
    answer = ping(transport, endpoint)
    if answer.status == 401:
        authorization = Authorization(transport, endpoint, credentials)
        headers = authorization.answer(answer, ())
        answer.close()
        answer = transport.follow(endpoint, "GET", f"{endpoint.url}/v2/", headers=headers)
        if answer.status == 200:
            answer.close()
            return authorization.refresh_token
    answer.close()
    if answer.status == 401:
        raise NotAllowed(f"login attempt to {endpoint.url}/v2/ failed with status: 401 Unauthorized")
    if answer.status != 200:
        raise RegistryFailure(f"login attempt to {endpoint.url}/v2/ failed with status: {answer.status}")
    return ""


def search(
    settings: RegistrySettings, credentials: Credentials, domain: str, term: str, limit: int, transport: Transport
) -> list[Found]:
    """Repositories by a registry's search, or where it has none by its catalog. Raises RegistryFailure."""
    found = _search_endpoints(domain, settings)
    return at_endpoint(found, lambda one: _search(transport, one, credentials, term, limit))


def _search_endpoints(domain: str, settings: RegistrySettings) -> list[Endpoint]:
    if domain == HUB_DOMAIN:
        return [Endpoint(HUB_KEY.removesuffix("/v1/"), domain)]
    return endpoints(domain, settings)


def _search(transport: Transport, endpoint: Endpoint, credentials: Credentials, term: str, limit: int) -> list[Found]:
    asker = Repository(transport, endpoint, credentials, "")
    asker.scopes = ()
    answer = asker.read("GET", f"{endpoint.url}/v1/search?{urlencode({'q': term, 'n': limit})}")
    if answer.status == 200:
        return parse_document(answer.document(_DOCUMENT_BYTES), _Search, "search results").results[:limit]
    refused = answer.status
    answer.close()
    if endpoint.domain != HUB_DOMAIN:
        names = _catalog(transport, endpoint, credentials)
        if names is not None:
            return [Found(name=name) for name in names if term in name][:limit]
    raise RegistryFailure(f"Unexpected status code {refused}")


def _catalog(transport: Transport, endpoint: Endpoint, credentials: Credentials) -> list[str] | None:
    """All repositories; None if the registry doesn't tell."""
    asker = Repository(transport, endpoint, credentials, "")
    asker.scopes = ("registry:catalog:*",)
    url: str | None = f"{endpoint.url}/v2/_catalog?n={_PAGE}"
    names: list[str] = []
    while url is not None and len(names) < MAX_REPOSITORIES:
        answer = asker.read("GET", url)
        if answer.status != 200:
            error = failure_of(answer)
            if isinstance(error, NotAllowed):
                raise error
            return None
        page = parse_document(answer.document(_DOCUMENT_BYTES), _Catalog, "catalog").repositories
        if not page:
            break
        names += page
        url = next_page(endpoint, answer)
    return names
