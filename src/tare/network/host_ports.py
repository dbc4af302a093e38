"""The host's ports: found, and held by a bound socket each, so that nobody else on the host gets them meanwhile.

It must never listen itself: packets for a published port are rewritten before they reach a socket (network/rules.py),
and a listener would accept what isn't; those that can't be are relays.py's. Without the socket a host process could
take the port and wait in vain.
"""

from __future__ import annotations

import errno
import ipaddress
import resource
import socket
from collections.abc import Iterator

from tare import faults
from tare.errors import Internal, InvalidArgument, ResourceExhausted, Unsupported, system_text
from tare.network.records import PortBinding, PortRequest
from tare.network.uplink import Uplink

_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
_EPHEMERAL_DEFAULT = (32768, 60999)
_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_Key = tuple[str, str, int]
_SPARE_DESCRIPTORS = 4096
RELAYED = ("tcp", "udp")
"""The protocols of which connections can be passed on (relays.py)."""


class PortTaken(ResourceExhausted):
    """A port of the host that another container of this engine has."""

    def __init__(self, protocol: str, address: str, port: int) -> None:
        super().__init__(f"Bind for {_shown(address)}:{port} failed: port is already allocated")
        self.protocol, self.address, self.port = protocol, address, port


class HostPorts:
    """The ports that one engine holds on its host."""

    def __init__(self, default_address: str, uplink: Uplink) -> None:
        self._uplink = uplink
        self._default_address = default_address
        self._held: dict[_Key, socket.socket | None] = {}
        self._addresses: dict[tuple[str, bool, int], set[str]] = {}  # by protocol, IPv6 or not, port
        self._next_ephemeral = 0
        self._most = _most_ports()

    def reserve(self, requests: tuple[PortRequest, ...], *, ipv6: bool = False) -> tuple[PortBinding, ...]:
        """Holds a host port for each request; all or none. The error's text is the end of Docker's sentence.

        ipv6: whether the container has an IPv6 address that a host's could lead to; to one without, connections to
        the host's are passed on (relays.py).
        """
        bindings: list[PortBinding] = []
        try:
            for request in requests:
                bindings.extend(self._reserve_one(request, ipv6))
                faults.point("network.ports.reserve")
        except BaseException:
            self.release(tuple(bindings))
            raise
        return tuple(bindings)

    def hold(self, binding: PortBinding) -> None:
        """Holds a port again that an earlier process of this engine chose."""
        self._hold(binding.protocol, binding.host_ip, binding.host_port)

    def holder(self, binding: PortBinding) -> socket.socket | None:
        """The socket that holds a port; None if somebody else has it."""
        return self._held.get((binding.protocol, binding.host_ip, binding.host_port))

    def release(self, bindings: tuple[PortBinding, ...]) -> None:
        for binding in bindings:
            key = (binding.protocol, binding.host_ip, binding.host_port)
            if binding.host_port:
                self._uplink.unforward(*key)
            if key not in self._held:
                continue
            self._addresses[_without_address(*key)].discard(binding.host_ip)
            holder = self._held.pop(key)
            if holder is not None:
                holder.close()

    def close(self) -> None:
        for holder in self._held.values():
            if holder is not None:
                holder.close()
        self._held.clear()
        self._addresses.clear()

    def _reserve_one(self, request: PortRequest, ipv6: bool) -> list[PortBinding]:
        if request.protocol not in _KINDS:
            raise InvalidArgument(f"invalid proto: {request.protocol}")
        address = self._address(request, ipv6)
        wanted = [address, "::"] if request.both and (ipv6 or _has_ipv6()) else [address]
        candidates = self._candidates(request)
        failure: ResourceExhausted | None = None
        for port in candidates:
            held: list[PortBinding] = []
            try:
                for text in wanted:
                    try:
                        self._hold(request.protocol, text, port)
                    except Unsupported:
                        if held and not ipv6:
                            continue  # nobody asked for that one: an uplink may have none
                        raise
                    inside = self._uplink.inside(text)
                    held.append(PortBinding(request.container_port, request.protocol, text, port, inside))
            except ResourceExhausted as error:
                failure = failure or error
                self.release(tuple(held))
                continue
            return held
        raise failure or ResourceExhausted("all ports are allocated")

    def _address(self, request: PortRequest, ipv6: bool) -> str:
        address = request.host_ip or self._default_address
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError as error:
            raise InvalidArgument(f"invalid IP address: {address}") from error
        if parsed.version == 6 and not ipv6 and request.protocol not in RELAYED:
            raise Unsupported(
                f"publishing {request.protocol} ports on an IPv6 address ({address}) of a container without IPv6"
            )
        return str(parsed)

    def _candidates(self, request: PortRequest) -> Iterator[int]:
        if request.host_port:
            yield from range(request.host_port, max(request.host_port, request.host_port_last) + 1)
            return
        first, last = ephemeral_range()
        size = last - first + 1
        start = self._next_ephemeral % size
        for step in range(size):
            # Goes on from the last one: a port just given up may still have clients.
            self._next_ephemeral = start + step + 1
            yield first + (start + step) % size

    def _hold(self, protocol: str, address: str, port: int) -> None:
        if self._is_ours(protocol, address, port):
            raise PortTaken(protocol, address, port)
        if len(self._held) >= self._most:
            raise ResourceExhausted(
                f"{_shown(address)}:{port}: the engine holds {self._most} ports of the host and can't hold more, since "
                f"it may have {_most_descriptors()} open files (LimitNOFILE= in its unit, or ulimit -n)"
            )
        self._uplink.forward(protocol, address, port)
        try:
            self._held[protocol, address, port] = _bind(protocol, self._uplink.inside(address) or address, port)
        except BaseException:
            self._uplink.unforward(protocol, address, port)
            raise
        self._addresses.setdefault(_without_address(protocol, address, port), set()).add(address)

    def _is_ours(self, protocol: str, address: str, port: int) -> bool:
        return any(
            overlap(address, other) for other in self._addresses.get(_without_address(protocol, address, port), ())
        )


