"""Networks of other kinds than the usual bridge: macvlan, configurations; on Tare and on Docker alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.engine import Engine

Post = Callable[..., tuple[int, str]]


@pytest.fixture
def post(engine: Engine) -> Iterator[Post]:
    """Makes networks; those that came about are removed after the test, the last one first."""
    made: list[str] = []

    def make(name: str, **body: Any) -> tuple[int, str]:
        answer = engine.api.request("POST", "/networks/create", {"Name": name, "CheckDuplicate": True, **body})
        if answer.status == 201:
            made.append(name)
        return answer.status, answer.json.get("message", "")

    yield make
    engine.clean()
    for name in reversed(made):
        engine.api.request("DELETE", f"/networks/{name}", check=False)


@pytest.fixture
def parent(engine: Engine) -> Iterator[str]:
    """A link of the engine's host, and a machine's behind it."""
    name = engine.unique("p")[-14:]
    engine.in_network("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}x")
    for link in (name, f"{name}x"):
        engine.in_network("ip", "link", "set", link, "up")
    yield name
    engine.clean()
    engine.in_network("ip", "link", "del", name)


def inspect(engine: Engine, name: str) -> Any:
    return engine.api.request("GET", f"/networks/{name}").json


def pool(subnet: str) -> dict[str, Any]:
    return {"Config": [{"Subnet": subnet, "IPRange": subnet.replace(".0/24", ".128/25"), "Gateway": subnet[:-4] + "9"}]}


def test_macvlan(engine: Engine, post: Post, parent: str) -> None:
    """Containers have links of their own on the parent, reach each other by name, and are reached from behind
    it; -p is taken and publishes nothing; inspect, events and a static address are as on a bridge."""
    name = engine.unique("lan")
    assert post(name, Driver="macvlan", IPAM=pool("10.238.1.0/24"), Options={"parent": parent})[0] == 201
    shown = inspect(engine, name)
    assert (shown["Driver"], shown["Options"], shown["Internal"]) == ("macvlan", {"parent": parent}, False)
    serve = "while :; do echo here | nc -l -p 80; done"
    server = engine.start(
        "--network", name, "-p", "80", "--ip", "10.238.1.77", "--name", f"{name}-s", command=("sh", "-c", serve)
    )
    box = engine.start("--network", name)
    place = engine.inspect(box)["NetworkSettings"]["Networks"][name]
    assert (place["IPAddress"], place["Gateway"], place["IPPrefixLen"]) == ("10.238.1.128", "10.238.1.9", 24)
    assert place["MacAddress"] == "02:42:0a:ee:01:80" or engine.name == "docker"  # by chance in Docker since 28
    assert not any(engine.inspect(server)["NetworkSettings"]["Ports"].values())
    routes = engine.docker("exec", box, "ip", "route").out.split("\n")
    assert routes[0].strip() == "default via 10.238.1.9 dev eth0"
    assert engine.docker("exec", box, "nc", f"{name}-s", "80").out == "here\n"
    assert set(inspect(engine, name)["Containers"]) == {server, box}
    engine.in_network("ip", "address", "add", "10.238.1.9/24", "dev", f"{parent}x")
    assert engine.in_network("busybox", "nc", "-w", "3", "10.238.1.77", "80").out == "here\n"
    engine.docker("network", "disconnect", name, box)
    assert "eth0" not in engine.docker("exec", box, "ip", "link").out
    taken = engine.docker("run", "--network", name, "--ip", "10.238.1.77", engine.image, "true", check=False)
    assert "Address already in use" in taken.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"parent": "lo"}, "loopback interface is not a valid macvlan parent link"),
        ({"parent": "tt-none"}, "invalid subinterface vlan name tt-none, example formatting is eth0.10"),
        ({"macvlan_mode": "junk"}, "requested macvlan mode 'junk' is not valid, 'bridge' mode is the macvlan driver"),
    ],
)
def test_macvlan_refused(engine: Engine, post: Post, parent: str, options: dict[str, str], text: str) -> None:
    """In the same words."""
    status, message = post("tt-mac", Driver="macvlan", Options={"parent": parent, **options})
    assert status >= 400 and text in message


def test_configurations(engine: Engine, post: Post) -> None:
    """A configuration holds subnets, options and labels until a network takes it; what can't be is refused."""
    stem = engine.unique("cfg")
    mtu = {"com.docker.network.driver.mtu": "1400"}
    body = {"IPAM": pool("10.238.2.0/24"), "Options": mtu, "Labels": {"a": "b"}}
    assert post(f"{stem}-c", ConfigOnly=True, **body)[0] == 201
    own = {"ConfigFrom": {"Network": f"{stem}-c"}}
    assert post(f"{stem}-n", **own)[0] == 201
    config, made = inspect(engine, f"{stem}-c"), inspect(engine, f"{stem}-n")
    assert (config["Driver"], config["ConfigOnly"], made["ConfigOnly"]) == ("null", True, False)
    assert made["ConfigFrom"] == {"Network": f"{stem}-c"} and made["Driver"] == "bridge"
    for key in ("Options", "Labels"):
        assert config[key] == made[key] == body[key]
    assert made["IPAM"]["Config"] == config["IPAM"]["Config"] == body["IPAM"]["Config"]
    box = engine.start("--network", f"{stem}-n")
    assert "mtu 1400" in engine.docker("exec", box, "ip", "link", "show", "eth0").out
    refused = [
        ({"ConfigOnly": True, "Internal": True}, "configuration network can only contain network specific fields."),
        ({"ConfigOnly": True, **own}, "a configuration network cannot depend on another configuration network"),
        ({"ConfigFrom": {"Network": "tt-none"}}, 'configuration network "tt-none" does not exist'),
        ({"Labels": {"c": "d"}, **own}, "user specified configurations are not supported if the network depends on a"),
    ]
    for more, text in refused:
        status, message = post(f"{stem}-r", **more)
        assert status in (403, 404) and text in message
    status, message = removal(engine, f"{stem}-c")
    assert status == 403 and f'configuration network "{stem}-c" is in use' in message
    inside = engine.docker("run", "--network", f"{stem}-c", engine.image, "true", check=False)
    assert "cannot create endpoint on configuration-only network" in inside.err
    engine.docker("network", "prune", "-f")
    assert inspect(engine, f"{stem}-c")["Name"] == f"{stem}-c"


def removal(engine: Engine, name: str) -> tuple[int, str]:
    answer = engine.api.request("DELETE", f"/networks/{name}")
    return answer.status, answer.json["message"]
