"""Engine addresses (`unix:///run/tare/tare.sock`, `tcp://127.0.0.1:2375`) and connected sockets to them.

With TLS settings, a TCP address is never tried in the clear.
"""

from __future__ import annotations

import _socket
import os

from tare.client.errors import BadHost, CannotConnect

DEFAULT_ROOT_SOCKET = "/run/tare/tare.sock"
DEFAULT_TCP_PORT = 2375
DEFAULT_TLS_PORT = 2376


class TlsFiles:
    """Paths of PEM files, "" for none, and whether the engine's certificate is checked."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, ca: str, cert: str, key: str, verify: bool) -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify = verify


class Host:
    """One engine's address. `text` is what messages show. tls: how TCP is encrypted, None for not at all."""

    __slots__ = ("port", "target", "text", "tls", "unix")
    most_connections = 50  # at once, by one command

    def __init__(self, text: str, unix: bool, target: str, port: int = 0, tls: TlsFiles | None = None) -> None:
        self.text = text
        self.unix = unix
        self.target = target
        self.port = port
        self.tls = tls

    @property
    def http_name(self) -> str:
        """The Host header's value."""
        if self.unix:
            return "api.tare.localhost"
        name = f"[{self.target}]" if ":" in self.target else self.target
        return f"{name}:{self.port}"

    def connect(self, timeout_s: float | None = None) -> _socket.socket:
        """A connected stream socket, blocking unless `timeout_s` is given."""
        if self.unix:
            return self._connect(_socket.AF_UNIX, self.target, timeout_s)
        try:
            found = _socket.getaddrinfo(self.target, self.port, 0, _socket.SOCK_STREAM)
        except OSError as error:
            raise CannotConnect(self.text, error.errno or 0, error.strerror or str(error)) from error
        failure: CannotConnect | None = None
        for family, _kind, _proto, _name, address in found:
            try:
                connected = self._connect(family, address, timeout_s)
            except CannotConnect as error:
                failure = error
                continue
            connected.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            if self.tls is not None:
                from tare.client.tls import secure

                return secure(connected, self.text, self.target, self.tls)
            return connected
        raise failure or CannotConnect(self.text, 0, "no address found")

    def _connect(self, family: int, address: object, timeout_s: float | None) -> _socket.socket:
        plug = _socket.socket(family, _socket.SOCK_STREAM, 0)
        try:
            if timeout_s is not None:
                plug.settimeout(timeout_s)
            plug.connect(address)  # type: ignore[arg-type]
        except OSError as error:
            plug.close()
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise CannotConnect(self.text, error.errno or 0, reason) from error
        return plug


def default_host() -> Host:
    """Where `tared` listens when nobody said otherwise: a root-owned place for root; for others their own, or root's
    if they have none and may use that one."""
    path = DEFAULT_ROOT_SOCKET
    if os.geteuid() != 0:
        own = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}") + "/tare/tare.sock"
        if os.path.exists(own) or not os.access(path, os.R_OK | os.W_OK):
            path = own
    return Host(f"unix://{path}", True, path)


def parse_host(text: str, tls: TlsFiles | None = None) -> Host:
    """A Host from what -H, TARE_HOST or DOCKER_HOST says. tls: for TCP addresses."""
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise BadHost(f"unable to parse tare host `{text}`")
    if scheme == "unix":
        if not rest:
            raise BadHost(f"invalid host {text}: a unix socket needs a path")
        if len(rest.encode()) > 107:  # sun_path, man 7 unix
            raise BadHost(f"invalid host {text}: a unix socket's path can have 107 bytes at most")
        return Host(text, True, rest)
    if scheme in ("tcp", "http"):
        return _parse_tcp(text, rest, tls)
    if scheme == "ssh":
        from tare.client.ssh import parse_ssh_host

        return parse_ssh_host(text, rest)
    if scheme in ("https", "npipe", "fd"):
        raise BadHost(f"tare doesn't speak {scheme}:// ({text}); use unix://, ssh:// or tcp:// (with --tlsverify)")
    raise BadHost(f"unable to parse tare host `{text}`: unknown scheme {scheme}://")


def _parse_tcp(text: str, rest: str, tls: TlsFiles | None) -> Host:
    authority = rest.rstrip("/")
    if "/" in authority:
        raise BadHost(f"tare doesn't speak to a path below a host yet ({text})")
    name, port_text = authority, ""
    if authority.startswith("["):
        name, _, tail = authority[1:].partition("]")
        port_text = tail.removeprefix(":")
    elif ":" in authority:
        name, _, port_text = authority.rpartition(":")
    if port_text and not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
        raise BadHost(f"invalid host {text}: bad port {port_text!r}")
    port = int(port_text) if port_text else (DEFAULT_TLS_PORT if tls else DEFAULT_TCP_PORT)
    return Host(text, False, name or "localhost", port, tls)
