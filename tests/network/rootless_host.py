"""A host's ordinary user, with an engine's networks in namespaces that this user made: of rootless_world.

It starts as root to lay the machine out (a /dev/net/tun that is open to all, as udev has it), then is nobody for good,
forks the engine's side into a user namespace and a network namespace, and becomes the keeper of its uplink. Inputs are
lines `VERB ARGUMENT …`, each answered by one line: a JSON value, or "! " and an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import dnslib
import msgspec
from network_world import Engine, client_socket, inside, listen, make_netns, open_inside

from tare.errors import TareError
from tare.kernel import process
from tare.kernel.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, unshare, write_id_maps, write_proc
from tare.kernel.netlink_route import RouteSocket
from tare.kernel.nftables import NftablesSocket
from tare.network import dns_answers, dns_forward, rules
from tare.network.doors import Doors
from tare.network.name_server import RESOLVER_ADDRESS
from tare.network.records import Endpoint, EndpointRequest, NetworkRequest, NetworkSettings, PortRequest
from tare.network.uplink import KeptUplink
from tare.network.uplink_keeper import keep
from tare.values.ids import new_id

LOADED_BEFORE = (dns_answers, dns_forward)
"""What the room loads late: the user that this becomes may have no way there (a checkout below a 0700 directory)."""

NOBODY = 65534
PLACE = Path("/mnt")


def lay_out() -> None:
    """In a mount namespace of our own: a place to write, a tun device for all, a resolver on the host's loopback."""
    unshare(CLONE_NEWNS)
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "-o", f"mode=755,uid={NOBODY}", "none", str(PLACE))
    os.mknod(PLACE / "tun", 0o20666, os.makedev(10, 200))
    os.chmod(PLACE / "tun", 0o666)
    (PLACE / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    for name, there in (("tun", "/dev/net/tun"), ("resolv.conf", "/etc/resolv.conf")):
        mount("--bind", str(PLACE / name), there)
    for number, path in enumerate({Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2]}):
        closed = next((above for above in reversed(path.parents) if not above.stat().st_mode & 1), None)
        if closed is not None:
            show(path, closed, PLACE / f"shown{number}")


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, timeout=60)


def show(path: Path, closed: Path, aside: Path) -> None:
    """Lets everyone read a directory that is below one which only root may pass."""
    aside.mkdir()
    mount("--bind", str(path), str(aside))
    mount("-t", "tmpfs", "-o", "mode=755", "none", str(closed))
    path.mkdir(parents=True)
    mount("--bind", str(aside), str(path))


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    process.set_dumpable(True)  # else our /proc files would be root's


def tell(server: socket.socket, kind: int) -> None:
    """Tells everyone who calls by which address it sees them."""
    server.settimeout(None)
    while True:
        try:
            if kind == socket.SOCK_DGRAM:
                _data, seen = server.recvfrom(64)
                if seen is None:
                    return  # it was shut down
                server.sendto(str(seen[0]).encode(), seen)
                continue
            accepted, seen = server.accept()
        except OSError:
            return
        with accepted, contextlib.suppress(OSError):
            accepted.sendall(str(seen[0]).encode())
            accepted.shutdown(socket.SHUT_WR)
            accepted.settimeout(60)
            accepted.recv(64)  # what is left unread would turn the end into a reset


