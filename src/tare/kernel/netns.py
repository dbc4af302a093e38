"""Makes network namespaces that nobody is in yet, and opens the ways to configure them from outside.

Only for a process with one thread (the launcher): the caller itself moves there and back. It must never be called in
`tared`, which configures the namespace through the descriptors it gets.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from tare.kernel.namespaces import CLONE_NEWNET, make_user_namespace, open_namespace, setns, unshare, write_proc
from tare.kernel.netlink_route import RouteSocket, set_up_index
from tare.kernel.nftables import NftablesSocket

_LOOPBACK_INDEX = 1  # the kernel's first link of every namespace
_NO_IPV6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6"
_NO_ROUTERS = "/proc/sys/net/ipv6/conf/default/accept_ra"


class Netns(NamedTuple):
    """A network namespace: a descriptor of it, and one of an rtnetlink socket inside. Either keeps it alive."""

    namespace_fd: int
    rtnetlink_socket_fd: int

    def close(self) -> None:
        os.close(self.rtnetlink_socket_fd)
        os.close(self.namespace_fd)


def create(ipv6: bool = False, uid_map: str = "", gid_map: str = "") -> Netns:
    """A new namespace with its loopback up. Without `ipv6` links made in it later have none (CVE-2024-32473).

    uid_map, gid_map: of a user namespace that is made to own it; "" for ours.
    """
    home_fd = open_namespace("/proc/self/ns/net")
    try:
        if uid_map:
            user_fd, net_fd = make_user_namespace(uid_map, gid_map, network=True)
            os.close(user_fd)
            try:
                setns(net_fd, CLONE_NEWNET, about="network namespace")
            finally:
                os.close(net_fd)
        else:
            unshare(CLONE_NEWNET)
        try:
            return _open(ipv6)
        finally:
            setns(home_fd, CLONE_NEWNET, about="/proc/self/ns/net")
    finally:
        os.close(home_fd)


def _open(ipv6: bool) -> Netns:
    namespace_fd = open_namespace("/proc/self/ns/net")
    try:
        route = RouteSocket()
        try:
            route.execute((set_up_index(_LOOPBACK_INDEX),))
            if not ipv6:
                _switch_ipv6_off()
        except BaseException:
            route.close()
            raise
    except BaseException:
        os.close(namespace_fd)
        raise
    return Netns(namespace_fd, route.detach())


def _switch_ipv6_off() -> None:
    if os.path.exists(_NO_IPV6):  # absent on a kernel without IPv6
        write_proc(_NO_IPV6, "1")


def open_inside(namespace_fd: int, resolver_address: str = "", ipv6: bool = False) -> list[int]:
    """Descriptors opened inside a namespace: an rtnetlink socket, and with `resolver_address` three more.

    ipv6: links that are made in it from now on have IPv6, without listening to routers (CVE-2020-13401).

    Those are a netfilter socket, and a UDP and a listening TCP socket bound to that address at ports that are free:
    port 53 would be taken from a container that serves names itself (0.0.0.0:53).
    """
    home_fd = open_namespace("/proc/self/ns/net")
    try:
        setns(namespace_fd, CLONE_NEWNET, about="a container's network namespace")
        try:
            if ipv6:
                write_proc(_NO_ROUTERS, "0")
                write_proc(_NO_IPV6, "0")
            return _open_sockets(resolver_address)
        finally:
            setns(home_fd, CLONE_NEWNET, about="/proc/self/ns/net")
    finally:
        os.close(home_fd)


def _open_sockets(resolver_address: str) -> list[int]:
    fds: list[int] = []
    try:
        fds.append(RouteSocket().detach())
        if resolver_address:
            fds.append(NftablesSocket().detach())
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
                fds.append(sock.detach())
                with socket.socket(fileno=os.dup(fds[-1])) as same:
                    same.bind((resolver_address, 0))
                    if kind == socket.SOCK_STREAM:
                        same.listen(64)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return fds
