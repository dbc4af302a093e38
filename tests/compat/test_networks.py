"""User-defined networks as the official client and docker-py see them: on Tare and on Docker alike."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.deadline import wait_until
from support.engine import Engine

Network = Callable[..., str]
SERVE = "while :; do echo here-$(hostname) | nc -l -p 80; done"


@pytest.fixture
def network(engine: Engine) -> Iterator[Network]:
    """Makes networks that are removed after the test, once its containers are gone."""
    made: list[str] = []

    def make(*flags: str) -> str:
        name = engine.unique("net")
        engine.docker("network", "create", *flags, name)
        made.append(name)
        return name

    yield make
    engine.clean()
    for name in made:
        engine.api.request("DELETE", f"/networks/{name}", check=False)


def subnet(place: int) -> str:
    """A subnet that neither engine's default pools nor this machine have."""
    return f"10.{241 + place // 250}.{place % 250}.0/24"


def inspect_network(engine: Engine, name: str) -> Any:
    answer = engine.api.request("GET", f"/networks/{name}")
    assert answer.status == 200, answer
    return answer.json


def run_in(engine: Engine, container: str, *command: str) -> str:
    """What a command in a container prints; empty if it fails."""
    return engine.docker("exec", container, *command, check=False).out


def resolves(engine: Engine, container: str, name: str) -> set[str]:
    """The addresses that a name has in a container (nslookup also prints the server's)."""
    found = run_in(engine, container, "nslookup", "-type=a", name)
    lines = found.partition("Name:")[2].splitlines()
    return {line.split()[-1] for line in lines if line.startswith("Address")}


