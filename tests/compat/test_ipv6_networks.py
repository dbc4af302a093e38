"""Networks with IPv6 as the official client sees them: on Tare and on Docker alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.engine import Engine


@pytest.fixture
def network(engine: Engine) -> Iterator[str]:
    """A network with a subnet of each kind."""
    name = engine.unique("net")
    subnets = ["--subnet", "10.241.77.0/24", "--subnet", "fd00:241:77::/64", "--gateway", "fd00:241:77::5"]
    engine.docker("network", "create", "--ipv6", *subnets, name)
    yield name
    engine.clean()
    engine.api.request("DELETE", f"/networks/{name}", check=False)


def test_addresses_are_told(engine: Engine, network: str) -> None:
    """inspect of network and container has both kinds of address; --ip6 is heeded; the container has what is told."""
    box = engine.start("--network", network, "--ip6", "fd00:241:77::abcd", "--name", engine.unique("box"))
    place: dict[str, Any] = engine.inspect(box)["NetworkSettings"]["Networks"][network]
    assert (place["GlobalIPv6Address"], place["GlobalIPv6PrefixLen"]) == ("fd00:241:77::abcd", 64)
    assert place["IPv6Gateway"] == "fd00:241:77::5" and place["IPAddress"] == "10.241.77.2"
    assert place["IPAMConfig"] == {"IPv6Address": "fd00:241:77::abcd"}
    found = engine.api.request("GET", f"/networks/{network}").json
    assert found["EnableIPv6"] is True
    assert [pool["Subnet"] for pool in found["IPAM"]["Config"]] == ["10.241.77.0/24", "fd00:241:77::/64"]
    assert found["Containers"][box]["IPv6Address"] == "fd00:241:77::abcd/64"
    assert "fd00:241:77::abcd/64" in engine.docker("exec", box, "ip", "-6", "addr", "show", "eth0").out
    assert "default via fd00:241:77::5" in engine.docker("exec", box, "ip", "-6", "route").out
    assert f"fd00:241:77::abcd\t{box[:12]}" in engine.docker("exec", box, "cat", "/etc/hosts").out


def test_containers_find_and_reach_each_other(engine: Engine, network: str) -> None:
    """By name over IPv6."""
    name = engine.unique("web")
    script = "while :; do echo here | nc -l -p 80; done"
    web = engine.start("--network", network, "--name", name, command=["sh", "-c", script])
    friend = engine.start("--network", network)
    address = engine.inspect(web)["NetworkSettings"]["Networks"][network]["GlobalIPv6Address"]
    assert address in engine.docker("exec", friend, "nslookup", "-type=aaaa", name, check=False).out
    assert engine.docker("exec", friend, "nc", "-w", "3", address, "80").out == "here\n"


@pytest.mark.parametrize(
    ("flags", "old", "newer"),
    [
        (
            ["--ip6", "fd00:241:78::1"],
            "does not belong to any of this network's subnets",
            "no configured subnet",  # 29: "contains IP address …", before "or ip-range contain the IP address …"
        ),
        (["--ip6", "junk"], "invalid IPv6 address: junk", "invalid IPv6 address: junk"),
    ],
)
def test_wrong_addresses_are_refused(engine: Engine, network: str, flags: list[str], old: str, newer: str) -> None:
    """An address outside or none at all: refused, at create or at start; in the words of Docker 29."""
    text = newer if engine.release > 20 else old
    refused = engine.docker("run", "--network", network, *flags, engine.image, "true", check=False)
    assert refused.code and (text in refused.err or "--ip6" in refused.err)
