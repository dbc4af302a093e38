"""Datagrams to a published port that tared passes on: each client has a socket of its own towards the container.

It must never answer from another address than the one that the client sent to (RFC 3542, section 6.2), and must never
grow with clients that strangers make up: the one that has been silent for longest makes room.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable

_MOST_CLIENTS = 256
_IDLE_S = 120.0  # the kernel's own patience with a stream of datagrams (nf_conntrack_udp_timeout_stream)
_READS_AT_ONCE = 32
_MOST_BYTES = 65_535
_PKTINFO = struct.Struct("=16sI")  # struct in6_pktinfo: address, link's number

_Peer = tuple[str, int, int, int]
_Key = tuple[_Peer, bytes]


class _Client:
    """One client's socket towards the container. to: in6_pktinfo, where it sent to."""

    def __init__(self, peer: _Peer, to: bytes, sock: socket.socket, now: float) -> None:
        self.peer, self.to, self.sock, self.heard = peer, to, sock, now


class DatagramRelay:
    """Passes on what comes to one UDP port, and the answers."""

    def __init__(
        self, holder: socket.socket, target: tuple[str, int], admits: Callable[[ipaddress.IPv6Address], bool]
    ) -> None:
        self._holder = holder
        self._target = target
        self._admits = admits
        self._clients: dict[_Key, _Client] = {}  # who was heard last stands last
        self._sweep: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        holder.setblocking(False)
        holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._loop.add_reader(holder.fileno(), self._read)

    def close(self) -> None:
        """Ends it; the port's socket stays open."""
        self._loop.remove_reader(self._holder.fileno())
        if self._sweep is not None:
            self._sweep.cancel()
        for key in list(self._clients):
            self._forget(key)

    def _read(self) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data, more, _flags, peer = self._holder.recvmsg(_MOST_BYTES, socket.CMSG_SPACE(_PKTINFO.size))
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an earlier answer came back as unreachable: that error is read, and gone
            to = next((part for level, kind, part in more if kind == socket.IPV6_PKTINFO), b"")
            client = self._client(peer, to)
            if client is not None:
                _send(client.sock, data)

    def _client(self, peer: _Peer, to: bytes) -> _Client | None:
        key = peer, to
        client = self._clients.pop(key, None)
        if client is None:
            scope = f"%{peer[3]}" if peer[3] else ""
            if not self._admits(ipaddress.IPv6Address(peer[0].partition("%")[0] + scope)):
                return None
            if len(self._clients) >= _MOST_CLIENTS:
                self._forget(next(iter(self._clients)))
            sock = self._connected()
            if sock is None:
                return None
            client = _Client(peer, to, sock, 0.0)
            self._loop.add_reader(sock.fileno(), self._answer, client)
        client.heard = self._loop.time()
        self._clients[key] = client
        if self._sweep is None:
            self._sweep = self._loop.call_later(_IDLE_S, self._forget_silent)
        return client

    def _connected(self) -> socket.socket | None:
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET, socket.SOCK_DGRAM)
        except OSError:
            return None
        sock.setblocking(False)
        try:
            sock.connect(self._target)
        except OSError:  # no way there
            sock.close()
            return None
        return sock

    def _answer(self, client: _Client) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data = client.sock.recv(_MOST_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return  # it refused: the client may try again
            client.heard = self._loop.time()
            own = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, client.to)] if client.to else []
            with contextlib.suppress(OSError):
                self._holder.sendmsg([data], own, 0, client.peer)

    def _forget(self, key: _Key) -> None:
        client = self._clients.pop(key)
        self._loop.remove_reader(client.sock.fileno())
        client.sock.close()

    def _forget_silent(self) -> None:
        now = self._loop.time()
        for key in [key for key, client in self._clients.items() if now - client.heard >= _IDLE_S]:
            self._forget(key)
        self._sweep = self._loop.call_later(_IDLE_S, self._forget_silent) if self._clients else None


def _send(sock: socket.socket, data: bytes) -> None:
    """Once more if an error of before was told instead (man 7 udp); a datagram may be lost."""
    for _ in range(2):
        try:
            sock.send(data)
        except ConnectionRefusedError:
            continue
        except OSError:
            return
        return
