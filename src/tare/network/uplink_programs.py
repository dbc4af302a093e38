"""The programs that carry an unprivileged namespace's packets: how each is started, and how ports are added to it.

It must never choose a port, or start one by itself: that is the keeper's part.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from tare.errors import Unavailable, system_text

LINK = "uplink0"
ADDRESS, GATEWAY, RESOLVER, PREFIX = "10.0.2.100", "10.0.2.2", "10.0.2.3", 24
_API_S = 5.0


class Port(NamedTuple):
    """A port of the host."""

    protocol: str
    host_ip: str
    number: int

    def has_number_of(self, other: Port) -> bool:
        """Whether they differ in their addresses only."""
        return (self.protocol, self.number) == (other.protocol, other.number)

    def __str__(self) -> str:
        return f"{self.protocol} port {f'[{self.host_ip}]' if ':' in self.host_ip else self.host_ip}:{self.number}"


class Start(NamedTuple):
    """What a program is started with. pid: whose namespaces it connects. ready_path: a FIFO, or the path of a
    descriptor that it inherits, ready_fd; written to then. At the end of what alive_fd reads the program ends. usage:
    what it prints of its options, if it varies."""

    pid: int
    ready_fd: int
    ready_path: Path
    alive_fd: int
    directory: Path
    ports: tuple[Port, ...]
    usage: str


class Program(Protocol):
    """One kind. live: ports come and go while it runs; else it is started anew for them, and connections break.

    keeps_loopback: what comes to the host's loopback arrives at the namespace's loopback, not at ADDRESS.
    inherits: it keeps the descriptors that it is started with; else it knows paths only.
    varies: its options differ from release to release.
    """

    name: str
    live: bool
    keeps_loopback: bool
    inherits: bool
    varies: bool

    def arguments(self, start: Start) -> list[str]: ...

    def refusal(self, port: Port) -> str:
        """Why it can't take such a port; "" if it can."""

    def add(self, port: Port) -> None:
        """Raises Unavailable."""

    def remove(self, port: Port) -> None: ...


class Slirp:
    """slirp4netns 1.2: a TCP/IP stack of its own (libslirp) between the tap and sockets; ports by its API socket.

    IPv4 only: its IPv6 is experimental, and the API has none.
    """

    name = "slirp4netns"
    live = True
    keeps_loopback = False
    inherits = True
    varies = False

    def __init__(self) -> None:
        self._api = ""
        self._ids: dict[Port, int] = {}

    def arguments(self, start: Start) -> list[str]:
        self._api = str(start.directory / "slirp4netns.sock")
        self._ids.clear()
        Path(self._api).unlink(missing_ok=True)
        return [
            self.name,
            "--configure",
            "--mtu=65520",
            f"--cidr={GATEWAY.rpartition('.')[0]}.0/{PREFIX}",
            "--disable-host-loopback",  # no container reaches what listens on the host's 127.0.0.1 (CVE-2020-8558)
            "--enable-sandbox",
            "--enable-seccomp",
            f"--api-socket={self._api}",
            f"--ready-fd={start.ready_fd}",
            f"--exit-fd={start.alive_fd}",
            str(start.pid),  # by paths it would not find its sandbox (1.2.0)
            LINK,
        ]

    def refusal(self, port: Port) -> str:
        if port.protocol not in ("tcp", "udp"):
            return f"publishing {port.protocol} ports through slirp4netns"
        return "publishing on an IPv6 address through slirp4netns" if ":" in port.host_ip else ""

    def add(self, port: Port) -> None:
        answer = self._call(
            "add_hostfwd",
            proto=port.protocol,
            host_addr=port.host_ip,
            host_port=port.number,
            guest_addr=ADDRESS,
            guest_port=port.number,
        )
        self._ids[port] = int(str(answer["id"]))

    def remove(self, port: Port) -> None:
        if port in self._ids:
            self._call("remove_hostfwd", id=self._ids.pop(port))

    def _call(self, verb: str, **arguments: str | int) -> dict[str, object]:
        """One request of its API (slirp4netns(1), "API SOCKET"): each has a connection of its own."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as api:
                api.settimeout(_API_S)
                api.connect(self._api)
                api.sendall(json.dumps({"execute": verb, "arguments": arguments}).encode())
                api.shutdown(socket.SHUT_WR)
                answer = json.loads(b"".join(iter(lambda: api.recv(4096), b"")))
        except (OSError, ValueError) as error:
            raise Unavailable(f"slirp4netns {verb}: {error}") from error
        if "return" not in answer:
            raise Unavailable(f"slirp4netns {verb}: {answer.get('error', {}).get('desc', answer)}")
        return dict(answer["return"])


class Pasta:
    """pasta (passt), 2023 to 2026: translates between the tap and sockets without a stack; ports are fixed at start.

    It knows a port by its number alone: not at several addresses, nor at IPv4 and IPv6 by different rules.
    """

    name = "pasta"
    live = False
    keeps_loopback = True
    inherits = False  # since 2024 it closes them first of all
    varies = True

    def arguments(self, start: Start) -> list[str]:
        return [
            self.name,
            "--foreground",
            "--quiet",
            # The first is what newer ones do by themselves, and the second is what the older ones do.
            *(option for option in ("--stderr", "--host-lo-to-ns-lo") if option in start.usage),
            "--config-net",
            f"--ns-ifname={LINK}",
            f"--address={ADDRESS}",
            f"--netmask={PREFIX}",
            f"--gateway={GATEWAY}",
            "--no-map-gw",  # no container reaches what listens on the host's 127.0.0.1 (CVE-2020-8558)
            f"--dns-forward={RESOLVER}",
            "--tcp-ns=none",
            "--udp-ns=none",
            *(f"--{kind}-ports={text}" for kind in ("tcp", "udp") for text in _specified(kind, start.ports)),
            f"--pid={start.ready_path}",
            str(start.pid),
        ]

    def refusal(self, port: Port) -> str:
        if port.protocol not in ("tcp", "udp"):
            return f"publishing {port.protocol} ports through pasta"
        return "publishing on an IPv6 address through pasta" if ":" in port.host_ip else ""

    def add(self, port: Port) -> None:
        pass

    def remove(self, port: Port) -> None:
        pass


def _specified(protocol: str, ports: Iterable[Port]) -> list[str]:
    """What ports are for pasta's options: an address stands before all that have it."""
    found: dict[str, list[str]] = {}
    for port in ports:
        if port.protocol == protocol:
            found.setdefault(port.host_ip, []).append(str(port.number))
    return [f"{address}/{','.join(numbers)}" for address, numbers in found.items()] or ["none"]


PROGRAMS: dict[str, Callable[[], Program]] = {"slirp4netns": Slirp, "pasta": Pasta}
"""In the order of preference; ADR 16 has the reasons."""


def bind_error(port: Port) -> OSError | None:
    """Why this host wouldn't let us have a port; None if it would."""
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    with socket.socket(family, kind | socket.SOCK_CLOEXEC) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port.protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections are in nobody's way
        try:
            probe.bind((port.host_ip, port.number))
            if port.protocol == "tcp":
                probe.listen(0)
        except OSError as error:
            return error
    return None


def refused_text(port: Port, error: OSError) -> str:
    """Docker's words for a port that can't be had, without the sentence around them."""
    shown = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    version = 6 if ":" in port.host_ip else 4
    return f"listen {port.protocol}{version} {shown}:{port.number}: bind: {system_text(error.errno or 0).lower()}"
