"""Published ports by IPv6 where the packet filter can't lead: ::1, and containers without IPv6; by real connections."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from asyncio import to_thread as reach  # what connects must not hold up the relay, which is in the loop
from pathlib import Path

import pytest
from network_world import (
    DEADLINE_S,
    HOST_WAN,
    HOST_WAN6,
    OUTSIDE,
    OUTSIDE6,
    Engine,
    Outside,
    client_socket,
    is_reachable,
    is_silent,
    listen,
    talk,
    talk_udp,
)

from tare.errors import ResourceExhausted, Unsupported
from tare.network import relay_datagrams, relays
from tare.network.records import (
    AddressOptions,
    Endpoint,
    EndpointRequest,
    NetworkRequest,
    NetworkSettings,
    PortBinding,
    PortRequest,
)
from tare.values.ids import new_id

WEB = PortRequest(80, host_port=8080)
V6 = AddressOptions(subnet="fd00:7::/64")


async def join(engine: Engine, *ports: PortRequest) -> Endpoint:
    """A container on a network with IPv6."""
    if not any(network.name == "six" for network in engine.network.networks()):
        await engine.network.create(NetworkRequest(name="six", ipv6=True, addresses=(V6,)))
    return await engine.network.attach(new_id(), EndpointRequest(mode="six", container_name="box", ports=ports))


def test_a_container_without_ipv6_is_reached_by_ipv6(engine: Engine, outside: Outside) -> None:
    """At ::1, at the host's own address, and from outside; the container sees its bridge. By IPv4 all is as ever: no
    relay, the client's own address. Both bindings are shown, with one port, a port that the engine chose too."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(WEB, PortRequest(53, "udp"), PortRequest(90, "sctp", "", 9090))
            (port,) = {binding.host_port for binding in box.ports if binding.protocol == "udp"}
            assert box.ports == (
                PortBinding(80, "tcp", "0.0.0.0", 8080),
                PortBinding(80, "tcp", "::", 8080),
                PortBinding(53, "udp", "0.0.0.0", port),
                PortBinding(53, "udp", "::", port),
                PortBinding(90, "sctp", "0.0.0.0", 9090),
            )
            with listen(box.namespace_fd, 80) as server, listen(box.namespace_fd, 53, socket.SOCK_DGRAM) as names:
                for client, address in ((None, "::1"), (None, HOST_WAN6), (outside.namespace_fd, HOST_WAN6)):
                    assert await reach(talk, client, address, 8080, server) == box.gateway
                    assert await reach(talk_udp, client, address, port, names) == box.gateway
                assert await reach(talk, outside.namespace_fd, HOST_WAN, 8080, server) == OUTSIDE
            # The answers were from the address that was asked: the clients' sockets were connected.

    asyncio.run(scenario())


def test_the_hosts_loopback_leads_to_a_container_with_ipv6(engine: Engine, outside: Outside) -> None:
    """::1 by a relay, the host's other addresses by the packet filter: from outside the client is seen as it is."""

    async def scenario() -> None:
        async with engine:
            box = await join(engine, WEB, PortRequest(53, "udp", "", 5300))
            with (
                listen(box.namespace_fd, 80, address="::") as server,
                listen(box.namespace_fd, 53, socket.SOCK_DGRAM, "::") as names,
            ):
                assert await reach(talk, None, "::1", 8080, server) == box.record.gateway6
                assert await reach(talk_udp, None, "::1", 5300, names) == box.record.gateway6
                assert await reach(talk, outside.namespace_fd, HOST_WAN6, 8080, server) == OUTSIDE6
                assert await reach(talk, None, HOST_WAN6, 8080, server) == HOST_WAN6
                assert await reach(talk_udp, outside.namespace_fd, HOST_WAN6, 5300, names) == OUTSIDE6

    asyncio.run(scenario())


def test_one_ipv6_address_of_the_host(engine: Engine, outside: Outside) -> None:
    """-p [::1]:8080:80 is for the host alone, -p [2001:…]:8081:80 at that address alone: of a container without IPv6
    as of one with it."""

    async def scenario() -> None:
        async with engine:
            ports = (PortRequest(80, "tcp", "::1", 8080), PortRequest(80, "tcp", HOST_WAN6, 8081))
            for box in (await engine.attach(*ports), await join(engine)):
                if not box.ports:
                    engine.network.publish(box.record.container_id, ports)
                with listen(box.namespace_fd, 80, address="::" if box.record.ip6 else "0.0.0.0") as server:
                    assert await reach(talk, None, "::1", 8080, server)
                    assert await reach(talk, outside.namespace_fd, HOST_WAN6, 8081, server)
                    assert not await reach(is_reachable, outside.namespace_fd, HOST_WAN6, 8080)
                    assert not await reach(is_reachable, None, "::1", 8081)
                engine.network.unpublish(box.record.container_id, lambda _: True)
            with pytest.raises(Unsupported, match="sctp ports on an IPv6 address"):
                await engine.attach(PortRequest(80, "sctp", "::1", 8080))

    asyncio.run(scenario())


