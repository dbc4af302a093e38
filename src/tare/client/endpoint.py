"""Which engine is meant: flags, environment and contexts, in the order of Docker's command line.

    --host (not with --context) · --context · TARE_HOST · DOCKER_HOST · DOCKER_CONTEXT · currentContext of config.json

The first that is set wins. TLS settings (`--tls…`, DOCKER_TLS, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH) belong to addresses
that come from flags or the environment; a context brings its own. Decides only; connects to nothing.
"""

from __future__ import annotations

import os

from tare.client.config_file import config_directory
from tare.client.errors import BadHost
from tare.client.host import DEFAULT_TLS_PORT, Host, TlsFiles, parse_host

DEFAULT_CONTEXT = "default"


class TlsWish:
    """What the user said about TLS; None: nothing. The environment and Docker's default files fill the rest."""

    __slots__ = ("ca", "cert", "key", "tls", "verify")

    def __init__(
        self,
        tls: bool | None = None,
        verify: bool | None = None,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
    ) -> None:
        self.tls = tls
        self.verify = verify
        self.ca = ca
        self.cert = cert
        self.key = key

    def resolve(self) -> TlsFiles | None:
        """The files to use, or None for no TLS. --tlsverify, given as true or false, switches TLS on."""
        verify = self.verify if self.verify is not None else bool(os.environ.get("DOCKER_TLS_VERIFY"))
        on = self.tls if self.tls is not None else bool(os.environ.get("DOCKER_TLS"))
        if not (on or verify or self.verify is not None):
            return None
        folder = os.environ.get("DOCKER_CERT_PATH") or config_directory()
        ca = self.ca if self.ca is not None else os.path.join(folder, "ca.pem")
        cert = self.cert if self.cert is not None else _if_there(os.path.join(folder, "cert.pem"))
        key = self.key if self.key is not None else _if_there(os.path.join(folder, "key.pem"))
        return TlsFiles(ca, cert, key, verify)


def _if_there(path: str) -> str:
    return path if os.path.exists(path) else ""


def context_name(host: str | None, context: str | None) -> str:
    """The name of the context that is in force; "default" for the address that flags and environment name."""
    if context:
        return context
    if host or os.environ.get("TARE_HOST") or os.environ.get("DOCKER_HOST"):
        return DEFAULT_CONTEXT
    chosen = os.environ.get("DOCKER_CONTEXT")
    if chosen:
        return chosen
    if not os.path.exists(os.path.join(config_directory(), "config.json")):
        return DEFAULT_CONTEXT
    from tare.client.config_file import read_config

    current = read_config().get("currentContext")
    return current if isinstance(current, str) and current else DEFAULT_CONTEXT


def choose_endpoint(host: str | None = None, context: str | None = None, tls: TlsWish | None = None) -> Host | None:
    """The engine that is meant, or None if nobody said anything. Raises BadHost."""
    if host and context:
        raise BadHost("conflicting options: cannot specify both --host and --context")
    name = context_name(host, context)
    if name != DEFAULT_CONTEXT:
        from tare.client.contexts import endpoint_of

        return endpoint_of(name)
    text = host or os.environ.get("TARE_HOST") or os.environ.get("DOCKER_HOST")
    files = (tls or TlsWish()).resolve()
    if not text:
        return parse_host(f"tcp://localhost:{DEFAULT_TLS_PORT}", files) if files else None
    return parse_host(text, files)
