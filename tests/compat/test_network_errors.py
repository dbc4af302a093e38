"""What networks of IPv4 refuse, and in which words: Docker 20.10's, or those of later versions where they differ.

Three columns: the request, Docker 20.10's status and text, and Tare's where it is another. Docker answered 500 to much
that is the caller's fault, which later versions call 400 or 403, as Tare does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from support.engine import Engine
from support.placeholders import fill

BRIDGE = "com.docker.network.bridge."


class Case(NamedTuple):
    """A refused request. newer: the text of Docker since the version that the case's comment names."""

    method: str
    path: str
    body: dict[str, Any] | None
    old: str
    newer: str = ""
    status: int = 400


def made(old: str, newer: str = "", status: int = 400, config: dict[str, Any] | None = None, **more: Any) -> Case:
    body: dict[str, Any] = {"Name": "tt-refused", "CheckDuplicate": True, **more}
    if config is not None:
        body["IPAM"] = {"Driver": "default", "Config": [config]}
    return Case("POST", "/networks/create", body, old, newer, status)


def joined(old: str, newer: str = "", status: int = 400, network: str = "{one}", **more: Any) -> Case:
    body = {"Container": "{other}", "EndpointConfig": {}, **more}
    return Case("POST", f"/networks/{network}/connect", body, old, newer, status)


def at(address: str) -> dict[str, Any]:
    return {"EndpointConfig": {"IPAMConfig": {"IPv4Address": address}}}


def left(old: str, status: int, network: str = "{two}", box: str = "{box}", newer: str = "") -> Case:
    return Case("POST", f"/networks/{network}/disconnect", {"Container": box}, old, newer, status)


CONFIG = "^invalid network config:\n"  # since 25, which looks at all of it first
OVERLAP = "Pool overlaps with other one on this address space$"
CASES = {
    # 27: "invalid pool request: " before it
    "the same subnet": made(f"^{OVERLAP}", f"^invalid pool request: {OVERLAP}", 403, {"Subnet": "10.245.40.0/24"}),
    "a part of it": made(f"^{OVERLAP}", f"^invalid pool request: {OVERLAP}", 403, {"Subnet": "10.245.40.128/25"}),
    "more than it": made(f"^{OVERLAP}", f"^invalid pool request: {OVERLAP}", 403, {"Subnet": "10.245.32.0/19"}),
    "no mask": made(
        "^Invalid subnet 10.245.50.0 : invalid CIDR address: 10.245.50.0$",
        CONFIG + "invalid subnet 10.245.50.0: invalid CIDR block notation$",
        config={"Subnet": "10.245.50.0"},
    ),
    "no subnet": made(
        "^Invalid subnet  : invalid CIDR address: $",
        CONFIG + "invalid subnet : invalid CIDR block notation$",
        config={"Gateway": "10.245.50.1"},
    ),
    "a gateway elsewhere": made(
        r"^failed to allocate gateway \(10.1.0.1\): Requested address is out of range$",
        CONFIG + "invalid gateway 10.1.0.1: parent subnet 10.245.51.0/24 doesn't contain this address$",
        config={"Subnet": "10.245.51.0/24", "Gateway": "10.1.0.1"},
    ),
    "a gateway that is none": made(
        "^invalid gateway address junk in Ipam configuration$",
        CONFIG + "invalid gateway junk: invalid address$",
        config={"Subnet": "10.245.52.0/24", "Gateway": "junk"},
    ),
    "a gateway of another kind": made(
        r"^failed to allocate gateway \(fd00::1\): Requested address is out of range$",
        CONFIG + "invalid gateway fd00::1: parent subnet is an IPv4 block$",
        config={"Subnet": "10.245.53.0/24", "Gateway": "fd00::1"},
    ),
    "the network's address as gateway": made(
        r"^failed to allocate gateway \(10.245.54.0\): Address already in use$",
        status=403,
        config={"Subnet": "10.245.54.0/24", "Gateway": "10.245.54.0"},
    ),
    "the last address as gateway": made(
        r"^failed to allocate gateway \(10.245.55.255\): Address already in use$",
        status=403,
        config={"Subnet": "10.245.55.0/24", "Gateway": "10.245.55.255"},
    ),
    "a range that is none": made(
        "Invalid Address SubPool$",
        CONFIG + "invalid ip-range junk: invalid CIDR block notation$",
        config={"Subnet": "10.245.56.0/24", "IPRange": "junk"},
    ),
    "an MTU that is none": made(
        r'^failed to parse com.docker.network.driver.mtu value: x \(strconv.Atoi: parsing "x": invalid syntax\)$',
        Options={"com.docker.network.driver.mtu": "x"},
    ),
    "a truth that is none": made(
        r"^failed to parse com.docker.network.bridge.enable_ip_masquerade value: x \(strconv.ParseBool: parsing",
        Options={BRIDGE + "enable_ip_masquerade": "x"},
    ),
    "an address that is none": made(
        r"^failed to parse com.docker.network.bridge.host_binding_ipv4 value: x \(nil ip\)$",
        Options={BRIDGE + "host_binding_ipv4": "x"},
    ),
    "another's bridge": made(
        r"^cannot create network \w{64} \(ttbr40\): conflicts with network \w{64} \(ttbr40\): "
        "networks have same bridge name$",
        status=403,
        Options={BRIDGE + "name": "ttbr40"},
    ),
    "a blank name": made("^invalid name:", Name="  "),
    "another's name": made("^network with name {one} already exists$", status=409, Name="{one}"),
    "a predefined name": made("^operation is not permitted on predefined host network ", status=403, Name="host"),
    "a second host": made('^only one instance of "host" network is allowed$', status=403, Driver="host"),
    "an unknown driver": made('^plugin "nosuch" not found$', status=404, Driver="nosuch"),
    "an unknown driver of addresses": made('^plugin "nosuch" not found$', status=404, IPAM={"Driver": "nosuch"}),
    # 28: names who is in it
    "removed while in use": Case(
        "DELETE",
        "/networks/{one}",
        None,
        r"^error while removing network: network {one} id \w{64} has active endpoints$",
        r"^error while removing network: network {one} has active endpoints \(name:\".+\" id:\"\w{12}\"\)$",
        403,
    ),
    "removed though predefined": Case(
        "DELETE", "/networks/bridge", None, "^bridge is a pre-defined network and cannot be removed$", status=403
    ),
    "removed though not there": Case("DELETE", "/networks/nosuch", None, "^network nosuch not found$", status=404),
    "an address that is taken": joined("^Address already in use$", status=403, **at("10.245.40.10")),
    "the gateway's address": joined("^Address already in use$", status=403, **at("10.245.40.1")),
    "the network's own address": joined("^Address already in use$", status=403, **at("10.245.40.0")),
    "the last address": joined("^Address already in use$", status=403, **at("10.245.40.255")),
    # 29; 25 said "no configured subnet or ip-range contain the IP address"
    "an address elsewhere": joined(
        "^Invalid address 10.9.9.9: It does not belong to any of this network's subnets$",
        "^invalid endpoint settings:\nno configured subnet (contains|or ip-range contain the) IP address 10.9.9.9$",
        **at("10.9.9.9"),
    ),
    # 24: no ")" behind it
    "an endpoint's address that is none": joined(
        r"^Invalid IPv4 address: junk\)$", "(^|\\* )invalid IPv4 address: junk$", **at("junk")
    ),
    "an address where the engine chooses": joined(
        "^(invalid endpoint settings:\n)?"
        "user specified IP address is supported only when connecting to networks with user configured subnets$",
        network="{two}",
        **at("10.9.9.9"),
    ),
    "a full network": joined(
        r"^no available IPv4 addresses on this network's address pools: {full} \(\w{64}\)$",
        status=500,
        network="{full}",
    ),
    "an endpoint that is there": joined(
        "^endpoint with name {boxname} already exists in network {one}$", status=403, Container="{box}"
    ),
    "a network that is not there": joined("^network nosuch not found$", status=404, network="nosuch"),
    "a container that is not there": joined("^No such container: nosuch$", status=404, Container="nosuch"),
    "not connected": left("^container {box} is not connected to network {two}$", 403),
    "not connected, and not running": left(
        "^container {stopped} is not connected to the network {two}$", 403, box="{stopped}"
    ),
    "left though not there": left("^No such container: nosuch$", 404, box="nosuch"),
    "left a network that is not there": left("^network nosuch not found$", 404, network="nosuch"),
    "unknown filter": Case(  # 22: lower case
        "GET",
        "/networks?filters=%7B%22nosuch%22:%5B%22x%22%5D%7D",
        None,
        "^Invalid filter 'nosuch'$",
        "^invalid filter 'nosuch'$",
    ),
}