def places(engine: Engine, container: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.inspect(container)["NetworkSettings"]["Networks"]
    return found


def test_created_network_is_seen(engine: Engine, network: Network) -> None:
    """create with subnet, range, gateway, reserved address, labels and options: inspect shows what was asked."""
    flags = ["--subnet", subnet(1), "--ip-range", "10.241.1.64/26", "--gateway", "10.241.1.65"]
    flags += ["--aux-address", "printer=10.241.1.66", "--label", "tier=back", "--internal", "--attachable"]
    name = network(*flags, "-o", "com.docker.network.driver.mtu=1400")
    found = inspect_network(engine, name)
    assert found["IPAM"] == {
        "Driver": "default",
        "Options": {},
        "Config": [
            {
                "Subnet": subnet(1),
                "IPRange": "10.241.1.64/26",
                "Gateway": "10.241.1.65",
                "AuxiliaryAddresses": {"printer": "10.241.1.66"},
            }
        ],
    }
    assert found["Labels"] == {"tier": "back"} and found["Internal"] and found["Attachable"]
    assert found["Options"] == {"com.docker.network.driver.mtu": "1400"} and found["Containers"] == {}
    assert (found["Driver"], found["Scope"], found["EnableIPv6"]) == ("bridge", "local", False)
    container = engine.start("--network", name)
    assert places(engine, container)[name]["IPAddress"] == "10.241.1.64"
    assert run_in(engine, container, "cat", "/sys/class/net/eth0/mtu") == "1400\n"


def test_chosen_subnet_is_shown(engine: Engine, network: Network) -> None:
    """Without a word about addresses the engine chooses subnet and gateway, and says which."""
    config = inspect_network(engine, network())["IPAM"]["Config"][0]
    assert config["Gateway"] == config["Subnet"].replace(".0/", ".1/").partition("/")[0]


def test_list_and_filters(engine: Engine, network: Network) -> None:
    """The list's filters: name, id, label, driver, type, scope, dangling."""
    one, two = network("--label", "shade=red"), network("--label", "shade=blue")
    engine.start("--network", two)

    def names(**filters: list[str]) -> set[str]:
        answer = engine.api.request("GET", "/networks", query={"filters": filters})
        assert answer.status == 200, answer
        return {item["Name"] for item in answer.json}

    assert names(label=["shade=red"]) == {one}
    assert names(name=[one]) == {one}
    assert names(id=[inspect_network(engine, two)["Id"][:20]]) == {two}
    assert {one, two} <= names(type=["custom"]) and "bridge" not in names(type=["custom"])
    assert {"bridge", "host", "none"} == names(type=["builtin"])
    assert {one, two} <= names(driver=["bridge"]) and "host" not in names(driver=["bridge"])
    assert one in names(dangling=["true"])
    if engine.is_tare:  # 20.10 judges before it looks at the containers
        assert two not in names(dangling=["true"]) and two in names(dangling=["false"])
    assert (
        engine.docker("network", "ls", "-q", "--filter", f"name={one}").out.strip()
        == (inspect_network(engine, one)["Id"][:12])
    )


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"Name": "bridge"}, {403}, "operation is not permitted on predefined bridge network"),
        ({"Name": "tt-none", "Driver": "host"}, {403}, 'only one instance of "host" network is allowed'),
        ({"Name": "tt-none", "Driver": "nosuch"}, {404}, 'plugin "nosuch" not found'),
        ({"Name": "tt-none", "IPAM": {"Driver": "nosuch"}}, {404}, 'plugin "nosuch" not found'),
        (
            {"Name": "tt-none", "Options": {"com.docker.network.bridge.enable_icc": "junk"}},
            {400, 500},
            'failed to parse com.docker.network.bridge.enable_icc value: junk (strconv.ParseBool: parsing "junk"',
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_create_refused(engine: Engine, body: dict[str, Any], status: set[int], text: str) -> None:
    """What can't be made is refused with Docker's text (20.10 says 500 to some of what is the caller's fault)."""
    answer = engine.api.request("POST", "/networks/create", {"CheckDuplicate": True, **body})
    assert answer.status in status and text in answer.json["message"], answer


def test_names_and_subnets_are_unique(engine: Engine, network: Network) -> None:
    """A second network of that name is a conflict, one of that subnet is forbidden."""
    name = network("--subnet", subnet(2))
    answer = engine.api.request("POST", "/networks/create", {"Name": name, "CheckDuplicate": True}, check=False)
    assert (answer.status, answer.json["message"]) == (409, f"network with name {name} already exists")
    body = {"Name": engine.unique(), "IPAM": {"Config": [{"Subnet": "10.241.2.128/25"}]}}
    answer = engine.api.request("POST", "/networks/create", body)
    assert answer.status == 403 and "Pool overlaps with other one on this address space" in answer.json["message"]


def test_remove(engine: Engine, network: Network) -> None:
    """A network in use isn't removed; an unused one is, by name or id, and then isn't found; predefined ones stay."""
    name = network()
    container = engine.start("--network", name)
    answer = engine.api.request("DELETE", f"/networks/{name}")
    assert answer.status == 403 and "has active endpoints" in answer.json["message"]
    assert f"error while removing network: network {name}" in answer.json["message"]
    engine.docker("rm", "-f", container)
    network_id = inspect_network(engine, name)["Id"]
    assert engine.api.request("DELETE", f"/networks/{network_id[:20]}").status == 204
    for method in ("GET", "DELETE"):
        answer = engine.api.request(method, f"/networks/{name}")
        assert (answer.status, answer.json["message"]) == (404, f"network {name} not found")
    answer = engine.api.request("DELETE", "/networks/bridge")
    assert answer.status == 403 and "bridge is a pre-defined network and cannot be removed" in answer.json["message"]


def test_prune(engine: Engine, network: Network) -> None:
    """prune removes what no container uses, and only that; labels limit it."""
    unused, used, other = network("--label", "p=1"), network("--label", "p=1"), network()
    engine.start("--network", used)
    answer = engine.api.request("POST", "/networks/prune", query={"filters": {"label": ["p=1"]}})
    assert answer.json == {"NetworksDeleted": [unused]}
    assert inspect_network(engine, used) and inspect_network(engine, other)


def test_containers_find_each_other(engine: Engine, network: Network) -> None:
    """By name, alias and short id, and in the hosts file its own; not from another network."""
    name, elsewhere = network(), network()
    web = engine.start("--network", name, "--network-alias", "shop", "--name", engine.unique("web"))
    friend, stranger = engine.start("--network", name), engine.start("--network", elsewhere)
    web_name = engine.inspect(web)["Name"][1:]
    address = places(engine, web)[name]["IPAddress"]
    for wanted in (web_name, "shop", web[:12], f"{web_name}.{name}"):
        assert resolves(engine, friend, wanted) == {address}, wanted
    assert resolves(engine, stranger, web_name) == set()
    assert f"{address}\t{web[:12]}" in run_in(engine, web, "cat", "/etc/hosts")
    resolv = run_in(engine, web, "cat", "/etc/resolv.conf").splitlines()
    assert "nameserver 127.0.0.11" in resolv and any(line.endswith("ndots:0") for line in resolv)
    assert "1 packets received" in run_in(engine, friend, "ping", "-c1", "-W2", web_name)
    assert "1 packets received" not in run_in(engine, stranger, "ping", "-c1", "-W1", address)
    aliases = places(engine, web)[name]["Aliases"]
    assert "shop" in aliases


def test_shared_alias(engine: Engine, network: Network) -> None:
    """An alias of two containers means both."""
    name = network()
    boxes = [engine.start("--network", name, "--network-alias", "pool") for _ in range(2)]
    wanted = {places(engine, box)[name]["IPAddress"] for box in boxes}
    assert len(wanted) == 2 and resolves(engine, boxes[0], "pool") == wanted


def test_static_address_and_mac(engine: Engine, network: Network) -> None:
    """--ip and --mac-address are given, taken ones and foreign ones refused; a restart keeps them."""
    name = network("--subnet", subnet(3))
    newer = engine.release > 20
    mac = "02:42:0a:00:00:4d" if newer else "02:42:0a:f1:03:4d"  # its own client asks 20.10 for none
    flags = ["--network", name, "--ip", "10.241.3.77"]
    box = engine.start(*flags, *(["--mac-address", mac] if newer else []))
    found = places(engine, box)[name]
    assert (found["IPAddress"], found["IPPrefixLen"], found["Gateway"]) == ("10.241.3.77", 24, "10.241.3.1")
    assert found["MacAddress"] == mac and found["IPAMConfig"] == {"IPv4Address": "10.241.3.77"}
    assert "10.241.3.77/24" in run_in(engine, box, "ip", "addr")
    taken = engine.docker("run", "-d", "--network", name, "--ip", "10.241.3.77", engine.image, "true", check=False)
    assert "Address already in use" in taken.err
    foreign = engine.docker("run", "-d", "--network", name, "--ip", "10.9.9.9", engine.image, "true", check=False)
    outside = "Invalid address 10.9.9.9: It does not belong to any of this network's subnets"
    assert ("no configured subnet" if newer else outside) in foreign.err and "10.9.9.9" in foreign.err
    engine.docker("restart", "-t", "0", box)
    assert places(engine, box)[name]["IPAddress"] == "10.241.3.77"
    automatic = network()
    refused = engine.docker("run", "--network", automatic, "--ip", "10.9.9.9", engine.image, "true", check=False)
    assert "user specified IP address is supported only when connecting to networks with user configured" in refused.err
    refused = engine.docker("run", "--ip", "10.9.9.9", engine.image, "true", check=False)
    assert "user specified IP address is supported on user defined networks only" in refused.err


def test_connect_and_disconnect_a_running_container(engine: Engine, network: Network) -> None:
    """It gets another link with alias and address at once, and loses it again; inspect and hosts tell."""
    first, second = network(), network("--subnet", subnet(4))
    box, friend = engine.start("--network", first), engine.start("--network", second)
    engine.docker("network", "connect", "--alias", "late", "--ip", "10.241.4.50", second, box)
    assert set(places(engine, box)) == {first, second}
    assert places(engine, box)[second]["IPAddress"] == "10.241.4.50"
    assert "10.241.4.50/24" in run_in(engine, box, "ip", "addr", "show", "eth1")
    assert resolves(engine, friend, "late") == {"10.241.4.50"}
    assert "1 packets received" in run_in(engine, friend, "ping", "-c1", "-W2", "late")
    assert "10.241.4.50" in run_in(engine, box, "cat", "/etc/hosts")
    inside = inspect_network(engine, second)["Containers"]
    assert inside[box]["IPv4Address"] == "10.241.4.50/24" and set(inside) == {box, friend}
    again = engine.api.request("POST", f"/networks/{second}/connect", {"Container": box})
    assert again.status == 403 and f"already exists in network {second}" in again.json["message"]
    engine.docker("network", "disconnect", second, box)
    assert set(places(engine, box)) == {first}
    assert "10.241.4.50" not in run_in(engine, box, "ip", "addr")
    assert "10.241.4.50" not in run_in(engine, box, "cat", "/etc/hosts")
    assert resolves(engine, friend, "late") == set()
    assert box not in inspect_network(engine, second)["Containers"]
    gone = engine.api.request("POST", f"/networks/{second}/disconnect", {"Container": box})
    assert gone.status in (403, 500) and f"is not connected to network {second}" in gone.json["message"]


def test_link_local_address(engine: Engine, network: Network) -> None:
    """A link-local address is given beside the network's; others are refused as such."""
    name = network()
    box = engine.start("--network", name, "--link-local-ip", "169.254.8.8")
    assert "169.254.8.8/16" in run_in(engine, box, "ip", "addr", "show", "eth0")
    assert places(engine, box)[name]["IPAMConfig"] == {"LinkLocalIPs": ["169.254.8.8"]}


def test_link_local_address_on_the_default_network(engine: Engine) -> None:
    """It is shown as it was asked for."""
    box = engine.start("--link-local-ip", "169.254.8.9")
    assert places(engine, box)["bridge"]["IPAMConfig"] == {"LinkLocalIPs": ["169.254.8.9"]}


def test_an_ipv6_subnet_of_a_network_without_ipv6(engine: Engine, network: Network) -> None:
    """The network is one of IPv4; an address in the subnet is taken down and unheeded."""
    name = network("--subnet", "2001:db8:389::/64")
    box = engine.start("--network", name, "--ip6", "2001:db8:389::f00d")
    place = places(engine, box)[name]
    assert place["IPAMConfig"] == {"IPv6Address": "2001:db8:389::f00d"}
    assert place["GlobalIPv6Address"] == "" and place["IPAddress"]


def test_connect_a_container_that_does_not_run(engine: Engine, network: Network) -> None:
    """It is in all its networks once it starts, and can leave its first one before."""
    first, second = network(), network()
    box = engine.create({"Cmd": ["sleep", "100"], "HostConfig": {"NetworkMode": first}}).json["Id"]
    engine.docker("network", "connect", "--alias", "two", second, box)
    engine.docker("network", "connect", "bridge", box)
    engine.docker("network", "disconnect", first, box)
    engine.docker("start", box)
    assert set(places(engine, box)) == {second, "bridge"}
    assert all(place["IPAddress"] for place in places(engine, box).values())


def test_refused_connections(engine: Engine, network: Network) -> None:
    """host, none and container: don't mix with other networks; aliases need a network of the user's own."""
    name = network()
    box = engine.start("--network", name)

    def connect(target: str, body: dict[str, Any]) -> tuple[int, str]:
        answer = engine.api.request("POST", f"/networks/{target}/connect", body)
        return answer.status, answer.json["message"]

    assert connect("host", {"Container": box}) == (
        400,
        "cannot connect container to host network - container must be created in host network mode"
        if engine.release > 20
        else "container cannot be disconnected from host network or connected to host network",
    )
    status, text = connect("none", {"Container": box})
    assert status == 400 and text.startswith("container cannot be connected to multiple networks with one of")
    status, text = connect("bridge", {"Container": box, "EndpointConfig": {"Aliases": ["x"]}})
    assert status == 400 and "network-scoped alias is supported only for containers in user defined networks" in text
    assert connect(name, {"Container": "nosuch"}) == (404, "No such container: nosuch")
    assert connect("nosuch", {"Container": box}) == (404, "network nosuch not found")
    assert connect(name, {}) == (400, 'invalid name or ID supplied: ""')
    sharer = engine.start("--network", f"container:{box}")
    status, text = connect(name, {"Container": sharer})
    assert status == 400 and text.startswith("container sharing network namespace with another container or host")
    forced = engine.api.request("POST", f"/networks/{name}/disconnect", {"Container": "nosuch", "Force": True})
    assert (forced.status, forced.json["message"]) == (404, "endpoint nosuch not found")


def test_missing_network_shows_at_start(engine: Engine) -> None:
    """A container can be made for a network that isn't there; its start says so, and works once the network is."""
    name = engine.unique("net")
    box = engine.create({"Cmd": ["sleep", "100"], "HostConfig": {"NetworkMode": name}}).json["Id"]
    answer = engine.api.request("POST", f"/containers/{box}/start")
    prefix = "failed to set up container networking: " if engine.release > 20 else ""
    assert (answer.status, answer.json["message"]) == (404, f"{prefix}network {name} not found")
    engine.docker("network", "create", name)
    try:
        assert engine.api.request("POST", f"/containers/{box}/start").status == 204
    finally:
        engine.docker("rm", "-f", box)
        engine.docker("network", "rm", name)


def test_internal_network(engine: Engine, network: Network) -> None:
    """Inside an internal network containers meet; there is no route out of it."""
    name = network("--internal")
    one, two = engine.start("--network", name), engine.start("--network", name)
    address = places(engine, one)[name]["IPAddress"]
    assert "1 packets received" in run_in(engine, two, "ping", "-c1", "-W2", address)
    if engine.is_tare:  # 20.10 sets one that leads nowhere; later Docker doesn't
        assert "default" not in run_in(engine, two, "ip", "route")


def test_published_port(engine: Engine, network: Network) -> None:
    """-p works in a network of the user's own, and goes on to after the network with the ports was left."""
    import subprocess
    import sys

    first, second = network(), network()
    box = engine.start("--network", first, "-p", "18070:80", "--hostname", "web", command=["sh", "-c", SERVE])
    client = "import socket;print(socket.create_connection(('127.0.0.1',18070),2).recv(99).decode(),end='')"

    def answers() -> bool:
        try:
            return engine.in_network(sys.executable, "-c", client, check=False).out == "here-web\n"
        except subprocess.TimeoutExpired:
            return False

    wait_until(answers, "the port is reached")
    engine.docker("network", "connect", second, box)
    wait_until(answers, "the port is reached with two networks")
    engine.docker("network", "disconnect", first, box)
    wait_until(answers, "the port is reached by the other network")
    assert "18070" in engine.docker("port", box, "80").out


def test_events(engine: Engine, network: Network) -> None:
    """create, connect, disconnect and destroy are told, with the network's name and the container's id."""
    name = engine.unique("net")
    network_id = engine.docker("network", "create", name).out.strip()
    box = engine.start("--network", name)
    engine.docker("network", "disconnect", name, box)
    engine.docker("network", "connect", name, box)
    engine.docker("rm", "-f", box)
    engine.docker("network", "rm", name)
    told = engine.docker(
        "events",
        "--since",
        "30s",
        "--until",
        str(int(time.time()) + 1),
        "--filter",
        f"network={network_id}",
        "--format",
        "{{json .}}",
    ).out
    found = [json.loads(line) for line in told.splitlines()]
    actions = [action for action, _ in itertools.groupby(item["Action"] for item in found)]  # 20.10 tells some twice
    assert actions == ["create", "connect", "disconnect", "connect", "disconnect", "destroy"]
    assert {item["Actor"]["Attributes"]["name"] for item in found} == {name}
    assert found[1]["Actor"]["Attributes"]["container"] == box
    assert found[0]["Actor"]["Attributes"]["type"] == "bridge"


def test_docker_py(engine: Engine, network: Network) -> None:
    """docker-py's own words: create with IPAM, containers of a network, connect with options, remove."""
    import docker

    pool = docker.types.IPAMPool(subnet=subnet(5), gateway="10.241.5.254")
    made = engine.sdk.networks.create(engine.unique("net"), ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    try:
        assert made.attrs["IPAM"]["Config"] == [{"Subnet": subnet(5), "Gateway": "10.241.5.254"}]
        box = engine.sdk.containers.run(engine.image, ["sleep", "100"], detach=True, network=made.name)
        made.reload()
        assert made.containers == [box]
        made.disconnect(box)
        made.connect(box, aliases=["x"], ipv4_address="10.241.5.7")
        box.reload()
        assert box.attrs["NetworkSettings"]["Networks"][made.name]["IPAddress"] == "10.241.5.7"
        box.remove(force=True)
    finally:
        made.remove()
    assert engine.sdk.networks.list(names=[made.name]) == []


def test_several_networks_at_create(tare: Engine) -> None:
    """Since API 1.44 a container can be made in several networks at once; before it is refused (so only ours here)."""
    names = [tare.unique("net") for _ in range(2)]
    for name in names:
        tare.docker("network", "create", name)
    try:
        wanted = {names[0]: {"Aliases": ["web"]}, names[1]: {"GwPriority": 1}}  # not every client has a flag for that
        host, networking = {"NetworkMode": names[0]}, {"EndpointsConfig": wanted}
        box = tare.create({"Cmd": ["sleep", "1000"], "HostConfig": host, "NetworkingConfig": networking}).json["Id"]
        tare.docker("start", box)
        found = places(tare, box)
        assert set(found) == set(names) and found[names[1]]["GwPriority"] == 1
        assert f"default via {found[names[1]]['Gateway']} dev eth1" in run_in(tare, box, "ip", "route")
        body = {"Cmd": ["true"], "Image": tare.image, "NetworkingConfig": {"EndpointsConfig": {n: {} for n in names}}}
        answer = tare.api.request("POST", "/v1.43/containers/create", body)
        said = "Container cannot be created with multiple network endpoints: "
        assert answer.status == 400 and said in answer.json["message"]
        tare.clean()
    finally:
        for name in names:
            tare.docker("network", "rm", name)


def test_host_is_found_without_a_flag(tare: Engine) -> None:
    """host.docker.internal and host.tare.internal are the gateway, in the default network and in others."""
    name = tare.unique("net")
    tare.docker("network", "create", name)
    try:
        for flags in ([], ["--network", name]):
            box = tare.start(*flags)
            gateway = next(iter(places(tare, box).values()))["Gateway"]
            for host in ("host.docker.internal", "host.tare.internal"):
                assert f"({gateway})" in run_in(tare, box, "ping", "-c1", "-W2", host)
        tare.clean()
    finally:
        tare.docker("network", "rm", name)


def test_what_was_asked_of_an_endpoint_is_shown(engine: Engine, network: Network) -> None:
    """Before a container runs, its endpoint shows the MAC asked for, and options that no driver knows are kept."""
    name = network()
    container = engine.docker("create", engine.image, "true").out.strip()
    wish = {"MacAddress": "02:42:ac:11:00:02", "DriverOpts": {"org.example.colour": "blue"}}
    asked = engine.api.request(
        "POST", f"/networks/{name}/connect", {"Container": container, "EndpointConfig": wish}, check=False
    )
    assert asked.status == 200, asked
    shown = engine.inspect(container)["NetworkSettings"]["Networks"][name]
    assert {key: shown[key] for key in wish} == wish
