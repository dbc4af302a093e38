"""login, search, and a look at what a registry has: verbs that leave nothing in the engine."""

from __future__ import annotations

import msgspec

from tare.engine.engine import Engine
from tare.engine.pull_manifest import INDEX_TYPES, Found, find
from tare.engine.registry_jobs import Job, Sent, Step, Told
from tare.errors import InvalidArgument
from tare.images.import_image import parse_platform
from tare.oci.image_spec import Descriptor, DescriptorPlatform, parse_image_spec, parse_index, parse_manifest
from tare.registry import lookups
from tare.registry.endpoints import endpoints
from tare.registry.lookups import Found as FoundRepository
from tare.registry.lookups import at_endpoint, domain_of
from tare.registry.records import HUB_DOMAIN, NOBODY, Credentials, NotAllowed, RegistryFailure, RegistrySettings
from tare.registry.repository import Repository
from tare.registry.transport import Transport
from tare.values.filters import Filters, check_filters
from tare.values.reference import parse_reference

MAX_RESULTS = 100
DEFAULT_RESULTS = 25


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """What a registry has under a name."""

    descriptor: Descriptor
    platforms: list[DescriptorPlatform]


async def log_in(engine: Engine, credentials: Credentials) -> str:
    """Checks credentials with their registry; returns an identity token to keep in the password's place, or "".

    Raises NotAllowed, RegistryFailure.
    """
    settings = engine.registries.settings
    return await Job(engine, "tare-login", lambda job: lookups.login(settings, credentials, job.transport)).result()


async def inspect_distribution(engine: Engine, name: str, credentials: Credentials = NOBODY) -> Distribution:
    """The descriptor of a name in its registry, and for which platforms it is. Raises NotFound, NotAllowed …"""
    reference = parse_reference(name).with_default_tag()
    return await Job(
        engine,
        "tare-distribution",
        lambda job: _distribution(find(engine, job.transport, reference, credentials)),
    ).result()


async def list_tags(engine: Engine, name: str, credentials: Credentials = NOBODY) -> list[str]:
    """All tags that a repository has in its registry, sorted. Raises NotFound, NotAllowed …"""
    reference = parse_reference(name)

    def ask(job: Job[list[str]]) -> list[str]:
        found = endpoints(reference.domain, engine.registries.settings, mirrors=True)  # asks for addresses: it waits
        return at_endpoint(found, lambda one: Repository(job.transport, one, credentials, reference.path).tags())

    return await Job(engine, "tare-tags", ask).result()


def _distribution(found: Found) -> Distribution:
    fetched = found.fetched
    descriptor = Descriptor(media_type=fetched.media_type, digest=fetched.digest, size=len(fetched.document))
    if fetched.media_type in INDEX_TYPES:
        entries = parse_index(fetched.document).manifests
        return Distribution(
            descriptor=descriptor, platforms=[entry.platform for entry in entries if entry.platform is not None]
        )
    config = parse_manifest(fetched.document).config
    spec = parse_image_spec(found.repository.blob_document(config.digest, config.size))
    platform = DescriptorPlatform(os=spec.os, architecture=spec.architecture, variant=spec.variant)
    return Distribution(descriptor=descriptor, platforms=[platform])


async def search(
    engine: Engine, term: str, *, limit: int | None, filters: Filters, credentials: Credentials = NOBODY
) -> list[FoundRepository]:
    """Repositories of the hub, or of the registry that the term names. Raises InvalidArgument, RegistryFailure."""
    limit = DEFAULT_RESULTS if limit is None or limit == 0 else limit
    if not 1 <= limit <= MAX_RESULTS:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {MAX_RESULTS}]")
    check_filters(filters, frozenset(("is-automated", "is-official", "stars")))
    stars = max((_stars(text) for text in filters.get("stars", ())), default=0)
    wanted = {name: _flag(name, filters[name]) for name in ("is-automated", "is-official") if filters.get(name)}
    domain, path = split_term(term)
    settings = engine.registries.settings
    found = await Job(
        engine,
        "tare-search",
        lambda job: _search(settings, credentials, domain, path, limit, job.transport),
    ).result()
    return [
        msgspec.structs.replace(one, name=one.name if domain == HUB_DOMAIN else f"{domain}/{one.name}")
        for one in found
        if one.star_count >= stars
        and wanted.get("is-automated", one.is_automated) == one.is_automated
        and wanted.get("is-official", one.is_official) == one.is_official
    ]


def _search(
    settings: RegistrySettings, credentials: Credentials, domain: str, path: str, limit: int, transport: Transport
) -> list[FoundRepository]:
    try:
        return lookups.search(settings, credentials, domain, path, limit, transport)
    except NotAllowed as error:
        # At a 401 Docker's command line asks for a name and a password, for ever where nobody can type any.
        raise RegistryFailure(str(error)) from error


def split_term(term: str) -> tuple[str, str]:
    """(registry, what to look for), by the rule for references."""
    if "://" in term:
        raise InvalidArgument("invalid repository name: repository name (" + term[:100] + ") should not have a scheme")
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return domain_of(first), rest
    return HUB_DOMAIN, term.removeprefix("library/")


def _stars(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidArgument(f"invalid filter 'stars=[{text[:50]}]'")
    return int(text)


def _flag(name: str, values: tuple[str, ...]) -> bool:
    text = values[0].lower()
    if text not in ("true", "false", "1", "0"):
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'")
    return text in ("true", "1")


__all__ = [
    "Credentials",
    "Distribution",
    "Sent",
    "Step",
    "Told",
    "domain_of",
    "inspect_distribution",
    "list_tags",
    "log_in",
    "parse_platform",
    "search",
    "split_term",
]