@pytest.fixture
def stage(engine: Engine) -> Iterator[dict[str, str]]:
    """Networks with a chosen subnet, without one, and a full one; containers in the first, elsewhere and stopped."""
    names = {key: engine.unique("net") for key in ("one", "two", "full")}

    def network(name: str, subnet: str = "", **options: str) -> None:
        body = {"Name": name, "Options": options, "IPAM": {"Config": [{"Subnet": subnet}] if subnet else []}}
        assert engine.api.request("POST", "/networks/create", body).status == 201

    network(names["one"], "10.245.40.0/24", **{BRIDGE + "name": "ttbr40"})
    network(names["two"])
    network(names["full"], "10.245.41.0/30")
    try:
        box = engine.start("--network", names["one"], "--ip", "10.245.40.10")
        engine.start("--network", names["full"])
        stopped = engine.docker("create", "--network", names["one"], engine.image).out.strip()
        boxname = engine.inspect(box)["Name"].removeprefix("/")
        yield names | {"box": box, "boxname": boxname, "other": engine.start(), "stopped": stopped}
    finally:
        engine.clean()
        for name in names.values():
            engine.api.request("DELETE", f"/networks/{name}", check=False)


def test_refused_in_dockers_words(engine: Engine, stage: dict[str, str]) -> None:
    """Every case of the table, and nothing came of any."""
    before = engine.api.request("GET", "/networks").json
    wrong = []
    for name, case in CASES.items():
        answer = engine.api.request(case.method, fill(case.path, stage), fill(case.body, stage), check=False)
        status = {case.status} if engine.is_tare else {case.status, 500}
        text = fill(case.newer if engine.release > 20 and case.newer else case.old, stage)
        if answer.status not in status or not re.search(
            text, answer.message, re.MULTILINE if engine.release > 20 else 0
        ):
            wrong.append(f"{name}: {answer.status} {answer.message!r}, not {case.status} {text!r}")
    assert not wrong, "\n".join(wrong)
    after = engine.api.request("GET", "/networks").json
    assert sorted(one["Id"] for one in after) == sorted(one["Id"] for one in before)
