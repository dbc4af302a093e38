"""Port specifications: what the Docker CLI takes and how it prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tare.cli.containers import format_ports
from tare.values.ports import PROTOCOL_NUMBERS, PortError, parse_exposed_port, parse_port_spec


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("80", [(80, "tcp", "", "")]),
        ("80/UDP", [(80, "udp", "", "")]),
        ("8080:80", [(80, "tcp", "", "8080")]),
        (":80", [(80, "tcp", "", "")]),
        ("0:80", [(80, "tcp", "", "0")]),
        ("127.0.0.1::80", [(80, "tcp", "127.0.0.1", "")]),
        ("127.0.0.1:8080-8081:80-81/tcp", [(80 + i, "tcp", "127.0.0.1", str(8080 + i)) for i in (0, 1)]),
        ("8000-8010:80", [(80, "tcp", "", "8000-8010")]),
        ("80-81", [(80, "tcp", "", ""), (81, "tcp", "", "")]),
        ("[::1]:80:81/sctp", [(81, "sctp", "::1", "80")]),
        ("::1:80:81", [(81, "tcp", "::1", "80")]),
        ("published=8080,target=80,protocol=udp", [(80, "udp", "", "8080")]),
        ("target=80", [(80, "tcp", "", "")]),
    ],
)
def test_port_spec(text: str, specs: list[tuple[int, str, str, str]]) -> None:
    """Each form of -p."""
    assert parse_port_spec(text) == specs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("abc", "invalid containerPort: abc"),
        ("80/foo", "invalid proto: foo"),
        ("70000", "invalid containerPort: 70000"),
        ("81-80", "invalid containerPort: 81-80"),
        (" 80", "invalid containerPort:  80"),
        ("x:80", "invalid hostPort: x"),
        ("-1:80", "invalid hostPort: -1"),
        ("1.2.3.4:80", "invalid hostPort: 1.2.3.4"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("localhost:80:80", "invalid IP address: localhost"),
        ("80:", "no port specified: 80:<empty>"),
        ("", "no port specified: <empty>"),
        ("published=80", "no port specified: 80:/tcp<empty>"),
        ("80-81:80-83", "invalid ranges specified for container and host Ports: 80-83 and 80-81"),
        ("published=80,x", "invalid publish opts format (should be name=value but got 'x')"),
    ],
)
def test_bad_port_spec(text: str, said: str) -> None:
    """Docker's words for each mistake (checked against its CLI 28.2)."""
    with pytest.raises(PortError) as caught:
        parse_port_spec(text)
    assert str(caught.value) == said


def test_exposed_ports() -> None:
    """EXPOSE and --expose take ranges."""
    assert parse_exposed_port("80-81/udp") == [(80, "udp"), (81, "udp")]
    with pytest.raises(PortError, match="invalid syntax"):
        parse_exposed_port("x")


def listed(number: int, protocol: str = "tcp", address: str = "", host: int = 0) -> dict[str, object]:
    """A port as the API lists it."""
    published = {"IP": address, "PublicPort": host} if host else {}
    return {"PrivatePort": number, "Type": protocol, **published}


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ([listed(80)], "80/tcp"),
        ([listed(80, "tcp", "0.0.0.0", 8080)], "0.0.0.0:8080->80/tcp"),
        ([listed(80, "tcp", "::", 8080)], "[::]:8080->80/tcp"),
        ([listed(n) for n in (82, 80, 81, 90)], "80-82/tcp, 90/tcp"),
        ([listed(n, "tcp", "0.0.0.0", n) for n in (80, 81)], "0.0.0.0:80-81->80-81/tcp"),
        ([listed(53, "udp"), listed(53), listed(54, "udp")], "53/tcp, 53-54/udp"),
        ([listed(80, "tcp", "0.0.0.0", 8080), listed(443)], "443/tcp, 0.0.0.0:8080->80/tcp"),
        ([], ""),
    ],
)
def test_ports_column(ports: list[dict[str, object]], said: str) -> None:
    """The PORTS column merges neighbours."""
    assert format_ports(ports) == said


@given(st.text(alphabet="0123456789:-/.[]=,abctdpu ", max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """Nothing but PortError comes out of a bad specification."""
    try:
        specs = parse_port_spec(text)
    except PortError:
        return
    assert all(0 <= port <= 65535 and protocol in PROTOCOL_NUMBERS for port, protocol, _, _ in specs)
