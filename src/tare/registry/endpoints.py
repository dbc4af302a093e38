"""Where a registry is reached: mirrors, insecure registries, loopback addresses; and what its TLS is checked against.

Must never leave TLS unchecked for an address that nobody called insecure and that isn't this machine's own.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tare.errors import InvalidArgument
from tare.registry.records import HUB_DOMAIN, RegistryFailure, RegistrySettings

HUB_URL = "https://registry-1.docker.io"
_LOOPBACK = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128"))


class Endpoint(NamedTuple):
    """url: scheme and host. domain: the registry as users name it. checked: whether its certificate is."""

    url: str
    domain: str
    checked: bool = True
    mirror: bool = False


def endpoints(domain: str, settings: RegistrySettings, *, mirrors: bool = False) -> list[Endpoint]:
    """The places to try for a registry, best first. mirrors: also those, for pulling."""
    found = [_mirror(url, settings) for text in settings.mirrors if (url := mirror_of(text, domain))] if mirrors else []
    if domain == HUB_DOMAIN:
        return [*found, Endpoint(HUB_URL, domain)]
    if is_secure(domain, settings):
        return [*found, Endpoint(f"https://{domain}", domain)]
    return [
        *found,
        Endpoint(f"https://{domain}", domain, checked=False),
        Endpoint(f"http://{domain}", domain, checked=False),
    ]


def mirror_of(text: str, domain: str) -> str:
    """The address of a mirror if it is one of this registry's: `URL` mirrors the hub, `REGISTRY=URL` that one."""
    registry, equals, url = text.partition("=")
    if not equals or "://" in registry:
        registry, url = HUB_DOMAIN, text
    return url if registry == domain else ""


def _mirror(text: str, settings: RegistrySettings) -> Endpoint:
    domain = urlsplit(text).netloc
    return Endpoint(text.rstrip("/"), domain, checked=is_secure(domain, settings), mirror=True)


def check_mirror(text: str) -> None:
    """Raises InvalidArgument, with Docker's texts, for what is no mirror's address."""
    registry, equals, url = text.partition("=")
    if equals and "://" not in registry:
        check_insecure(registry)  # what a registry's name looks like
        text = url
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https"):
        raise InvalidArgument(f'invalid mirror: unsupported scheme "{parts.scheme}" in "{text}"')
    if not parts.netloc or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise InvalidArgument(f'invalid mirror: path, query, or fragment at end of the URI "{text}"')
    if parts.username is not None:
        raise InvalidArgument(f'invalid mirror: username/password not allowed in URI "{parts.scheme}://xxxxx@…"')


def check_insecure(text: str) -> None:
    """Raises InvalidArgument for what is neither a registry's name nor a network."""
    if "://" in text:
        raise InvalidArgument(f"insecure registry {text} should not contain '://'")
    if not text or text.startswith("-") or any(letter.isspace() for letter in text):
        raise InvalidArgument(f"insecure registry {text!r} is not valid")


def is_secure(domain: str, settings: RegistrySettings) -> bool:
    """Whether a registry's certificate is checked. One that has an authority of its own here always is."""
    if (directory := certificates(domain, settings)) is not None and any(directory.glob("*.crt")):
        return True
    if domain in settings.insecure or host_of(domain) in settings.insecure:
        return False
    networks = [*_LOOPBACK, *(network for text in settings.insecure if (network := _network(text)) is not None)]
    found = _addresses(host_of(domain))
    # All of them: else who answers for the name would lift the check by adding 127.0.0.1.
    return not found or not all(any(address in network for network in networks) for address in found)


def host_of(domain: str) -> str:
    """A domain without its port and brackets."""
    return urlsplit(f"//{domain}").hostname or domain


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    if host == "localhost":  # need not be in /etc/hosts (RFC 6761, 6.3)
        return [ipaddress.ip_address("127.0.0.1")]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def certificates(domain: str, settings: RegistrySettings) -> Path | None:
    """The directory with a registry's certificates, if there is one."""
    if "/" in domain or domain.startswith("."):
        return None
    directory = settings.certs_root / domain
    return directory if directory.is_dir() else None


def tls_context(domain: str, settings: RegistrySettings, *, checked: bool) -> ssl.SSLContext:
    """How TLS is spoken with a registry. Raises RegistryFailure for files that are no certificates."""
    context = ssl.create_default_context()
    if not checked:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    directory = certificates(domain, settings)
    if directory is None:
        return context
    for file in sorted(directory.iterdir()):
        try:
            if file.suffix == ".crt":
                context.load_verify_locations(file)
            elif file.suffix == ".cert":
                key = file.with_suffix(".key")
                if not key.exists():
                    raise RegistryFailure(
                        f"missing key {key.name} for client certificate {file.name}. CA certificates must use the"
                        " extension .crt"
                    )
                context.load_cert_chain(file, key)
        except (OSError, ssl.SSLError) as error:
            raise RegistryFailure(f"could not load X509 key pair from {file}: {error}") from error
    return context
