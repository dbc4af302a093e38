"""Published ports and the default bridge: reached from the host's loopback, by the bridge, between containers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.deadline import wait_until
from support.engine import Engine

SERVE_TCP = "while :; do echo tcp-$(hostname) | nc -l -p 80; done"
UDP_SERVER = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    s.sendto(b"udp-fine", s.recvfrom(100)[1])
"""
CLIENT = (
    "import socket,sys\n"
    "kind=socket.SOCK_DGRAM if sys.argv[1]=='udp' else socket.SOCK_STREAM\n"
    "family=socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET\n"
    "s=socket.socket(family,kind); s.settimeout(2)\n"
    "s.connect((sys.argv[2],int(sys.argv[3])))\n"
    "if sys.argv[1]=='udp': s.send(b'hi')\n"
    "print(s.recv(100).decode(),end='')\n"
)


def fetch(engine: Engine, kind: str, host: str, port: str) -> str:
    """What a server says to a client that stands where the engine's host is; empty if it can't be reached."""
    return engine.in_network(sys.executable, "-c", CLIENT, kind, host, port, check=False).out


def published(engine: Engine, container: str, port: str) -> list[str]:
    """Host addresses of a published port."""
    return engine.docker("port", container, port).out.split()


def test_tcp_from_loopback_and_by_bridge_address(engine: Engine) -> None:
    """-p of a chosen port is reached by 127.0.0.1 and by the container's own address; inspect and port tell it."""
    container = engine.start(flags=["-p", "18080:80", "--hostname", "web"], command=["sh", "-c", SERVE_TCP])
    wait_until(lambda: fetch(engine, "tcp", "127.0.0.1", "18080") == "tcp-web\n", "loopback reaches it")
    network = engine.inspect(container)["NetworkSettings"]
    address = network["Networks"]["bridge"]["IPAddress"]
    wait_until(lambda: fetch(engine, "tcp", address, "80") == "tcp-web\n", "its address reaches it")
    gateway = network["Networks"]["bridge"]["Gateway"]
    wait_until(lambda: fetch(engine, "tcp", gateway, "18080") == "tcp-web\n", "the gateway reaches it")
    assert {"HostIp": "0.0.0.0", "HostPort": "18080"} in network["Ports"]["80/tcp"]
    assert "0.0.0.0:18080" in published(engine, container, "80")
    row = engine.docker("ps", "--format", "{{.Ports}}", "--filter", f"id={container}").out
    assert "0.0.0.0:18080->80/tcp" in row
    engine.docker("stop", "-t", "0", container)
    assert fetch(engine, "tcp", "127.0.0.1", "18080") == ""
    engine.docker("start", container)
    wait_until(lambda: fetch(engine, "tcp", "127.0.0.1", "18080") == "tcp-web\n", "it is reached after a restart")


def test_udp(engine: Engine) -> None:
    """-p …/udp is reached by 127.0.0.1, and answers find their way back. (busybox has no UDP server, so ours.)"""
    container = engine.start(flags=["-p", "127.0.0.1:18053:53/udp"])
    pid = engine.inspect(container)["State"]["Pid"]
    argv = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", sys.executable, "-c", UDP_SERVER]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        wait_until(lambda: fetch(engine, "udp", "127.0.0.1", "18053") == "udp-fine", "loopback reaches it", 20)
    finally:
        server.kill()
        server.wait()
    assert published(engine, container, "53/udp") == ["127.0.0.1:18053"]


def test_port_chosen_by_the_engine(engine: Engine) -> None:
    """-p 80 takes a free port; -P publishes every exposed one; ranges pair up."""
    container = engine.start(flags=["-p", "80"], command=["sh", "-c", SERVE_TCP])
    port = published(engine, container, "80")[0].rpartition(":")[2]
    wait_until(lambda: fetch(engine, "tcp", "127.0.0.1", port).startswith("tcp-"), "it is reached")
    exposed = engine.start(flags=["-P", "--expose", "81-82"])
    assert set(engine.inspect(exposed)["NetworkSettings"]["Ports"]) == {"81/tcp", "82/tcp"}
    ranged = engine.start(flags=["-p", "18090-18091:90-91"])
    assert "0.0.0.0:18091" in published(engine, ranged, "91")


