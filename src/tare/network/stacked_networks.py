"""Networks whose containers stand on a link of the host themselves: macvlan and ipvlan. Options, and the parent link.

It must never change a link that was there before: what is made here (a VLAN's link, one that leads nowhere) says so in
its alias, and only that is removed.

    parent eth0        is there          parent eth0.10     VLAN 10 of eth0, made if it isn't there
    no parent          dm-ID, which leads nowhere: containers reach each other only
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection

import msgspec

from tare import faults
from tare.errors import Forbidden, InvalidArgument, KernelError, Unavailable, Unsupported, system_text
from tare.kernel import netlink_route as route
from tare.kernel import netlink_stacked as stacked
from tare.kernel.netlink import Request
from tare.kernel.netlink_route import Link, RouteSocket
from tare.kernel.netns import Netns
from tare.network import bridge
from tare.network.records import MACVLAN, EndpointRecord, NetworkRecord

_VLAN = re.compile(r"(.+)\.(\d+)\Z")
_KINDS = ("dummy", "ifb")  # either leads nowhere; not every kernel has the first


def with_options(record: NetworkRecord) -> NetworkRecord:
    """The record with what its driver's options say. Unknown ones are kept and shown, as Docker does.

    Raises InvalidArgument with Docker's texts, and for options that would have no effect here.
    """
    driver = record.driver
    modes = stacked.MACVLAN_MODES if driver == MACVLAN else stacked.IPVLAN_MODES
    standard = "bridge" if driver == MACVLAN else "l2"
    mode = record.options.get(f"{driver}_mode") or standard
    if mode not in modes:
        raise InvalidArgument(
            f"requested {driver} mode '{mode}' is not valid, '{standard}' mode is the {driver} driver default"
        )
    flag = record.options.get("ipvlan_flag") or "bridge"
    if driver != MACVLAN and flag not in stacked.IPVLAN_FLAGS:
        raise InvalidArgument(
            f"requested ipvlan flag '{flag}' is not valid, 'bridge' mode is the ipvlan driver default"
        )
    for name in record.options:
        if name.startswith("tare.network."):
            raise InvalidArgument(
                f"network option {name} needs a bridge network: the host doesn't see {driver}'s packets"
            )
    parent = record.options.get("parent", "")
    if parent == "lo":
        raise InvalidArgument(f"loopback interface is not a valid {driver} parent link")
    if parent:
        bridge.check_name(parent)
    return msgspec.structs.replace(record, parent=parent, mode=mode, flag=flag)


def check_shared(record: NetworkRecord, networks: Collection[NetworkRecord]) -> None:
    """Raises Forbidden if other networks on the same parent leave no room for this one."""
    for other in networks:
        if not record.parent or other.parent != record.parent:
            continue
        if other.driver != record.driver or "passthru" in (other.mode, record.mode):
            raise Forbidden(
                f"network {other.name} ({other.driver}, {other.mode}) is already using parent interface {record.parent}"
            )


def check_kernel(sock: RouteSocket, driver: str) -> None:
    """Raises Unsupported where the kernel doesn't have such links."""
    if not stacked.has_kind(sock, driver):
        raise Unsupported(f"this kernel ({os.uname().release}) has no {driver} links")


def ensure_parent(sock: RouteSocket, record: NetworkRecord) -> Link:
    """The link that the network's containers stand on; made, if it is one that we may make."""
    name = record.parent_link
    link = sock.link(name)
    if link is not None:
        return link
    if not record.parent:
        _make_plain(sock, name, record.network_id)
    else:
        _make_vlan(sock, name, record.network_id)
    faults.point("network.parent.create")
    link = sock.link(name)
    if link is None:
        raise KernelError(errno.ENODEV, "RTM_GETLINK", name)
    return link


def _make_plain(sock: RouteSocket, name: str, network_id: str) -> None:
    for kind in _KINDS:
        try:
            sock.execute((stacked.new_plain(name, kind), *_marked(name, network_id)))
        except KernelError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        else:
            return
    raise Unsupported(f"this kernel ({os.uname().release}) has neither dummy nor ifb links: name a parent")


def _make_vlan(sock: RouteSocket, name: str, network_id: str) -> None:
    found = _VLAN.match(name)
    if found is None:
        raise InvalidArgument(f"invalid subinterface vlan name {name}, example formatting is eth0.10")
    below = sock.link(found[1])
    if below is None:
        raise InvalidArgument(f"-o parent interface was not found on the host: {found[1]}")
    number = int(found[2])
    if not 1 <= number <= 4094:
        raise InvalidArgument(f"vlan id must be between 1-4094, received: {number}")
    try:
        sock.execute((stacked.new_vlan(name, below.ifindex, number), *_marked(name, network_id)))
    except KernelError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise Unsupported(f"this kernel ({os.uname().release}) has no VLAN links (802.1Q)") from error


def _marked(name: str, network_id: str) -> tuple[Request, Request]:
    return route.set_identity(name, bridge.ALIAS + network_id), route.set_up(name)


def made_parent(sock: RouteSocket, record: NetworkRecord, networks: Collection[NetworkRecord]) -> str:
    """The parent link that goes with its network: one that we made, and no other network needs; or ""."""
    link = sock.link(record.parent_link)
    if link is None or not bridge.is_ours(link, record.network_id):
        return ""
    heir = next(
        (
            other
            for other in networks
            if other.parent_link == record.parent_link and other.network_id != record.network_id
        ),
        None,
    )
    if heir is not None:
        sock.execute((route.set_identity(link.name, bridge.ALIAS + heir.network_id),))
        return ""
    return link.name


def check_endpoint(record: EndpointRecord, asked_mac: str | None) -> None:
    """Raises InvalidArgument for what an endpoint without a link on the host can't have."""
    if record.rate is not None:
        raise InvalidArgument(f"a rate needs a bridge network, and {record.network} is {record.driver}")
    if asked_mac and record.driver != MACVLAN:
        raise InvalidArgument(f"{record.driver} interfaces do not support custom mac address assignment")


def connect(sock: RouteSocket, record: EndpointRecord, namespace: Netns, parent: Link, network: NetworkRecord) -> None:
    """An endpoint's link, made right inside its namespace; it has no address yet. Raises Unavailable, Unsupported."""
    fd = namespace.namespace_fd
    if record.driver == MACVLAN:
        new = stacked.new_macvlan(record.inside, parent.ifindex, network.mode, record.mac, network.mtu, fd)
    else:
        new = stacked.new_ipvlan(record.inside, parent.ifindex, network.mode, network.flag, network.mtu, fd)
    try:
        sock.execute((new,))
    except KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Unsupported(f"this kernel ({os.uname().release}) has no {record.driver} links") from error
        if error.errno in (errno.EBUSY, errno.EINVAL, errno.EADDRINUSE):
            why = system_text(error.errno).lower()
            raise Unavailable(f"failed to create the {record.driver} port on {parent.name}: {why}") from error
        raise


def is_there(sock: RouteSocket, record: EndpointRecord, namespace_fd: int) -> bool:
    """Whether an endpoint's link is in its namespace."""
    return stacked.link_inside(sock, record.inside, stacked.namespace_id(sock, namespace_fd)) is not None
