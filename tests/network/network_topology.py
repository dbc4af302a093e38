"""Two hosts with an engine each, a router between them, and a client behind it: all of them network namespaces.

this thread's host  198.51.100.1 ─┐
the neighbour's        192.0.2.1 ─┼─ router (.254, ::fe)
a client             203.0.113.2 ─┘
"""

from __future__ import annotations

import ipaddress
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from network_world import DEADLINE_S, HOST_WAN, HOST_WAN6, inside

from tare.kernel import netlink_route as route
from tare.kernel import netns
from tare.kernel.namespaces import open_namespace, write_proc
from tare.kernel.netlink_route import RouteSocket

NEIGHBOUR, NEIGHBOUR6 = "192.0.2.1", "2001:db8:2::1"
CLIENT, CLIENT6 = "203.0.113.2", "2001:db8:3::2"


class Topology:
    """The whole of it. client_fd, neighbour_fd, router_fd: namespaces."""

    def __init__(self) -> None:
        self._home_fd = open_namespace("/proc/thread-self/ns/net")
        self._router, self._client, self._neighbour = (netns.create(ipv6=True) for _ in range(3))
        self.router_fd = self._router.namespace_fd
        self.client_fd = self._client.namespace_fd
        self.neighbour_fd = self._neighbour.namespace_fd
        with inside(self.router_fd):
            write_proc("/proc/sys/net/ipv4/ip_forward", "1")
            write_proc("/proc/sys/net/ipv6/conf/all/forwarding", "1")
        self._cable("host", self._home_fd, HOST_WAN, HOST_WAN6)
        self._cable("neighbour", self.neighbour_fd, NEIGHBOUR, NEIGHBOUR6)
        self._cable("client", self.client_fd, CLIENT, CLIENT6)

    def _cable(self, name: str, namespace_fd: int, address: str, address6: str) -> None:
        own = [f"{address}/24", f"{address6}/64"]
        routers = [address.rpartition(".")[0] + ".254", address6.rpartition(":")[0] + ":fe"]
        mac = f"02:00:00:00:00:{len(name):02x}"
        with inside(self.router_fd), RouteSocket() as sock:
            sock.execute((route.new_veth(name, 1500, route.VethPeer("wan0", mac, namespace_fd)),))
            _set_up(sock, name, [f"{routers[0]}/24", f"{routers[1]}/64"])
        with inside(namespace_fd), RouteSocket() as sock:
            _set_up(sock, "wan0", own)
            sock.execute([route.new_default_route(ipaddress.ip_address(text)) for text in routers])

    def router(self, *command: str) -> None:
        """Runs `ip` at the router."""
        with inside(self.router_fd):
            subprocess.run(["ip", *command], check=True, timeout=60)

    @contextmanager
    def neighbour(self, path: Path) -> Iterator[Neighbour]:
        """The neighbour's engine, up and with a container."""
        path.mkdir()
        script = Path(__file__).with_name("neighbour_host.py")
        process = subprocess.Popen(
            [sys.executable, str(script), str(self.neighbour_fd), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self.neighbour_fd,),
            text=True,
        )
        try:
            yield Neighbour(process)
        finally:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            assert process.wait(DEADLINE_S * 2) == 0
            process.stdout.close()

    def close(self) -> None:
        for made in (self._router, self._client, self._neighbour):
            made.close()
        os.close(self._home_fd)


class Neighbour:
    """The other host's process. container: its container's own address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        word, self.container = self._line().split()
        assert word == "ready"

    def dial(self, address: str, port: int) -> str:
        """What its container is told there: by which address it is seen; or an error's name."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"dial {address} {port}\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], DEADLINE_S * 2)
        assert ready, "the neighbour says nothing"
        return self._process.stdout.readline().strip()


def _set_up(sock: RouteSocket, name: str, addresses: list[str]) -> None:
    link = sock.link(name)
    assert link is not None
    sock.execute([route.new_address(link.ifindex, ipaddress.ip_interface(text)) for text in addresses])
    sock.execute((route.set_up(name),))
