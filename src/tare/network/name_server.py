"""The server of names in one container's network namespace, at 127.0.0.11 port 53.

    the container's program → 127.0.0.11:53 → (the namespace's own packet filter) → a port of 127.0.0.11 that tared has

It must never enter the namespace: the launcher opened the sockets there. They keep the namespace alive: close them when
the container ends. The port is not 53 itself, since a container may serve names on 0.0.0.0:53.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import Any

from tare import faults
from tare.kernel import nftables as nft
from tare.network.names import HOST_NAMES, ContainerNames

RESOLVER_ADDRESS = "127.0.0.11"
_PORT = (53).to_bytes(2, "big")
_TABLE = "tare_names"
_OUTPUT = nft.Chain("output", "nat", "output", -100)
_DESTINATION = 16  # offset in the IPv4 header
_MOST_QUESTIONS = 128  # at a time
_MOST_PER_SECOND = 2000
_MOST_STREAMS = 32
_IDLE_S = 10.0
_SERVFAIL, _REFUSED = 2, 5


class NameServer:
    """Takes over the descriptors that `tare.kernel.netns.open_inside` made, in its order."""

    def __init__(self, fds: list[int], names: ContainerNames) -> None:
        route_fd, self._filter_fd, udp_fd, tcp_fd = fds
        os.close(route_fd)
        self._udp = socket.socket(fileno=udp_fd)
        self._tcp = socket.socket(fileno=tcp_fd)
        self._names = names
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._streams: set[asyncio.StreamWriter] = set()
        self._second = self._count = 0

    async def start(self) -> None:
        """Begins to answer. On failure everything is closed."""
        try:
            self._redirect()
            faults.point("network.names.redirected")
            loop = asyncio.get_running_loop()
            self._udp.setblocking(False)
            self._tcp.setblocking(False)
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Questions(self), sock=self._udp)
            self._server = await asyncio.start_server(self._serve_stream, sock=self._tcp)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in list(self._streams):
            writer.transport.abort()
        if self._transport is not None:
            self._transport.abort()
        if self._server is not None:
            self._server.close()
        self._udp.close()
        self._tcp.close()

    def _redirect(self) -> None:
        """Leads port 53 of the address to the sockets' ports; replaces what an earlier process of this engine left."""
        transaction = nft.Transaction(_TABLE)
        transaction.replace_table()
        transaction.add_chain(_OUTPUT)
        for protocol, sock in ((socket.IPPROTO_UDP, self._udp), (socket.IPPROTO_TCP, self._tcp)):
            address, port = sock.getsockname()
            transaction.add_rule(
                nft.Rule(
                    _OUTPUT.name,
                    (
                        nft.load_meta(nft.META_NFPROTO),
                        nft.equal(bytes((nft.NFPROTO_IPV4,))),
                        nft.load_network_header(_DESTINATION, 4),
                        nft.equal(socket.inet_aton(address)),
                        nft.load_meta(nft.META_L4PROTO),
                        nft.equal(bytes((protocol,))),
                        nft.load_transport_header(2, 2),
                        nft.equal(_PORT),
                        nft.load_value(socket.inet_aton(address), 1),
                        nft.load_value(port.to_bytes(2, "big"), 2),
                        nft.dnat_ipv4(1, 2),
                    ),
                    "the engine's server of names",
                )
            )
        filter_socket = nft.NftablesSocket(self._filter_fd)
        try:
            filter_socket.commit(transaction)
        finally:
            filter_socket.close()

    def question(self, message: bytes, sender: tuple[str, int]) -> None:
        """A datagram has come."""
        if len(self._tasks) >= _MOST_QUESTIONS or self._is_flood():
            return  # it would keep the engine busy. Who asks in earnest asks again
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._answer_datagram(message, sender), name="network-name")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_flood(self) -> bool:
        """Counts one more question; whether there were too many within this second."""
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count > _MOST_PER_SECOND

    async def _answer_datagram(self, message: bytes, sender: tuple[str, int]) -> None:
        found = await self._answer(message, stream=False)
        if found is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(found, sender)

    async def _answer(self, message: bytes, *, stream: bool) -> bytes | None:
        from tare.network import dns_answers, dns_forward  # late: dnslib is for who has networks of their own only

        try:
            found = dns_answers.answer(message, self._names, stream=stream)
        except dns_answers.Ask:
            name = dns_answers.question_name(message)
            if not self._names.may_ask(name):
                return dns_answers.refuse(message, _REFUSED)
            found = await dns_forward.ask(message, self._names.servers(), stream=stream)
            if found is None:
                return dns_answers.refuse(message, _SERVFAIL)
            self._names.learn(name, *dns_answers.addresses_in(found))
            return found
        if found is not None and (name := dns_answers.question_name(message)) in HOST_NAMES:
            self._names.learn(name, *dns_answers.addresses_in(found))
        return found

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._streams) >= _MOST_STREAMS:
            writer.transport.abort()
            return
        self._streams.add(writer)
        try:
            while True:
                (size,) = struct.unpack(">H", await asyncio.wait_for(reader.readexactly(2), _IDLE_S))
                message = await asyncio.wait_for(reader.readexactly(size), _IDLE_S)
                while self._is_flood():
                    await asyncio.sleep(1 - asyncio.get_running_loop().time() % 1)
                found = await self._answer(message, stream=True)
                if found is None:
                    return
                writer.write(struct.pack(">H", len(found)) + found)
                await asyncio.wait_for(writer.drain(), _IDLE_S)
        except (OSError, EOFError, TimeoutError):
            pass  # the asker is gone
        finally:
            self._streams.discard(writer)
            writer.transport.abort()


class _Questions(asyncio.DatagramProtocol):
    """Datagrams for a server of names."""

    def __init__(self, server: NameServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.question(data, addr)
