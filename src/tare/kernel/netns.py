"""Makes network namespaces that nobody is in yet, and opens the ways to configure them from outside.

Only for a process with one thread (the launcher): the caller itself moves there and back. It must never be called in
`tared`, which configures the namespace through the descriptors it gets.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from tare.kernel.namespaces import CLONE_NEWNET, open_namespace, setns, unshare, write_proc
from tare.kernel.netlink_route import RouteSocket, set_up_index

_LOOPBACK_INDEX = 1  # the kernel's first link of every namespace
_NO_IPV6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6"


class Netns(NamedTuple):
    """A network namespace: a descriptor of it, and one of an rtnetlink socket inside. Either keeps it alive."""

    namespace_fd: int
    rtnetlink_socket_fd: int

    def close(self) -> None:
        os.close(self.rtnetlink_socket_fd)
        os.close(self.namespace_fd)


def create(ipv6: bool = False) -> Netns:
    """A new namespace with its loopback up. Without `ipv6` links made in it later have none (CVE-2024-32473)."""
    home_fd = open_namespace("/proc/self/ns/net")
    try:
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
