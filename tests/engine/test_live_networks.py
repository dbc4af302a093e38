"""`tare update --network-add --network-rm`: several networks in one step, all or none."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from support.engine import Engine


@pytest.fixture
def networks(tare: Engine) -> Iterator[list[str]]:
    """Two networks of the user's own; the first one's addresses may be chosen."""
    names = [tare.unique("net"), tare.unique("net")]
    tare.docker("network", "create", names[0])
    subnet = tare.api.request("GET", f"/networks/{names[0]}").json["IPAM"]["Config"][0]["Subnet"]
    tare.docker("network", "rm", names[0])
    tare.docker("network", "create", "--subnet", subnet, names[0])
    tare.docker("network", "create", names[1])
    yield names
    tare.clean()
    tare.docker("network", "rm", *names)


def endpoints(tare: Engine, container: str) -> dict[str, dict[str, object]]:
    return dict(tare.inspect(container)["NetworkSettings"]["Networks"])


def interfaces(tare: Engine, container: str) -> int:
    """How many links the container has but its loopback, as the kernel tells it."""
    return len(tare.docker("exec", container, "ls", "/sys/class/net").out.split()) - 1


@pytest.mark.parametrize("running", [True, False])
def test_from_one_network_to_others(tare: Engine, networks: list[str], running: bool) -> None:
    """Off the default bridge, into two others with alias and address; the next start has it so, too."""
    one, two = networks
    box = tare.start() if running else tare.create({"Cmd": ["sleep", "1000"]}).json["Id"]
    subnet = ip_network(tare.api.request("GET", f"/networks/{one}").json["IPAM"]["Config"][0]["Subnet"])
    address = str(subnet[40])
    flags = ["--network-rm", "bridge", "--network-add", f"{one},alias=al,ip={address}", "--network-add", two]
    tare.tare_cli("update", *flags, box)
    for _ in range(2):
        if running:
            assert interfaces(tare, box) == 2
            assert endpoints(tare, box)[one]["IPAddress"] == address
            friend = tare.start("--network", one)
            assert address in tare.docker("exec", friend, "nslookup", "-type=a", "al").out
            tare.docker("rm", "-f", friend)
        assert set(endpoints(tare, box)) == {one, two}
        tare.docker("restart", "-t", "0", box)
        running = True


def test_all_or_none(tare: Engine, networks: list[str]) -> None:
    """A network that isn't there, or one that it is in already: ports, networks and mounts stay as they were."""
    one, two = networks
    box = tare.start("--network", one, "--network-alias", "kept", "-p", "127.0.0.1::80")
    before = tare.inspect(box)
    for wrong, why in (
        (["--network-add", "nosuch"], "nosuch not found"),
        (["--network-add", one], "already exists"),
        (["--network-rm", one, "--network-rm", "nosuch"], "nosuch"),
        (["--network-rm", one, "--mount-add", "type=bind,src=/nosuch,dst=/x"], "does not exist"),
    ):
        first = [] if "--network-rm" in wrong else ["--network-add", two]
        refused = tare.tare_cli("update", "--publish-add", "127.0.0.1::81", *first, *wrong, box, check=False)
        assert refused.code == 1 and why in refused.err, (wrong, refused)
        after = tare.inspect(box)
        assert after["HostConfig"]["PortBindings"] == before["HostConfig"]["PortBindings"]
        assert set(endpoints(tare, box)) == {one} and interfaces(tare, box) == 1
        assert "kept" in (endpoints(tare, box)[one]["Aliases"] or ())  # type: ignore[operator]
    assert set(after["NetworkSettings"]["Ports"]) == {"80/tcp"}
