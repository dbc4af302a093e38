"""The resolvers that this host uses, read from its resolv.conf again whenever that has changed."""

from __future__ import annotations

import ipaddress
import os

from tare.network.files import nameservers
from tare.network.uplink import HostUplink, Uplink


class HostResolvers:
    """Follows one resolv.conf. What it names on the host's loopback is asked through the uplink, if there is one."""

    def __init__(self, path: str, uplink: Uplink | None = None) -> None:
        self._path = path
        self._uplink = uplink or HostUplink()
        self._seen: tuple[int, int, int] | None = None
        self._servers: list[str] = []

    def read(self) -> list[str]:
        """The addresses of the host's resolvers; none if there is no such file."""
        try:
            status = os.stat(self._path)
        except OSError:
            return []
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            try:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    text = file.read(1 << 16)
            except OSError:
                return []
            found = [server for server in nameservers(text) if _is_address(server)]
            other = self._uplink.resolver
            self._servers = list(dict.fromkeys(other if other and _is_loopback(server) else server for server in found))
            self._seen = seen
        return self._servers


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return ipaddress.ip_address(text.partition("%")[0]).is_loopback