class Side:
    """The engine's side: its verbs are methods."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.boxes: dict[str, tuple[str, Endpoint]] = {}
        self.servers: dict[str, list[socket.socket]] = {}
        self.crashed = False
        self.held_fds: list[int] = []

    async def attach(self, name: str, network: str, *ports: str) -> str:
        """A container; ports: PROTOCOL/HOST_IP/HOST_PORT/LAST/PORT. Its address."""
        asked = []
        for text in ports:
            protocol, host_ip, first, last, own = text.split("/")
            asked.append(PortRequest(int(own), protocol, host_ip, int(first), int(last)))
        container_id = new_id()
        request = EndpointRequest(mode=network, container_name=name, names=(name,), ports=tuple(asked))
        endpoint = await self.engine.network.attach(container_id, request)
        self.boxes[name] = container_id, endpoint
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            server = listen(endpoint.namespace_fd, 80, kind)
            self.servers.setdefault(name, []).append(server)
            threading.Thread(target=tell, args=(server, kind), daemon=True).start()
        return endpoint.ip

    async def release(self, name: str) -> None:
        container_id, _ = self.boxes.pop(name)
        self.silence(name)
        await self.engine.network.release(container_id)
        await self.engine.network.wait_released()

    async def crash(self, *ended: str) -> None:
        """The engine is killed and started anew; namespaces, keeper and containers live on, but for some that end."""
        for name, (container_id, endpoint) in list(self.boxes.items()):
            if name in ended:
                self.boxes.pop(name)
                self.silence(name)
            elif endpoint.namespace_fd is not None:
                self.held_fds.append(os.dup(endpoint.namespace_fd))
                self.boxes[name] = container_id, msgspec.structs.replace(endpoint, namespace_fd=self.held_fds[-1])
        self.crashed = True

    def silence(self, name: str) -> None:
        """Ends a container's servers, as its end would: their sockets keep its namespace."""
        for server in self.servers.pop(name, []):
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # wakes the thread, of a datagram socket, too
            server.close()

    async def create(self, name: str) -> str:
        return (await self.engine.network.create(NetworkRequest(name=name))).subnet

    async def dial(self, name: str, protocol: str, address: str, port: str, patience_s: str = "20") -> str:
        """What a container is told at an address."""
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM

        def call() -> str:
            with client_socket(self.boxes[name][1].namespace_fd, kind, float(patience_s), address) as client:
                client.connect((address, int(port)))
                client.send(b"?")
                return client.recv(64).decode()

        return await asyncio.to_thread(call)

    async def hold(self, name: str, address: str, port: str) -> None:
        """A TCP connection that stays open."""
        with inside(fd) if (fd := self.boxes[name][1].namespace_fd) is not None else contextlib.nullcontext():
            self.held = socket.create_connection((address, int(port)), 20)

    async def say(self, text: str) -> None:
        """On the connection that was held open, which ends then."""
        with self.held:
            self.held.sendall(text.encode())

    async def lookup(self, name: str, wanted: str) -> list[str]:
        """What a container's server of names says."""

        def ask() -> list[str]:
            with client_socket(self.boxes[name][1].namespace_fd, socket.SOCK_DGRAM, 20) as client:
                client.sendto(dnslib.DNSRecord.question(wanted).pack(), (RESOLVER_ADDRESS, 53))
                return [str(row.rdata) for row in dnslib.DNSRecord.parse(client.recv(512)).rr]

        return await asyncio.to_thread(ask)

    async def warnings(self) -> list[str]:
        return self.engine.network.warnings()

    async def publish_many(self, count: str) -> None:
        """A transaction of that many elements, which maps nothing that anybody would ask for."""
        far, there = ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("172.30.0.250")
        ports = [rules.PublishedPort("tcp", far, 10000 + number, there, 80) for number in range(int(count))]
        with NftablesSocket() as nft:
            nft.commit(rules.publish(self.engine.settings.table, ports))
            nft.commit(rules.unpublish(self.engine.settings.table, ports))

    async def status(self) -> dict[str, object]:
        """Who we are for the host, and what links there are."""
        with RouteSocket() as sock:
            links = [link.name for link in sock.links()]
        maps = Path("/proc/self/uid_map").read_text().split()
        return {"uid_map": maps, "links": links, "elements": self.engine.published()}


def lives(connection: socket.socket, program: str) -> None:
    """One engine after the other, until the input ends."""
    settings = NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24")
    (PLACE / "engine").mkdir()
    before: Side | None = None
    while True:
        uplink = KeptUplink(connection.dup(), program)
        side = Side(Engine(PLACE / "engine", settings, Doors(make_netns, open_inside, uplink)))
        asyncio.run(life(side, uplink, before))
        if not side.crashed:
            return
        side.engine.crash()
        before = side


async def life(side: Side, uplink: KeptUplink, before: Side | None) -> None:
    network = side.engine.network
    await network.start()
    if before is not None:
        side.boxes, side.servers = before.boxes, before.servers
        await network.restore([container_id for container_id, _ in side.boxes.values()])
    print(json.dumps(uplink.program), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        verb, *arguments = line.split()
        try:
            answer = json.dumps(await getattr(side, verb)(*arguments))
        except (TareError, OSError) as error:
            answer = f"! {type(error).__name__}: {error}"
        if side.crashed:
            return  # the next one answers
        print(answer, flush=True)
    for name in list(side.boxes):
        side.silence(name)
    for fd in before.held_fds if before is not None else ():
        os.close(fd)
    await side.engine.__aexit__()


def main(program: str) -> None:
    lay_out()
    become_nobody()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made_fd, mapped_fd = (socket.socketpair() for _ in range(2))
    pid = os.fork()
    if pid == 0:
        theirs.close()
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        made_fd[1].send(b"1")
        mapped_fd[0].recv(1)
        with RouteSocket():
            pass
        lives(ours, program)
        sys.stdout.flush()
        os._exit(0)
    ours.close()
    made_fd[0].recv(1)
    write_proc(f"/proc/{pid}/setgroups", "deny")
    write_id_maps(pid, f"0 {NOBODY} 1", f"0 {NOBODY} 1")
    mapped_fd[1].send(b"1")
    null_fd = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null_fd, fd)  # the test waits for the engine's side to close them
    keep(theirs, PLACE / "uplink")
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1])
