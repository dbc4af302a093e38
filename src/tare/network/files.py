"""The three files that a container gets from the engine: hosts, resolv.conf, hostname. Pure text.

It must never read the host's files itself: callers hand their text in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from tare.errors import InvalidArgument

HOST_GATEWAY = "host-gateway"
_DEFAULT_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
_LOCALHOST = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


def hostname_text(hostname: str) -> str:
    return hostname + "\n"


def parse_extra_host(text: str) -> tuple[str, str]:
    """`name:address` (the address may be IPv6, or `host-gateway`)."""
    name, colon, address = text.partition(":")
    if not colon or not name or not address:
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    address = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if address != HOST_GATEWAY:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from error
    return name, address


def hosts_text(
    ips: Sequence[str],
    hostname: str,
    domainname: str = "",
    extra_hosts: Sequence[str] = (),
    host_gateway: str = "",
    host_names: Sequence[str] = (),
    host_gateway6: str = "",
) -> str:
    """/etc/hosts: localhost, what the user added, and the container's own names for each of its addresses.

    host_names: what the host is called by its gateway's addresses, where the user didn't say it otherwise.
    """
    lines = list(_LOCALHOST)
    for text in extra_hosts:
        name, address = parse_extra_host(text)
        if address == HOST_GATEWAY:
            if not host_gateway:
                raise InvalidArgument("unable to derive the IP value for host-gateway")
            address = host_gateway
        lines.append(f"{address}\t{name}")
    lines += [own_line(ip, hostname, domainname) for ip in ips if ip]
    given = {parse_extra_host(text)[0] for text in extra_hosts}
    added = [name for name in host_names if name not in given]
    lines += [f"{address}\t{' '.join(added)}" for address in (host_gateway, host_gateway6) if added and address]
    return "\n".join(lines) + "\n"


def own_line(address: str, hostname: str, domainname: str = "") -> str:
    """The line of /etc/hosts with a container's own names."""
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    return f"{address}\t{names}"


def resolv_conf_text(
    host_text: str,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    *,
    shares_host_network: bool = False,
) -> str:
    """/etc/resolv.conf: the host's, with what the user gave in place of each kind of line.

    In a namespace of its own a container can't reach a resolver on the host's loopback, and has no IPv6: such lines
    are left out; if none is left, public resolvers stand in, as with Docker. A search list of "." means none.
    """
    if shares_host_network and not (dns or search or options):
        return host_text
    servers = list(dns)
    if not servers:
        servers = _values(host_text, "nameserver")
        if not shares_host_network:
            servers = [server for server in servers if _is_reachable(server)] or list(_DEFAULT_NAMESERVERS)
    domains = list(search) or _search(host_text)
    settings = list(options) or [word for line in _values(host_text, "options") for word in line.split()]
    lines = [f"nameserver {server}" for server in servers]
    if domains and domains != ["."]:
        lines.append("search " + " ".join(domains))
    if settings:
        lines.append("options " + " ".join(settings))
    return "".join(line + "\n" for line in lines)


def embedded_resolv_conf_text(
    host_text: str, address: str, search: Sequence[str] = (), options: Sequence[str] = ()
) -> str:
    """/etc/resolv.conf of a container whose names the engine serves at `address`.

    ndots:0, unless the user says otherwise: a container's name is asked for as it is first.
    """
    domains = list(search) or _search(host_text)
    settings = list(options) or [word for line in _values(host_text, "options") for word in line.split()]
    if not any(word.startswith("ndots:") for word in settings):
        settings.append("ndots:0")
    lines = [f"nameserver {address}"]
    if domains and domains != ["."]:
        lines.append("search " + " ".join(domains))
    lines.append("options " + " ".join(settings))
    return "".join(line + "\n" for line in lines)


def nameservers(text: str) -> list[str]:
    """The resolvers that a resolv.conf names."""
    return _values(text, "nameserver")


def _search(text: str) -> list[str]:
    """The last of search and domain wins (man 5 resolv.conf)."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in ("search", "domain"):
            found = words[1:]
    return found


def _values(text: str, keyword: str) -> list[str]:
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == keyword:
            found.append(words[1] if keyword == "nameserver" else " ".join(words[1:]))
    return found


def _is_reachable(server: str) -> bool:
    try:
        address = ipaddress.ip_address(server.partition("%")[0])
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback
