"""Image references as the user types them, by the grammar of the distribution specification. Pure.

    reference = [domain "/"] path [":" tag] ["@" digest]

The familiar form leaves out `docker.io/` and `library/`; the canonical form has everything.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tare.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"
MAX_NAME_LENGTH = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}\Z")
_ID = re.compile(r"[0-9a-f]{64}\Z")


class Reference(NamedTuple):
    """A parsed reference. tag and digest are None where the user gave none."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def repository(self) -> str:
        """The familiar name without tag and digest: `me/base`, `registry.local:5000/x`."""
        if self.domain != DEFAULT_DOMAIN:
            return f"{self.domain}/{self.path}"
        return self.path.removeprefix(OFFICIAL_PREFIX)

    @property
    def familiar(self) -> str:
        """The shortest form that a user reads: `me/base:latest`."""
        return self.repository + self._suffix()

    @property
    def canonical(self) -> str:
        """The whole form: `docker.io/library/busybox:latest`."""
        return f"{self.domain}/{self.path}{self._suffix()}"

    def with_default_tag(self) -> Reference:
        """This reference, tagged `latest` if it has neither tag nor digest."""
        if self.tag is None and self.digest is None:
            return self._replace(tag=DEFAULT_TAG)
        return self

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """text as a Reference. Raises InvalidArgument with Docker's texts."""
    if _ID.match(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    rest, at, digest = text.partition("@")
    domain, rest = _split_domain(rest)
    path, colon, tag = rest.rpartition(":") if ":" in rest else (rest, "", "")
    if (at and not _DIGEST.match(digest)) or (colon and not _TAG.match(tag)):
        raise InvalidArgument("invalid reference format")
    if not _PATH.match(path):
        if path != path.lower() and _PATH.match(path.lower()):
            raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
        raise InvalidArgument("invalid reference format")
    if not _DOMAIN.match(domain):
        raise InvalidArgument("invalid reference format")
    if len(domain) + 1 + len(path) > MAX_NAME_LENGTH:
        raise InvalidArgument(f"repository name must not be more than {MAX_NAME_LENGTH} characters")
    return Reference(domain, path, tag or None, digest or None)


def _split_domain(name: str) -> tuple[str, str]:
    """(domain, the rest), by Docker's rule: the first part is a domain if it has a dot, a colon or is localhost."""
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, rest = DEFAULT_DOMAIN, name
    else:
        domain = first
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and rest and "/" not in rest:
        rest = OFFICIAL_PREFIX + rest
    return domain, rest
