"""Two hundred containers at once: every verb answers for each of them, and a restarted daemon finds them all."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.deadline import wait_until
from support.rawhttp import Answer, RawClient
from support.tared import Tared

COUNT = 200
AT_ONCE = 10
PUBLISHED = range(0, COUNT, 10)
PROGRAM = "trap 'exit {code}' TERM; echo hello {number}; sleep 1000 & wait"


class Crowd:
    """All the containers, asked about in parallel."""

    def __init__(self, daemon: Tared) -> None:
        self.daemon = daemon
        self.client = RawClient(str(daemon.socket), check=False)
        self.pool = ThreadPoolExecutor(AT_ONCE)
        self.ids: list[str] = []

    def all(self, method: str, path: str, status: int, **query: str) -> list[Answer]:
        """The same request for each container; path has {} for its id. Every answer has that status."""
        answers = list(self.pool.map(lambda id_: self.client.request(method, path.format(id_), query=query), self.ids))
        assert {answer.status for answer in answers} == {status}, [a for a in answers if a.status != status][:3]
        return answers

    def listed(self, **query: str) -> list[Any]:
        """GET /containers/json."""
        answer = self.client.request("GET", "/containers/json", query=query)
        assert answer.status == 200, answer
        found: list[Any] = answer.json
        return found

    def ports(self) -> list[str]:
        """The bridge's ports, as the kernel has them."""
        return os.listdir(f"/sys/class/net/{self.daemon.mark}/brif")


def exit_code(number: int) -> int:
    return 1 + number % 100


def body(daemon: Tared, number: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "Image": daemon.engine.image,
        "Cmd": ["sh", "-c", PROGRAM.format(code=exit_code(number), number=number)],
        "HostConfig": {},
    }
    if number in PUBLISHED:
        made["ExposedPorts"] = {"80/tcp": {}}
        made["HostConfig"]["PortBindings"] = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    return made


@pytest.fixture
def crowd(daemon: Tared) -> Iterator[Crowd]:
    """Two hundred running containers on the default bridge, which is a /24."""
    daemon.start()
    daemon.engine.prepare()
    made = Crowd(daemon)

    def create(number: int) -> str:
        answer = made.client.request("POST", "/containers/create", body(daemon, number))
        assert answer.status == 201, answer
        return str(answer.json["Id"])

    try:
        made.ids = list(made.pool.map(create, range(COUNT)))
        made.all("POST", "/containers/{}/start", 204)
        yield made
        made.all("DELETE", "/containers/{}", 204, force="1", trash="0")
        assert made.listed(all="1") == []
        wait_until(lambda: made.ports() == [], "the bridge has no port left")
    finally:
        made.pool.shutdown()


def test_two_hundred_containers(crowd: Crowd) -> None:
    """List, networks, logs, stats and events know all of them; a restarted daemon too; each ends with its own code."""
    check_lists(crowd)
    check_output(crowd)
    before = {one["Id"]: one["State"]["Pid"] for one in (a.json for a in crowd.all("GET", "/containers/{}/json", 200))}
    crowd.daemon.restart()
    after = {one["Id"]: one["State"]["Pid"] for one in (a.json for a in crowd.all("GET", "/containers/{}/json", 200))}
    assert after == before, "a restarted daemon took containers for others"
    check_lists(crowd)
    check_ends(crowd)


def check_lists(crowd: Crowd) -> None:
    """All run, each with an address of its own, a port of the bridge, and the published port that it asked for."""
    running = crowd.listed()
    assert {one["Id"] for one in running} == set(crowd.ids)
    addresses = {one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for one in running}
    subnet = ipaddress.ip_interface(crowd.daemon.bip).network
    gateway = crowd.daemon.bip.partition("/")[0]
    assert len(addresses) == COUNT and gateway not in addresses
    assert all(ipaddress.ip_address(address) in subnet for address in addresses)
    assert len(crowd.ports()) == COUNT
    published = [port["PublicPort"] for one in running for port in one["Ports"] if "PublicPort" in port]
    assert len(published) == len(set(published)) == len(PUBLISHED)
    network = crowd.client.request("GET", "/networks/bridge").json
    assert set(network["Containers"]) == set(crowd.ids)


def check_output(crowd: Crowd) -> None:
    """Every log holds its container's own line, every container is measured."""
    for number, id_ in enumerate(crowd.ids):
        assert wait_until(functools.partial(log_of, crowd, id_), "its log holds a line") == b"hello %d\n" % number
    query = {"stream": "0", "one-shot": "1"}
    measured = [answer.json for answer in crowd.all("GET", "/containers/{}/stats", 200, **query)]
    assert all(one["memory_stats"]["usage"] > 0 and one["pids_stats"]["current"] >= 1 for one in measured)


def log_of(crowd: Crowd, id_: str) -> bytes:
    answer = crowd.client.request("GET", f"/containers/{id_}/logs", query={"stdout": "1"})
    assert answer.status == 200, answer
    return answer.body[8:]  # one frame


def check_ends(crowd: Crowd) -> None:
    """Each is stopped by SIGTERM and ends with its own code; there is one event of each end."""
    since = crowd.client.request("GET", "/info").json["SystemTime"]
    crowd.all("POST", "/containers/{}/stop", 204, t="30")
    codes = [answer.json["StatusCode"] for answer in crowd.all("POST", "/containers/{}/wait", 200)]
    assert codes == [exit_code(number) for number in range(COUNT)]
    until = crowd.client.request("GET", "/info").json["SystemTime"]
    query = {"since": since, "until": until, "filters": json.dumps({"event": ["die"]})}
    events = [json.loads(line) for line in crowd.client.request("GET", "/events", query=query).body.splitlines()]
    assert sorted(event["Actor"]["ID"] for event in events) == sorted(crowd.ids)
    ended = crowd.listed(all="1")
    assert {one["State"] for one in ended} == {"exited"} and len(ended) == COUNT