def test_bound_to_one_address(engine: Engine) -> None:
    """A port published on 127.0.0.1 is not reached by the bridge's address."""
    container = engine.start(flags=["-p", "127.0.0.1:18081:80"], command=["sh", "-c", SERVE_TCP])
    wait_until(lambda: fetch(engine, "tcp", "127.0.0.1", "18081").startswith("tcp-"), "loopback reaches it")
    gateway = engine.inspect(container)["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    assert fetch(engine, "tcp", gateway, "18081") == ""


def test_ipv6_addresses_of_the_host(engine: Engine) -> None:
    """-p of a container without IPv6 is reached by [::1], too, as both bindings tell; -p [::1]:… is that alone."""
    container = engine.start(flags=["-p", "18084:80", "-p", "[::1]:18085:81"], command=["sh", "-c", SERVE_TCP])
    assert not engine.inspect(container)["NetworkSettings"]["Networks"]["bridge"]["GlobalIPv6Address"]
    wait_until(lambda: fetch(engine, "tcp", "::1", "18084").startswith("tcp-"), "the IPv6 loopback reaches it")
    wait_until(lambda: fetch(engine, "tcp", "127.0.0.1", "18084").startswith("tcp-"), "so does that of IPv4")
    ports = engine.inspect(container)["NetworkSettings"]["Ports"]
    both = [{"HostIp": "0.0.0.0", "HostPort": "18084"}, {"HostIp": "::", "HostPort": "18084"}]
    assert sorted(ports["80/tcp"], key=str) == both
    assert ports["81/tcp"] == [{"HostIp": "::1", "HostPort": "18085"}]
    engine.docker("stop", "-t", "0", container)
    assert fetch(engine, "tcp", "::1", "18084") == ""


def test_taken_port_is_refused(engine: Engine) -> None:
    """A port that another container has is refused at start, naming it; the container stays created."""
    engine.start(flags=["-p", "18082:80"])
    name = engine.unique()
    refused = engine.docker("run", "-d", "--name", name, "-p", "18082:80", engine.image, "sleep", "1", check=False)
    assert refused.code == 125 and "port is already allocated" in refused.err and "18082" in refused.err
    assert engine.inspect(name)["State"]["Status"] == "created"


def test_containers_reach_each_other(engine: Engine) -> None:
    """Two containers on the bridge reach each other by address, and their own gateway."""
    server = engine.start(command=["sh", "-c", SERVE_TCP])
    network = engine.inspect(server)["NetworkSettings"]["Networks"]["bridge"]
    client = engine.start()

    def answer() -> str:
        script = f"nc -w 2 {network['IPAddress']} 80"
        return engine.docker("exec", client, "sh", "-c", script, check=False).out

    wait_until(lambda: answer().startswith("tcp-"), "the other reaches it")
    engine.docker("exec", client, "ping", "-c", "1", "-W", "2", network["Gateway"])


def test_two_containers_have_two_addresses(engine: Engine) -> None:
    """Addresses and MAC addresses differ and lie in the bridge's subnet."""
    networks = [engine.inspect(engine.start())["NetworkSettings"]["Networks"]["bridge"] for _ in range(3)]
    assert len({network["IPAddress"] for network in networks}) == 3
    assert len({network["MacAddress"] for network in networks}) == 3
    assert {network["IPPrefixLen"] for network in networks} == {networks[0]["IPPrefixLen"]}
    stem = networks[0]["Gateway"].rpartition(".")[0]
    assert all(network["IPAddress"].startswith(stem.rsplit(".", 1)[0]) for network in networks)


def test_hairpin(engine: Engine) -> None:
    """A container reaches its own published port by the host's address."""
    container = engine.start(flags=["-p", "18083:80"], command=["sh", "-c", SERVE_TCP])
    gateway = engine.inspect(container)["NetworkSettings"]["Networks"]["bridge"]["Gateway"]

    def answer() -> str:
        return engine.docker("exec", container, "sh", "-c", f"nc -w 2 {gateway} 18083", check=False).out

    wait_until(lambda: answer().startswith("tcp-"), "it reaches itself")


@pytest.mark.parametrize("port", ["0:80", "70000:80", "80:70000", "x:80", "1.2.3:80:80"])
def test_bad_ports(engine: Engine, port: str) -> None:
    """What is no port is refused, by the client or the engine, and nothing is made."""
    refused = engine.docker("run", "--rm", "-p", port, engine.image, "true", check=False)
    if port != "0:80":
        assert refused.code == 125
    assert not engine.containers()
