"""Containers in networks of the user's own outlive the daemon; what was cut short is whole or gone afterwards."""

from __future__ import annotations

import sys
import time

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared

SERVE = "while :; do echo here | nc -l -p 80; done"
CLIENT = "import socket,sys;print(socket.create_connection(('127.0.0.1',int(sys.argv[1])),2).recv(99).decode(),end='')"


def resolves(engine: Engine, container: str, name: str) -> bool:
    return "Name:" in engine.docker("exec", container, "nslookup", "-type=a", name, check=False).out


def answers(engine: Engine, port: int) -> bool:
    return engine.in_network(sys.executable, "-c", CLIENT, str(port), check=False).out == "here\n"


def networks_of(engine: Engine, container: str) -> set[str]:
    return set(engine.inspect(container)["NetworkSettings"]["Networks"])


def test_names_and_traffic_outlive_the_daemon(daemon: Tared) -> None:
    """kill -9: containers reach each other meanwhile, and find each other's names within a second of the next start."""
    engine = daemon.start().engine
    engine.prepare()
    engine.docker("network", "create", "one")
    box = engine.start("--network", "one", "--name", "box1", "-p", "18061:80", command=["sh", "-c", SERVE])
    friend = engine.start("--network", "one", "--name", "friend")
    address = engine.inspect(box)["NetworkSettings"]["Networks"]["one"]["IPAddress"]
    pid = engine.inspect(friend)["State"]["Pid"]
    assert resolves(engine, friend, "box1")
    daemon.kill9(launcher=True)
    ping = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", "ping", "-c1", "-W2", address]
    assert engine.in_network(*ping, check=False).code in (0, 127) and answers(engine, 18061)
    daemon.start()
    ready = time.monotonic()
    wait_until(lambda: resolves(engine, friend, "box1"), "the name is found again", 5)
    found = time.monotonic()
    assert resolves(engine, friend, "box1")
    look_s = time.monotonic() - found  # how long asking takes on this machine, as busy as it is
    assert found - ready < 1 + 5 * look_s and answers(engine, 18061)
    engine.docker("network", "create", "two")
    engine.docker("network", "connect", "two", box)
    assert networks_of(engine, box) == {"one", "two"}
    engine.docker("network", "disconnect", "one", box)
    wait_until(lambda: answers(engine, 18061), "the port is reached by the other network", 5)
    engine.clean()
    for name in ("one", "two"):
        engine.docker("network", "rm", name)


def test_ports_of_a_running_container(daemon: Tared) -> None:
    """tare update publishes and takes back ports; a restart of the container and of the daemon keeps what was said."""
    engine = daemon.start().engine
    engine.prepare()
    box = engine.start("-p", "18062:80", command=["sh", "-c", SERVE])
    engine.tare_cli("update", "--publish-add", "18063:80", "--publish-rm", "18062:80", box)
    wait_until(lambda: answers(engine, 18063), "the new port is reached")
    assert not answers(engine, 18062)
    assert engine.inspect(box)["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "18063"}]}
    daemon.kill9()
    daemon.start()
    wait_until(lambda: answers(engine, 18063), "the new port is reached after a crash")
    engine.docker("restart", "-t", "0", box)
    wait_until(lambda: answers(engine, 18063), "the new port is reached after a restart")
    other = engine.start("-p", "18064:80")
    refused = engine.tare_cli("update", "--publish-add", "18064:80", "--publish-rm", "18063", box, check=False)
    assert refused.code == 1 and "doesn't publish port 18063/tcp so" in refused.err
    refused = engine.tare_cli("update", "--publish-add", "18064:80", "--publish-rm", "18063:80", box, check=False)
    assert refused.code == 1 and "port is already allocated" in refused.err
    wait_until(lambda: answers(engine, 18063), "what was there is there again")
    engine.docker("rm", "-f", other)
    engine.docker("stop", "-t", "0", box)
    engine.tare_cli("update", "--publish-add", "18064:80", box)
    engine.docker("start", box)
    wait_until(lambda: answers(engine, 18063) and answers(engine, 18064), "both ports are reached")


@pytest.mark.parametrize(
    "point",
    (
        "network.create.bridge",
        "network.attach.recorded",
        "network.connect.joined",
        "engine.publish.stored",
        "engine.publish.removed",
        "network.disconnect.left",
    ),
)
def test_cut_short(daemon: Tared, point: str) -> None:
    """Killed at this point the daemon comes up again, the container runs on, and every verb succeeds when repeated."""
    engine = daemon.start().engine
    engine.prepare()
    box = engine.start("-p", "18065:80", command=["sh", "-c", SERVE])
    daemon.terminate()
    daemon.start(env={"TARE_FAULT": f"{point}:kill"})

    def drive() -> bool:
        """All verbs in turn; each may have been done before. Whether the daemon lived through them."""
        failed = ""
        listed = engine.docker("network", "ls", "--format", "{{.Name}}", check=False).out.split()
        if "one" not in listed:
            failed += engine.docker("network", "create", "one", check=False).err
        for argv in (("network", "connect", "one", box), ("network", "disconnect", "one", box)):
            result = engine.docker(*argv, check=False)
            if "already exists" not in result.err and "is not connected" not in result.err:
                failed += result.err
        changes = ["update", "--publish-add", "18066:80", "--publish-rm", "18065:80", box]
        if "18066" not in engine.docker("port", box, check=False).out:
            failed += engine.tare_cli(*changes, check=False).err
        failed += engine.docker("network", "rm", "one", check=False).err
        return failed == ""

    assert not drive()
    daemon.wait_dead()
    daemon.start()
    assert engine.inspect(box)["State"]["Running"] and networks_of(engine, box) >= {"bridge"}
    assert drive(), daemon.log_tail()
    wait_until(lambda: answers(engine, 18066), "the new port is reached")
    assert not answers(engine, 18065)
