"""What IPv4 and IPv6 differ in for the packet filter: offsets, lengths, types, names of sets. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

import msgspec

from tare.kernel import nftables as nft

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

R0 = 8  # the first 4-byte register


class Family(msgspec.Struct, frozen=True):
    """One of the two. source, destination: offsets in the header; length: an address's bytes."""

    version: int
    protocol: int
    source: int
    destination: int
    length: int
    kind: int
    suffix: str
    dnat: Callable[[int, int], bytes]

    @property
    def words(self) -> int:
        """How many 4-byte registers an address fills."""
        return self.length // 4

    @property
    def matches(self) -> tuple[bytes, bytes]:
        """Whether a packet is of this family."""
        return nft.load_meta(nft.META_NFPROTO), nft.equal(bytes((self.protocol,)))

    def type_of(self, *before: int, after: Sequence[int] = ()) -> nft.Type:
        """A key of several parts, an address among them."""
        parts = (*before, self.kind, *after)
        return nft.Type(parts, sum((nft.TYPE_LENGTHS[part] + 3) & ~3 for part in parts))

    def load(self, offset: int, register: int = 1) -> bytes:
        """An address of the header into a register."""
        return nft.load_network_header(offset, self.length, register)

    def source_in(self, subnet: Subnet) -> tuple[bytes, ...]:
        """Whether a packet comes from a subnet."""
        return (
            *self.matches,
            self.load(self.source),
            nft.mask(subnet.netmask.packed),
            nft.equal(subnet.network_address.packed),
        )

    def ranges(self, subnets: Iterable[Subnet]) -> list[nft.Element]:
        """Subnets as a set of one part keeps them: where each begins, and what comes first behind it."""
        found = []
        own = [subnet for subnet in subnets if subnet.version == self.version]
        for subnet in ipaddress.collapse_addresses(own):  # type: ignore[type-var]
            found.append(nft.Element(subnet.network_address.packed))
            behind = int(subnet.broadcast_address) + 1
            if behind < 1 << 8 * self.length:
                found.append(nft.Element(behind.to_bytes(self.length, "big"), closes=True))
        return found


IPV4 = Family(4, nft.NFPROTO_IPV4, 12, 16, 4, nft.TYPE_IP_ADDRESS, "", nft.dnat_ipv4)
IPV6 = Family(6, nft.NFPROTO_IPV6, 8, 24, 16, nft.TYPE_IP6_ADDRESS, "6", nft.dnat_ipv6)
FAMILIES = (IPV4, IPV6)
