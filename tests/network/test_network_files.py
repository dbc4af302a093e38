"""hosts, resolv.conf and hostname as Docker writes them."""

from __future__ import annotations

import pytest

from tare.errors import InvalidArgument
from tare.network.files import hostname_text, hosts_text, resolv_conf_text

LOCALHOST = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def test_hosts() -> None:
    """localhost first, then what the user added, then the container itself with its domain."""
    text = hosts_text(
        ["172.17.0.2"], "box", "example.com", ["db:10.0.0.5", "up:host-gateway", "six:fd00::1"], "172.17.0.1"
    )
    assert text == LOCALHOST + ("10.0.0.5\tdb\n172.17.0.1\tup\nfd00::1\tsix\n172.17.0.2\tbox.example.com box\n")
    assert hosts_text([], "box") == LOCALHOST


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("db", 'bad format for add-host: "db"'),
        ("db:x", 'invalid IP address in add-host: "x"'),
        ("db:host-gateway", "unable to derive the IP value for host-gateway"),
    ],
)
def test_bad_extra_host(text: str, said: str) -> None:
    """Docker's words for a bad --add-host."""
    with pytest.raises(InvalidArgument, match=said):
        hosts_text(["172.17.0.2"], "box", "", [text])


HOST = "# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver fd00::1\nsearch a.example b.example\n"
HOST += "options edns0\n"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "nameserver 10.0.0.1\nsearch a.example b.example\noptions edns0\n"),
        ({"shares_host_network": True}, HOST),
        (
            {"dns": ["1.1.1.1"], "shares_host_network": True},
            "nameserver 1.1.1.1\nsearch a.example b.example\noptions edns0\n",
        ),
        ({"dns": ["127.0.0.1"], "search": ["."]}, "nameserver 127.0.0.1\noptions edns0\n"),
        ({"search": ["x", "y"], "options": ["ndots:2"]}, "nameserver 10.0.0.1\nsearch x y\noptions ndots:2\n"),
    ],
)
def test_resolv_conf(given: dict[str, object], text: str) -> None:
    """Loopback and IPv6 resolvers of the host are left out; the user's lines replace the host's kind by kind."""
    assert resolv_conf_text(HOST, **given) == text  # type: ignore[arg-type]


def test_resolv_conf_without_a_usable_resolver() -> None:
    """Public resolvers stand in where the host has none that a container can reach."""
    assert resolv_conf_text("nameserver 127.0.0.1\n") == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_hostname() -> None:
    """One line."""
    assert hostname_text("box") == "box\n"


def test_the_host_has_its_names_at_all_its_addresses() -> None:
    """Both gateways' addresses, unless the user gave a name another address."""
    text = hosts_text(
        ["172.17.0.2", "fd00::2"],
        "box",
        extra_hosts=["host.docker.internal:192.0.2.9"],
        host_gateway="172.17.0.1",
        host_gateway6="fd00::1",
        host_names=("host.docker.internal", "host.tare.internal"),
    )
    lines = text.splitlines()
    assert lines[-2:] == ["172.17.0.1\thost.tare.internal", "fd00::1\thost.tare.internal"]
    assert "192.0.2.9\thost.docker.internal" in lines
