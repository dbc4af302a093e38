"""Published ports that the packet filter can't lead to a container: connections taken by tared, and passed on.

    [::1]:8080          to any container                              the kernel takes no answer to ::1 from a bridge
    [::]:8080           to a container without IPv6                   addresses of one kind don't become the other's

It must never take what the packet filter leads itself, nor hold up the loop: each direction waits for its own reader
(back-pressure), one end's close is passed on as it is (half-close), and there are bounds for how many wait at once.
A container sees the bridge's own address as the client. While tared is down nothing is relayed; what was open is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
from collections.abc import Callable, Iterable

from tare.network.host_ports import RELAYED, HostPorts
from tare.network.records import EndpointRecord, PortBinding
from tare.network.relay_datagrams import DatagramRelay

_log = logging.getLogger(__name__)

Admits = Callable[[ipaddress.IPv6Address], bool]
"""Whether a client may reach published ports. Its address has a scope if it is link-local."""

_MOST_CONNECTIONS, _MOST_OF_A_PORT = 1024, 256
_ACCEPTS_AT_ONCE = 16
_CHUNK_BYTES = 65_536
_CONNECT_S = 10.0
_PAUSE_S = 1.0  # when descriptors or memory are short
_BACKLOG = 128
_RESET = struct.pack("=ii", 1, 0)  # struct linger: closing sends a reset (man 7 socket)


def target_of(record: EndpointRecord, binding: PortBinding) -> tuple[str, int] | None:
    """Where a relay leads from a port; None for one that needs none."""
    if binding.protocol not in RELAYED or not binding.host_port or ":" not in binding.host_ip:
        return None
    own = ipaddress.ip_address(binding.inside or binding.host_ip)
    if record.ip6 and not (own.is_unspecified or own.is_loopback):
        return None
    address = record.ip6 or record.ip
    return (address, binding.container_port) if address else None


class Relays:
    """All relays of one engine, on the sockets that hold its ports."""

    def __init__(self, host_ports: HostPorts, admits: Admits) -> None:
        self._host_ports = host_ports
        self._admits = admits
        self._relays: dict[PortBinding, StreamRelay | DatagramRelay] = {}
        self._connections: dict[asyncio.Task[None], StreamRelay] = {}

    def open(self, record: EndpointRecord, bindings: Iterable[PortBinding]) -> None:
        """Begins to pass on what comes to an endpoint's ports, where that is needed."""
        for binding in bindings:
            target = target_of(record, binding)
            holder = self._host_ports.holder(binding) if target is not None else None
            if target is None or holder is None or binding in self._relays:
                continue
            if binding.protocol == "udp":
                self._relays[binding] = DatagramRelay(holder, target, self._admits)
            else:
                self._relays[binding] = StreamRelay(self, record.endpoint_id, holder, target)

    def close(self, bindings: Iterable[PortBinding]) -> None:
        """Takes no more from these ports, before their sockets are closed; connections that are open go on."""
        for binding in bindings:
            relay = self._relays.pop(binding, None)
            if relay is not None:
                relay.close()

    def drop(self, endpoint_id: str) -> None:
        """Cuts the connections of an endpoint that goes."""
        for task, relay in list(self._connections.items()):
            if relay.endpoint_id == endpoint_id:
                task.cancel()

    async def stop(self) -> None:
        """Closes all."""
        self.close(list(self._relays))
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ── for a port's relay ───────────────────────────────────────────────────────────────────────────────────────

    def admits(self, peer: tuple[str, int, int, int]) -> bool:
        return self._admits(address_of(peer))

    def has_room(self, relay: StreamRelay) -> bool:
        return len(self._connections) < _MOST_CONNECTIONS and relay.count < _MOST_OF_A_PORT

    def start(self, relay: StreamRelay, client: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(_pass_on(client, relay.target))
        self._connections[task] = relay
        relay.count += 1
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        relay = self._connections.pop(task)
        relay.count -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a relayed connection to %s failed", relay.target, exc_info=error)
        for other in self._relays.values():
            if isinstance(other, StreamRelay):
                other.resume()


class StreamRelay:
    """Takes connections from one TCP port."""

    def __init__(self, relays: Relays, endpoint_id: str, listener: socket.socket, target: tuple[str, int]) -> None:
        self.endpoint_id = endpoint_id
        self.target = target
        self.count = 0
        self._relays = relays
        self._listener = listener
        self._reading = False
        self._closed = False
        listener.setblocking(False)
        # Listening asks for the port once more: what is left of an earlier relay's connections must not count, and then
        # nobody else may share it again.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.listen(_BACKLOG)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self.resume()

    def close(self) -> None:
        self._closed = True
        self._pause()

    def resume(self) -> None:
        """Takes connections again, if there is room."""
        if not (self._reading or self._closed) and self._relays.has_room(self):
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)
            self._reading = True

    def _pause(self) -> None:
        if self._reading:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._reading = False

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            if not self._relays.has_room(self):
                self._pause()
                return
            try:
                client, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # it has left already
            except OSError as error:
                _log.warning("no connection can be taken for %s: %s", self.target, error.strerror)
                self._pause()
                asyncio.get_running_loop().call_later(_PAUSE_S, self.resume)
                return
            if not self._relays.admits(peer):
                _reset(client)
                continue
            # What is left of it must not keep the port from being published again (man 7 socket, SO_REUSEADDR).
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._relays.start(self, client)


def address_of(peer: tuple[str, int, int, int]) -> ipaddress.IPv6Address:
    """A client's address, with its scope's number if it is of one link."""
    text, scope = peer[0].partition("%")[0], peer[3]
    return ipaddress.IPv6Address(f"{text}%{scope}" if scope else text)


async def _pass_on(client: socket.socket, target: tuple[str, int]) -> None:
    """One connection, until both ends are done or one is lost; then the other is, too."""
    client.setblocking(False)
    server = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_STREAM)
    server.setblocking(False)
    try:
        for end in (client, server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(_CONNECT_S):
            await asyncio.get_running_loop().sock_connect(server, target)
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(client, server))
            both.create_task(_copy(server, client))
    except BaseException as error:
        _reset(client, server)
        if not _is_lost(error):
            raise
    finally:
        client.close()
        server.close()


def _is_lost(error: BaseException) -> bool:
    """Whether an error says no more than that an end of a connection is gone, or can't be reached."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_lost(part) for part in error.exceptions)
    return isinstance(error, OSError)


async def _copy(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK_BYTES):
        await loop.sock_sendall(sink, data)
    sink.shutdown(socket.SHUT_WR)


def _reset(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.close()
