"""The sockets that tared listens on: unix, TCP, and those that systemd hands over."""

from __future__ import annotations

import grp
import ipaddress
import os
import socket
import ssl
import stat

from tare.daemon.scoped_sockets import ScopedSocket, parse_socket
from tare.daemon.settings import DaemonSettings
from tare.errors import InvalidArgument, system_text

DEFAULT_PORT = 2375
DEFAULT_TLS_PORT = 2376
FIRST_PASSED_FD = 3
BACKLOG = 512


def open_listeners(settings: DaemonSettings) -> list[tuple[socket.socket, ssl.SSLContext | None]]:
    """All listening sockets, with the TLS context of those that need one. Raises InvalidArgument, OSError."""
    context = _tls_context(settings)
    opened: list[tuple[socket.socket, ssl.SSLContext | None]] = []
    try:
        for host in settings.hosts:
            scheme, separator, rest = host.partition("://")
            if not separator:
                scheme, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
            if scheme == "unix":
                opened.append((_unix(rest, settings.group), None))
            elif scheme == "tcp":
                opened.extend((sock, context) for sock in _tcp(rest, context))
            elif scheme == "fd":
                opened.extend((sock, None) for sock in _passed())
            else:
                raise InvalidArgument(f"invalid listening address {host!r}: use unix://, tcp:// or fd://")
    except BaseException:
        for sock, _ in opened:
            sock.close()
        raise
    return opened


def open_scoped(settings: DaemonSettings) -> list[tuple[socket.socket, ScopedSocket]]:
    """The sockets of `--socket`. Raises InvalidArgument."""
    opened: list[tuple[socket.socket, ScopedSocket]] = []
    try:
        for text in settings.sockets:
            scoped = parse_socket(text)
            opened.append((_unix(scoped.path, scoped.group), scoped))
    except BaseException:
        for sock, _ in opened:
            sock.close()
        raise
    return opened


def _unix(path: str, group: str) -> socket.socket:
    """A unix socket that is 0660 from its first moment on (CVE-2014-3499)."""
    _remove_stale(path)
    os.makedirs(os.path.dirname(path) or "/", mode=0o755, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o117)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise InvalidArgument(
            f"can't listen on unix://{path}: {system_text(error.errno) if error.errno else error}"
        ) from error
    finally:
        os.umask(old)
    try:
        os.chown(path, 0, grp.getgrnam(group).gr_gid)
    except (KeyError, PermissionError):
        pass  # no such group: the socket is its owner's alone
    sock.listen(BACKLOG)
    return sock


def _remove_stale(path: str) -> None:
    """Removes a socket that nobody listens on; raises InvalidArgument if somebody does, or if it isn't a socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise InvalidArgument(f"can't listen on unix://{path}: it exists and isn't a socket")
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except FileNotFoundError:
        pass
    else:
        raise InvalidArgument(f"can't listen on unix://{path}: another engine does")
    finally:
        probe.close()


def _tcp(address: str, context: ssl.SSLContext | None) -> list[socket.socket]:
    host, _, port_text = address.rpartition(":") if ":" in address else (address, "", "")
    host = host.strip("[]") or "127.0.0.1"
    try:
        port = int(port_text) if port_text else (DEFAULT_TLS_PORT if context else DEFAULT_PORT)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (ValueError, OSError) as error:
        raise InvalidArgument(f"invalid listening address tcp://{address}: {error}") from error
    sockets = []
    for family, kind, protocol, _, where in found:
        # whoever reaches the API is root on this machine (CVE-2025-9074)
        if context is None and not ipaddress.ip_address(where[0]).is_loopback:
            raise InvalidArgument(
                f"tcp://{address} without TLS would make everyone who reaches it root on this machine: "
                "use --tlsverify with certificates, or a loopback address"
            )
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(where)
        except OSError as error:
            sock.close()
            raise InvalidArgument(f"can't listen on tcp://{address}: {system_text(error.errno or 0)}") from error
        sock.listen(BACKLOG)
        sockets.append(sock)
    return sockets


def _passed() -> list[socket.socket]:
    """Sockets handed over by systemd (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise InvalidArgument("fd:// was asked for, but no sockets were handed over")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=fd) for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + count)]


def _tls_context(settings: DaemonSettings) -> ssl.SSLContext | None:
    if not (settings.tls or settings.tlsverify):
        return None
    if not settings.tlscert or not settings.tlskey:
        raise InvalidArgument("TLS needs --tlscert and --tlskey")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tlscert, settings.tlskey)
        if settings.tlsverify:
            if not settings.tlscacert:
                raise InvalidArgument("--tlsverify needs --tlscacert")
            context.load_verify_locations(settings.tlscacert)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"could not load TLS material: {error}") from error
    return context