def test_a_port_of_ipv6_that_somebody_has_is_refused(engine: Engine) -> None:
    """As Docker does: by name of the address, and nothing of the container's is left. A host without IPv6 has none."""

    async def scenario() -> None:
        async with engine:
            with listen(None, 8080, address="::1"), pytest.raises(ResourceExhausted) as error:
                await engine.attach(WEB)
            assert str(error.value).endswith("listen tcp6 [::]:8080: bind: address already in use")
            assert engine.network.endpoints() == [] and engine.published() == 0
            with open("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "w", encoding="ascii") as file:
                file.write("1")
            box = await engine.attach(WEB)
            assert box.ports == (PortBinding(80, "tcp", "0.0.0.0", 8080),)

    asyncio.run(scenario())


def test_it_comes_and_goes_with_the_port(engine: Engine) -> None:
    """Unpublished, it is shut, while what is open goes on; the same port can be published at once, by another container
    too; who leaves takes its connections along; what a crash cut is taken up by the next engine."""

    async def scenario() -> None:
        async with engine:
            box, other = await engine.attach(WEB), await engine.attach()
            with listen(box.namespace_fd, 80) as server, listen(other.namespace_fd, 80) as second:
                with client_socket(None, to="::1") as client:
                    await reach(client.connect, ("::1", 8080))
                    accepted, _ = await reach(server.accept)
                    engine.network.unpublish(box.record.container_id, lambda _: True)
                    assert not await reach(is_reachable, None, "::1", 8080)
                    engine.network.publish(other.record.container_id, (WEB,))
                    assert await reach(talk, None, "::1", 8080, second)
                    accepted.sendall(b"still")
                    assert await reach(client.recv, 16) == b"still"
                    await engine.network.release(box.record.container_id)
                    with pytest.raises(ConnectionResetError):
                        await reach(client.recv, 16)
                    accepted.close()
                await engine.network.wait_released()
                engine.crash()
                assert not await reach(is_reachable, None, "::1", 8080)
                again = Engine(Path(engine.db.path).parent, engine.settings)
                engine.network, engine.db = again.network, again.db
                await engine.network.start()
                await engine.network.restore({other.record.container_id})
                assert await reach(talk, None, "::1", 8080, second)

    asyncio.run(scenario())


def test_each_direction_ends_by_itself(engine: Engine) -> None:
    """A client that has sent all, and says so, still gets its answer (half-close); a reset is passed on either way."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(WEB)
            with listen(box.namespace_fd, 80) as server:
                client, accepted = await pair(server)
                with client, accepted:
                    client.sendall(b"question")
                    client.shutdown(socket.SHUT_WR)
                    assert await reach(read_all, accepted) == b"question"
                    accepted.sendall(b"answer")
                    accepted.shutdown(socket.SHUT_WR)
                    assert await reach(read_all, client) == b"answer"
                for mine, theirs in ((0, 1), (1, 0)):
                    ends = await pair(server)
                    ends[mine].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
                    ends[mine].close()
                    with ends[theirs], pytest.raises(ConnectionResetError):
                        await reach(ends[theirs].recv, 16)
            with client_socket(None, to="::1") as client, pytest.raises(ConnectionResetError):  # nobody listens there
                await reach(client.connect, ("::1", 8080))
                await reach(client.recv, 16)

    asyncio.run(scenario())


async def pair(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = client_socket(None, to="::1")
    await reach(client.connect, ("::1", 8080))
    accepted, _ = await reach(server.accept)
    accepted.settimeout(DEADLINE_S)
    return client, accepted


def read_all(end: socket.socket) -> bytes:
    found = b""
    while data := end.recv(65_536):
        found += data
    return found


def test_who_does_not_read_holds_up_only_his_own(engine: Engine) -> None:
    """Back-pressure: a client that sends to a server which doesn't read is stopped, and tared keeps no more than a
    chunk; others pass meanwhile; once the server reads, all arrives in order."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(WEB)
            data = bytes(range(256)) * (64 << 10)
            with listen(box.namespace_fd, 80) as server:
                client, accepted = await pair(server)
                with client, accepted:
                    client.setblocking(False)
                    sent, stopped = 0, False
                    while not stopped:
                        await asyncio.sleep(0)
                        try:
                            sent += client.send(data[sent:])
                        except BlockingIOError:
                            stopped = await reach(is_full, client)
                    assert sent < len(data)
                    assert await reach(talk, None, "::1", 8080, server)
                    client.settimeout(DEADLINE_S)
                    rest = asyncio.create_task(reach(send_rest, client, data[sent:]))
                    assert await reach(read_all, accepted) == data
                    await rest

    asyncio.run(scenario())


def is_full(client: socket.socket) -> bool:
    """Whether nothing more can be sent for a while: the relay's loop has time to take it, if it wanted."""
    return not select.select([], [client], [], 0.3)[1]


def send_rest(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def test_more_than_the_bound_wait(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a port's connections wait in the kernel, and are served as others end."""
    monkeypatch.setattr(relays, "_MOST_OF_A_PORT", 2)

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(WEB)
            with listen(box.namespace_fd, 80) as server:
                pairs = [await pair(server) for _ in range(2)]
                with client_socket(None, to="::1") as third:
                    await reach(third.connect, ("::1", 8080))
                    server.settimeout(0.3)
                    with pytest.raises(TimeoutError):
                        await reach(server.accept)
                    for end in pairs[0]:
                        end.close()
                    server.settimeout(DEADLINE_S)
                    accepted, _ = await reach(server.accept)
                    accepted.close()
                for end in pairs[1]:
                    end.close()

    asyncio.run(scenario())


def test_only_allowed_addresses_are_passed_on(host: None, outside: Outside, tmp_path: Path) -> None:
    """--publish-allow holds for relays, too, over TCP and UDP; the host itself always may."""

    async def scenario(allow: str, reached: bool) -> None:
        settings = NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24", publish_allow=(allow,))
        path = tmp_path / str(reached)
        path.mkdir()
        async with Engine(path, settings) as engine:
            box = await engine.attach(WEB, PortRequest(53, "udp", "", 5300))
            with listen(box.namespace_fd, 80) as server, listen(box.namespace_fd, 53, socket.SOCK_DGRAM) as names:
                assert await reach(talk, None, "::1", 8080, server)
                assert await reach(talk, None, HOST_WAN6, 8080, server)
                if reached:
                    assert await reach(talk, outside.namespace_fd, HOST_WAN6, 8080, server)
                    assert await reach(talk_udp, outside.namespace_fd, HOST_WAN6, 5300, names)
                    return
                with client_socket(outside.namespace_fd, to=HOST_WAN6) as client, pytest.raises(ConnectionResetError):
                    await reach(client.connect, (HOST_WAN6, 8080))
                    await reach(client.recv, 16)
                with client_socket(outside.namespace_fd, socket.SOCK_DGRAM, to=HOST_WAN6) as client:
                    await reach(client.sendto, b"ping", (HOST_WAN6, 5300))
                    assert await reach(is_silent, names)

    asyncio.run(scenario("2001:db8:9::/64", False))
    asyncio.run(scenario("2001:db8:1::/64", True))


def test_an_internal_networks_containers_are_not_passed_on(engine: Engine) -> None:
    """There is no way out of an internal network, not by the bridge's addresses to another network's port, either."""

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(WEB)
            request = NetworkRequest(name="shut", ipv6=True, internal=True, addresses=(V6,))
            network = await engine.network.create(request)
            shut = await engine.network.attach(new_id(), EndpointRequest(mode="shut", container_name="shut"))
            assert network.gateway6 and shut.namespace_fd is not None
            with listen(box.namespace_fd, 80) as server, client_socket(shut.namespace_fd, to="::") as client:
                with pytest.raises(ConnectionResetError):
                    await reach(client.connect, (network.gateway6, 8080))
                    await reach(client.recv, 16)
                assert await reach(talk, None, "::1", 8080, server)

    asyncio.run(scenario())


def test_clients_of_datagrams_are_apart(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client gets its own answers; beyond the bound the one that was silent for longest is forgotten; a container
    that doesn't listen yet loses nothing that comes later."""
    monkeypatch.setattr(relay_datagrams, "_MOST_CLIENTS", 2)

    async def scenario() -> None:
        async with engine:
            box = await engine.attach(PortRequest(53, "udp", "", 5300))
            clients = [client_socket(None, socket.SOCK_DGRAM, to="::1") for _ in range(3)]
            for client in clients:
                client.connect(("::1", 5300))
            await reach(clients[0].send, b"too early")
            await asyncio.sleep(0)
            with listen(box.namespace_fd, 53, socket.SOCK_DGRAM) as names:
                seen = []
                for number, client in enumerate(clients):
                    await reach(client.send, str(number).encode())
                    data, peer = await reach(names.recvfrom, 16)
                    assert data == str(number).encode()
                    seen.append(peer)
                assert len(set(seen)) == 3
                for number in (1, 2, 0):
                    names.sendto(f"to {number}".encode(), seen[number])
                for number in (1, 2):
                    assert await reach(clients[number].recv, 16) == f"to {number}".encode()
                assert await reach(is_silent, clients[0])
            for client in clients:
                client.close()

    asyncio.run(scenario())
