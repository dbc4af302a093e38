"""What the registry room is told and hands out, and the failures of its own. No I/O."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tare.errors import NotFound, TareError, Unauthorized

HUB_DOMAIN = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"
"""How Docker's clients name the hub among credentials."""


class RegistryFailure(TareError):
    """A registry can't be reached, or says something that it must not; Docker answers 500 for it, and so do we."""


class Interrupted(RegistryFailure):
    """The connection broke in the middle: the same request may work now."""


class Cancelled(RegistryFailure):
    """Nobody wants the answer any more."""


class NotThere(NotFound):
    """The registry doesn't have it. code: the registry's, such as MANIFEST_UNKNOWN."""

    def __init__(self, text: str, code: str = "") -> None:
        self.code = code
        super().__init__(text)


class NotAllowed(Unauthorized):
    """The registry wants other credentials, or none would do. code: the registry's."""

    def __init__(self, text: str, code: str = "") -> None:
        self.code = code
        super().__init__(text)


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. identity_token: a refresh token got at login; registry_token: a bearer token as it is."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    @property
    def empty(self) -> bool:
        return not (self.username or self.password or self.identity_token or self.registry_token)

    def __repr__(self) -> str:
        return f"<Credentials of {self.username or 'nobody'}>"  # no password ever comes into a log


NOBODY = Credentials()


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is told of registries.

    certs_root: directory with one for each registry: *.crt authorities, *.cert and *.key of the client.
    insecure: registries and networks (CIDR) where TLS isn't checked, or absent. mirrors: of Docker Hub.
    """

    certs_root: Path = Path("/etc/docker/certs.d")
    insecure: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    max_downloads: int = 3
    max_uploads: int = 5
    max_attempts: int = 5
