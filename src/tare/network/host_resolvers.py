"""The resolvers that this host uses, read from its resolv.conf again whenever that has changed."""

from __future__ import annotations

import ipaddress
import os

from tare.network.files import nameservers


class HostResolvers:
    """Follows one resolv.conf."""

    def __init__(self, path: str) -> None:
        self._path = path
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
            self._servers = [server for server in nameservers(text) if _is_address(server)]
            self._seen = seen
        return self._servers


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