def _most_descriptors() -> int:
    """How many open files this process may have (man 2 getrlimit)."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _most_ports() -> int:
    """How many ports can be held, each by a descriptor: containers, their names and clients need some, too."""
    most = _most_descriptors()
    return most - min(most // 2, _SPARE_DESCRIPTORS)


def _without_address(protocol: str, address: str, port: int) -> tuple[str, bool, int]:
    return protocol, ":" in address, port


def overlap(one: str, other: str) -> bool:
    """Whether two addresses of a kind are the same, or one of them means all."""
    return one == other or one in ("0.0.0.0", "::") or other in ("0.0.0.0", "::")


def _shown(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def _bind(protocol: str, address: str, port: int) -> socket.socket | None:
    """A bound socket; None where the kernel has no such protocol (SCTP as a module that isn't there)."""
    kind, number = _KINDS[protocol]
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        holder = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise Internal(f"socket({protocol}): {system_text(error.errno or 0)}") from error
    try:
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            holder.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or protocol != "tcp":
                raise
            _bind_beside_dying(holder, address, port)
    except OSError as error:
        holder.close()
        why = system_text(error.errno or 0).lower()
        version = 6 if family == socket.AF_INET6 else 4
        raise ResourceExhausted(f"listen {protocol}{version} {_shown(address)}:{port}: bind: {why}") from error
    return holder


def _bind_beside_dying(holder: socket.socket, address: str, port: int) -> None:
    """Binds although closed connections of an earlier server are in TIME_WAIT, if nobody has the port now.

    SO_REUSEADDR alone would also share it with another socket that has the option and doesn't listen; a probe that
    listens finds that one out. The option is taken back, so that others who have it can't listen here (man 7 socket).
    """
    with socket.socket(holder.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        if holder.family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
        probe.listen(0)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((address, port))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _has_ipv6() -> bool:
    """Whether this host speaks IPv6 at all; Docker looks in the same way."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def ephemeral_range() -> tuple[int, int]:
    """The ports that this host hands out by itself."""
    try:
        with open(_EPHEMERAL, encoding="ascii") as file:
            first, last = file.read().split()
    except (OSError, ValueError):
        return _EPHEMERAL_DEFAULT
    return int(first), int(last)
