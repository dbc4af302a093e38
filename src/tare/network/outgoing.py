"""How fast and how late what leaves a container may be, held back on the host: nothing in it can take that away.

It must never be in the way of who has no rate. The packets that come out of a container's link are turned into a link
of the kernel's kind ifb, named for the endpoint, whose queue lets them go on where they were (man 8 tc-mirred):

    container ─ ve… ─ ingress: all to vr… ─ token bucket, delay ─ back to ve… ─ guard, bridge
"""

from __future__ import annotations

import errno

from tare import faults
from tare.errors import KernelError
from tare.kernel import netlink_route as route
from tare.kernel import netlink_traffic as traffic
from tare.kernel.netlink_route import RouteSocket
from tare.kernel.netlink_stacked import new_plain
from tare.network import rates
from tare.network.records import EndpointRecord
from tare.values.ids import is_id

_PREFIX = "vr"
_ABSENT = (errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT)
WARNING = (
    "this kernel can't hold back on the host what containers send (ifb, u32, mirred): rates stand in the containers, "
    "where CAP_NET_ADMIN can take them away"
)


def link_of(record: EndpointRecord) -> str:
    """The link that an endpoint's packets wait at."""
    return _PREFIX + record.endpoint_id[:12]


def limit(sock: RouteSocket, record: EndpointRecord, port: int) -> bool:
    """Holds back what comes out of an endpoint's link `port`, as its record says; may be repeated.

    False, and nothing is changed, where the kernel can't.
    """
    if record.rate is None:
        return False
    name = link_of(record)
    try:
        link = sock.link(name)
        if link is None:
            alias = f"{record.network_id} {record.container_id}"
            sock.execute((new_plain(name, "ifb"), route.set_identity(name, alias)))
            faults.point("network.rate.link")
            link = sock.link(name)
            if link is None:
                raise KernelError(errno.ENODEV, "RTM_GETLINK", name)
        sock.execute(
            (
                *rates.requests(link.ifindex, record.rate, had=False),
                route.set_up(name),
                traffic.delete_ingress(port),
                traffic.new_ingress(port),
                traffic.redirect_ingress(port, link.ifindex),
            )
        )
    except KernelError as error:
        if error.errno not in _ABSENT:
            raise
        sock.execute((traffic.delete_ingress(port), route.delete_link(name)))
        return False
    return True


def is_whole(sock: RouteSocket, record: EndpointRecord) -> bool:
    """Whether the link that an endpoint's packets wait at is there, or isn't needed."""
    return record.rate is None or record.is_stacked or sock.link(link_of(record)) is not None


def strays(sock: RouteSocket, networks: frozenset[str], live: frozenset[str]) -> list[str]:
    """The links of that kind of containers that don't live any more. networks: ids of this engine's."""
    found = []
    for link in sock.links():
        network, _, container = link.alias.partition(" ")
        if link.kind == "ifb" and is_id(container) and network in networks and container not in live:
            found.append(link.name)
    return found
