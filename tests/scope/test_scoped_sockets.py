"""Scoped API sockets: who may do what there, through real clients, and that no form of a body slips past the check."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.rawhttp import RawClient
from support.tared import Tared
from tare.api.operations import operations
from tare.api.scope import decisions
from tare.api.scope_bodies import CHECKED, FREE
from tare.api.serve import ROUTES
from tare.daemon.scoped_sockets import PROJECT_LABEL, parse_socket
from tare.engine.options import HostOptions
from tare.errors import InvalidArgument

ROLES = {
    "viewer": "role=viewer",
    "operator": "role=operator",
    "red-viewer": "role=viewer,label=team=red",
    "red": "role=operator,label=team=red",
    "shop": "role=operator,project=shop",
    "admin": "role=admin",
}


class World:
    """An engine with a socket for each of ROLES, and a red and a blue container that run."""

    def __init__(self, daemon: Tared) -> None:
        self.daemon = daemon
        self.root = daemon.engine
        self.on = {name: Engine("tare", daemon.home / f"{name}.sock") for name in ROLES}
        for engine in self.on.values():
            engine.api = RawClient(str(engine.socket), check=False)  # Docker's file knows no 403 in most places
            engine.image = self.root.image
        flags = ("-e", "SECRET=hunter2")
        self.red = self.root.start("--label", "team=red", "--name", "red", *flags)
        self.blue = self.root.start("--label", "team=blue", "--name", "blue", *flags)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One world for all tests here; they leave red and blue running."""
    daemon = Tared()
    for name, rest in ROLES.items():
        daemon.args += ["--socket", f"path={daemon.home}/{name}.sock,{rest}"]
    try:
        daemon.start()
        daemon.engine.prepare()
        yield World(daemon)
    finally:
        daemon.stop()


@pytest.fixture(autouse=True)
def only_red_and_blue(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test makes is gone after it."""
    yield
    if "world" in request.fixturenames:
        made: World = request.getfixturevalue("world")
        for container in set(made.root.containers()) - {made.red, made.blue}:
            made.root.api.request("DELETE", f"/containers/{container}?force=1", check=False)


# -- the table -------------------------------------------------------------------------------------------------------


def test_every_operation_has_a_decision() -> None:
    """Each operation of Docker's and of Tare's own is decided by name, and no name is decided that isn't one."""
    names = {name for _, _, name, _ in operations()} | {route.name for route in ROUTES}
    assert set(decisions()) == names


def test_every_option_has_a_decision() -> None:
    """What is free or checked is an option; all others must be empty, new ones included."""
    assert set(HostOptions.__struct_fields__) >= FREE | CHECKED and not FREE & CHECKED
    assert not (FREE | CHECKED) & set("privileged cap_add devices device_cgroup_rules userns_mode uts_mode".split())


@pytest.mark.parametrize(
    "text",
    [
        "role=viewer",
        "path=x.sock,role=viewer",
        "path=/x,role=king",
        "path=/x",
        "path=/x,role=viewer,role=admin",
        "path=/x,role=viewer,label=team",
        "path=/x,role=viewer,label=image=x",
        "path=/x,role=admin,label=a=b",
        "path=/x,role=viewer,colour=red",
        "path=/x,role=viewer,label=a=b,label=a=c",
    ],
)
def test_wrong_sockets_are_refused(text: str) -> None:
    """What isn't clear isn't guessed."""
    with pytest.raises(InvalidArgument):
        parse_socket(text)


def test_socket_words() -> None:
    """A project is the label that Compose gives its containers."""
    found = parse_socket("path=/x,role=operator,project=shop,label=a=b=c,group=dev")
    assert (found.path, found.role, found.group) == ("/x", "operator", "dev")
    assert found.labels == {PROJECT_LABEL: "shop", "a": "b=c"}


# -- the matrix ------------------------------------------------------------------------------------------------------

READS = [
    ["ps"],
    ["inspect", "red"],
    ["logs", "red"],
    ["top", "red"],
    ["images"],
    ["version"],
    ["info"],
    ["diff", "red"],
]
RUNS = [
    ["exec", "red", "true"],
    ["pause", "red"],
    ["unpause", "red"],
    ["restart", "-t", "0", "red"],
    ["cp", "red:/etc/passwd", "-"],
]
NEVER = [
    ["import", "-", "evil"],
    ["commit", "red", "x"],
    ["rmi", "box"],
    ["tag", "box", "y"],
    ["update", "-m", "1g", "red"],
]


@pytest.mark.parametrize("role", list(ROLES))
def test_matrix(world: World, role: str) -> None:
    """Each role does with Docker's command line what it may, and nothing else."""
    engine = world.on[role]
    for argv in READS:
        seen = engine.docker(*argv, check=False)
        assert (seen.code == 0) == (role != "shop" or "red" not in argv), (argv, seen)
    for argv in RUNS:
        done = engine.docker(*argv, check=False)
        assert (done.code == 0) == (role in ("operator", "red", "admin")), (argv, done)
        if role in ("viewer", "red-viewer"):
            assert "is not allowed on this socket: its role is viewer" in done.err
    if role != "admin":
        for argv in NEVER:
            refused = engine.docker(*argv, input=b"", check=False)
            assert refused.code != 0 and ("is not allowed on this socket" in refused.err), (argv, refused)
    assert world.root.docker("inspect", "-f", "{{.State.Status}}", "red").out.strip() == "running"


def test_labels_hide_others(world: World) -> None:
    """On a labelled socket the others' containers aren't there: in lists, by name, by id, in their namespaces."""
    red = world.on["red"]
    assert red.docker("ps", "-aq", "--no-trunc").out.split() == [world.red]
    assert sorted(world.on["operator"].docker("ps", "-aq", "--no-trunc").out.split()) == sorted([world.red, world.blue])
    for ref in ("blue", world.blue, world.blue[:12]):
        for argv in (["inspect", ref], ["logs", ref], ["stop", ref], ["exec", ref, "true"], ["rm", ref]):
            refused = red.docker(*argv, check=False)
            assert refused.code != 0 and "o such" in refused.err, (argv, refused)
    joined = red.docker("run", "--rm", "--pid", "container:blue", red.image, "true", check=False)
    assert joined.code == 125 and "container blue is not allowed on this socket" in joined.err
    for flags in (["--volumes-from", "blue"], ["--net", "container:blue"], ["--ipc", "container:blue"]):
        assert red.docker("create", *flags, red.image, check=False).code == 1
    body = {"Cmd": ["true"], "HostConfig": {"DependsOn": ["blue"]}}
    assert red.create(body).status == 403
    assert red.docker("ps", "-aq", "--filter", "label=team=blue").out == ""
    assert red.api.request("POST", "/containers/prune").status == 200
    assert world.root.docker("inspect", "-f", "{{.State.Status}}", "blue").out.strip() == "running"


def test_an_exec_of_another_is_not_there(world: World) -> None:
    """Exec ids are looked up by their container, too."""
    made = world.root.api.request("POST", "/containers/blue/exec", {"Cmd": ["true"]}).json["Id"]
    red = world.on["red"].api
    assert red.request("GET", f"/exec/{made}/json").status == 404
    assert red.request("POST", f"/exec/{made}/start", {"Detach": True}).status == 404
    assert world.root.api.request("GET", f"/exec/{made}/json").json["Running"] is False


def test_what_is_made_gets_the_labels(world: World) -> None:
    """A container, volume or network that a labelled socket makes bears the labels, whatever the body says."""
    red = world.on["red"]
    body = {"Cmd": ["true"], "Labels": {"team": "blue", "x": "y"}, "LABELS": {"team": "green"}}
    made = red.create(body).json["Id"]
    labels = world.root.inspect(made)["Config"]["Labels"]
    assert labels["team"] == "red"
    volume = red.api.request("POST", "/volumes/create", {"Name": "redvol", "Labels": {"team": "blue"}}).json
    assert volume["Labels"]["team"] == "red"
    world.root.docker("volume", "create", "bluevol")
    assert [entry["Name"] for entry in red.api.request("GET", "/volumes").json["Volumes"]] == ["redvol"]
    assert red.docker("run", "--rm", "-v", "redvol:/v", red.image, "touch", "/v/x").code == 0
    for argv in (
        ["volume", "inspect", "bluevol"],
        ["volume", "rm", "bluevol"],
    ):
        refused = red.docker(*argv, check=False)
        assert refused.code == 1 and "no such volume" in refused.err
    for name in ("bluevol", "nobodys"):  # the same whether there is one or not
        refused = red.docker("create", "-v", f"{name}:/v", red.image, check=False)
        assert refused.code == 1 and f"volume {name} is not allowed on this socket" in refused.err
    again = red.api.request("POST", "/volumes/create", {"Name": "bluevol"})
    assert again.status == 404
    world.root.docker("volume", "rm", "bluevol", "redvol")
    run = world.on["shop"].docker("run", "-d", red.image, "sleep", "1000").out.strip()
    assert world.root.inspect(run)["Config"]["Labels"][PROJECT_LABEL] == "shop"


def test_viewers_see_no_values(world: World) -> None:
    """inspect on a viewer's socket has variables' names and not what they hold; an operator sees them."""
    for role in ("viewer", "red-viewer"):
        text = world.on[role].docker("inspect", "red").out
        assert "hunter2" not in text and "SECRET=(hidden)" in text
    assert "hunter2" in world.on["red"].docker("inspect", "red").out


def test_events_are_the_scopes_own(world: World) -> None:
    """A labelled socket's events are those of its containers."""
    since = world.root.docker("info", "-f", "{{.SystemTime}}").out.strip()
    world.root.docker("kill", "-s", "USR1", "red")
    world.root.docker("kill", "-s", "USR2", "blue")
    world.root.docker("volume", "create", "evvol")
    world.root.docker("volume", "rm", "evvol")
    until = world.root.docker("info", "-f", "{{.SystemTime}}").out.strip()
    bounds = ("--since", since, "--until", until, "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}")
    assert world.on["red-viewer"].docker("events", *bounds).out == "container kill red\n"
    assert world.on["red-viewer"].docker("events", *bounds, "--filter", "type=volume").out == ""
    assert "blue" in world.on["viewer"].docker("events", *bounds).out


HOSTILE: list[dict[str, Any]] = [
    {"Privileged": True},
    {"Binds": ["/:/host"]},
    {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]},
    {"Mounts": [{"Type": "volume", "Target": "/v", "VolumeOptions": {"DriverConfig": {"Options": {"device": "/"}}}}]},
    {"PidMode": "host"},
    {"NetworkMode": "host"},
    {"IpcMode": "host"},
    {"UTSMode": "host"},
    {"UsernsMode": "host"},
    {"CgroupnsMode": "host"},
    {"CapAdd": ["SYS_ADMIN"]},
    {"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}]},
    {"DeviceCgroupRules": ["a *:* rwm"]},
    {"SecurityOpt": ["seccomp=unconfined"]},
    {"SecurityOpt": ["apparmor=unconfined"]},
    {"CgroupParent": "/"},
    {"Sysctls": {"kernel.msgmax": "1"}},
    {"MaskedPaths": [], "ReadonlyPaths": ["/x"]},
    {"Runtime": "runc"},
    {"OomScoreAdj": -500},
    {"VolumeDriver": "nfs"},
    {"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "udp://10.0.0.1:514"}}},
    {"StorageOpt": {"size": "1g"}},
]


@pytest.mark.parametrize("host", HOSTILE, ids=lambda host: next(iter(host)))
def test_operators_make_nothing_that_reaches_the_host(world: World, host: dict[str, Any]) -> None:
    """Every option that leads out of the container is refused to operators, and nothing is made."""
    for role in ("operator", "red"):
        before = world.root.containers()
        answer = world.on[role].create({"Cmd": ["true"], "HostConfig": host})
        assert answer.status == 403 and "is not allowed on this socket" in answer.message, answer
        assert world.root.containers() == before


def test_masked_paths_stay(world: World) -> None:
    """An empty list of masked paths would lift the masks: it is refused, as null is not."""
    made = world.on["operator"].create({"Cmd": ["true"], "HostConfig": {"MaskedPaths": None, "ReadonlyPaths": None}})
    assert made.status == 201
    refused = world.on["operator"].create({"Cmd": ["true"], "HostConfig": {"MaskedPaths": [], "ReadonlyPaths": []}})
    assert refused.status == 403


def test_other_ways_to_the_host(world: World) -> None:
    """A privileged exec, a volume that mounts the host, a network over the host's links: refused."""
    api = world.on["operator"].api
    assert api.request("POST", "/containers/red/exec", {"Cmd": ["id"], "Privileged": True}).status == 403
    options = {"type": "none", "o": "bind", "device": "/"}
    assert api.request("POST", "/volumes/create", {"Name": "evil", "DriverOpts": options}).status == 403
    network = {"Name": "evil", "Options": {"com.docker.network.bridge.name": "eth0"}}
    assert api.request("POST", "/networks/create", network).status == 403
    assert api.request("POST", "/networks/create", {"Name": "evil", "Driver": "macvlan"}).status == 403
    subnet = {"Name": "evil", "IPAM": {"Config": [{"Subnet": "198.51.100.0/24"}]}}
    assert api.request("POST", "/networks/create", subnet).status == 403
    assert api.request("POST", "/networks/create", {"Name": "evil", "EnableIPv6": True}).status == 403


def test_a_resolver_of_ones_own_is_no_way_round_a_networks_policy(world: World) -> None:
    """Which addresses a name of the network's egress policy stands for isn't said by a resolver that an operator
    names, neither at create nor by a connection later."""
    operator, api = world.on["operator"], world.on["operator"].api
    world.root.docker("network", "create", "-o", "tare.network.egress=allow=shop.example:443", "bound")
    try:
        for networks in (
            {"HostConfig": {"NetworkMode": "bound"}},
            {"NetworkingConfig": {"EndpointsConfig": {"bound": {}}}},
        ):
            own = {"HostConfig": {"Dns": ["203.0.113.53"], **networks.get("HostConfig", {})}}
            assert operator.create({"Cmd": ["true"], **networks, **own}).status == 403
            assert operator.create({"Cmd": ["true"], **networks}).status == 201
        made = operator.create({"Cmd": ["true"], "HostConfig": {"Dns": ["203.0.113.53"]}})
        assert made.status == 201
        wish = {"Container": made.json["Id"]}
        assert api.request("POST", "/networks/bound/connect", wish).status == 403
        assert world.root.api.request("POST", "/networks/bound/connect", wish).status == 200
    finally:
        for container in set(world.root.containers()) - {world.red, world.blue}:
            world.root.api.request("DELETE", f"/containers/{container}?force=1", check=False)
        world.root.docker("network", "rm", "bound")


def test_networks_of_a_scope(world: World) -> None:
    """A labelled socket makes networks that bear its labels, uses these, and not others'."""
    red = world.on["red"]
    red.docker("network", "create", "rednet")
    world.root.docker("network", "create", "bluenet")
    try:
        assert world.root.docker("network", "inspect", "-f", "{{.Labels.team}}", "rednet").out == "red\n"
        assert red.docker("network", "ls", "--format", "{{.Name}}").out == "rednet\n"
        red.docker("run", "-d", "--name", "netted", "--network", "rednet", red.image, "sleep", "1000")
        refused = red.docker("run", "--rm", "--network", "bluenet", red.image, "true", check=False)
        assert refused.code == 125 and "network bluenet is not allowed on this socket" in refused.err
        assert red.docker("network", "rm", "bluenet", check=False).code == 1
        assert red.docker("network", "connect", "rednet", "blue", check=False).code == 1
        seen = red.docker("network", "inspect", "-f", "{{json .Containers}}", "bridge").out
        assert "blue" not in seen and '"red"' in seen
        red.docker("rm", "-f", "netted")
        red.docker("network", "rm", "rednet")
    finally:
        world.root.docker("network", "rm", "-f", "bluenet", "rednet")


def test_filters_tell_nothing_of_others(world: World) -> None:
    """A filter that names another's container answers as if there were none."""
    refused = world.on["red"].docker("ps", "-a", "--filter", "since=blue", check=False)
    assert refused.code == 1 and "No such container: blue" in refused.err


def test_sockets_from_the_configuration_file(daemon: Tared) -> None:
    """`sockets` in the file is a list of what --socket takes; a group that isn't there is an error at start."""
    config = daemon.home / "tared.json"
    config.write_text(json.dumps({"sockets": [f"path={daemon.home}/v.sock,role=viewer"]}))
    daemon.args += ["--config-file", str(config)]
    daemon.start()
    viewer = RawClient(str(daemon.home / "v.sock"), check=False)
    assert viewer.request("GET", "/containers/json").status == 200
    assert viewer.request("POST", "/containers/prune").status == 403
    daemon.terminate()
    assert not (daemon.home / "v.sock").exists()
    config.write_text(json.dumps({"sockets": [f"path={daemon.home}/v.sock,role=viewer,group=no-such-group"]}))
    daemon.start(wait=False)
    assert daemon.wait_dead() == 1 and "no such group: no-such-group" in daemon.log_tail()


# -- what the check sees is what is done (CVE-2024-41110) -------------------------------------------------------------

PRIVILEGED = b'{"Image":"box","Cmd":["true"],"HostConfig":{"Privileged":true}}'
BODIES = {
    "plain": PRIVILEGED,
    "other case": PRIVILEGED.replace(b"HostConfig", b"hostconfig").replace(b"Privileged", b"pRIVILEGED"),
    "escaped": PRIVILEGED.replace(b"Privileged", rb"\u0050rivileged"),
    "twice, harmless last": b'{"Image":"box","HostConfig":{"Privileged":true},"HostConfig":{}}',
    "twice, harmless first": b'{"Image":"box","HostConfig":{},"HostConfig":{"Privileged":true}}',
    "two cases, harmless last": b'{"Image":"box","HostConfig":{"Privileged":true},"hostconfig":{}}',
    "two cases, harmless first": b'{"Image":"box","hostconfig":{},"HostConfig":{"Privileged":true}}',
    "key twice": b'{"Image":"box","HostConfig":{"Privileged":true,"privileged":false}}',
    "key twice, other way": b'{"Image":"box","HostConfig":{"privileged":false,"Privileged":true}}',
    "second document": b'{"Image":"box"}' + PRIVILEGED,
    "first document": PRIVILEGED + b'{"Image":"box"}',
    "padded": b" " * 70_000 + PRIVILEGED,
    "unknown keys between": PRIVILEGED.replace(b'"HostConfig"', b'"X":{"HostConfig":{}},"HostConfig"'),
    "byte order mark": b"\xef\xbb\xbf" + PRIVILEGED,
    "utf-16": PRIVILEGED.decode().encode("utf-16"),
    "broken at the end": PRIVILEGED[:-1] + b',"x":}',
}


def raw(path: Path, head: str, body: bytes) -> bytes:
    """What a server answers to bytes as they are."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        found = b""
        while data := client.recv(65536):
            found += data
        return found


def framings(body: bytes) -> dict[str, tuple[str, bytes]]:
    """Ways to say how long a body is; some of them lie."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    return {
        "sized": (f"Content-Length: {len(body)}", body),
        "chunked": ("Transfer-Encoding: chunked", chunks),
        "no length": ("X: y", body),
        "length 0": ("Content-Length: 0", body),
        "length 1": ("Content-Length: 1", body),
        "both": ("Content-Length: 0\nTransfer-Encoding: chunked", chunks),
        "expect": (f"Expect: 100-continue\nContent-Length: {len(body)}", body),
        "gzip said": (f"Content-Encoding: gzip\nContent-Length: {len(body)}", body),
    }


@pytest.mark.parametrize("path", ["/containers/create", "/v1.41/containers/create", "/containers/%63reate"])
@pytest.mark.parametrize("form", list(BODIES))
def test_no_body_slips_past_the_check(world: World, form: str, path: str) -> None:
    """However the body is written, framed and addressed: what is made isn't privileged, and bears the label."""
    sock = world.on["red"].socket
    for head, body in framings(BODIES[form]).values():
        start = f"POST {path} HTTP/1.1\nHost: x\nContent-Type: application/json\nConnection: close"
        answer = raw(sock, f"{start}\n{head}", body)
        assert answer.startswith(b"HTTP/1.1 "), answer
    for made in set(world.root.containers()) - {world.red, world.blue}:
        detail = world.root.inspect(made)
        assert detail["HostConfig"]["Privileged"] is False and detail["Config"]["Labels"]["team"] == "red"
        world.root.api.request("DELETE", f"/containers/{made}?force=1")


def test_nothing_behind_a_request_is_unscoped(world: World) -> None:
    """Requests on one connection are each checked; a hijacked stream ends in its container."""
    sock = world.on["viewer"].socket
    first = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
    second = b"POST /containers/red/stop?t=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(sock))
        client.sendall(first + second)
        found = b""
        while data := client.recv(65536):
            found += data
    assert b"HTTP/1.1 200" in found and b"HTTP/1.1 403" in found


@pytest.mark.parametrize(
    "path", ["/containers//red/json/../stop", "/containers/red/stop/", "/v1.55/./containers/red/stop"]
)
def test_odd_paths_do_nothing(world: World, path: str) -> None:
    """A path that another part might read differently reaches no operation."""
    status = RawClient(str(world.on["viewer"].socket), check=False).request("POST", path).status
    assert status in (301, 403, 404)
    assert world.root.inspect("red")["State"]["Running"]


def test_a_name_that_moves_is_no_way_in(world: World) -> None:
    """What was checked is what is acted on: an id, not a name that another container has taken meanwhile."""
    from types import SimpleNamespace

    from tare.api.call import Call
    from tare.api.scope import Scope

    found = SimpleNamespace(id="f" * 64, config=SimpleNamespace(labels={"team": "red"}))
    engine = SimpleNamespace(containers=SimpleNamespace(find=lambda ref: found))
    call = Call(engine, None, (1, 55), {"id": "web"}, {}, {})  # type: ignore[arg-type]
    admitted = Scope("operator", {"team": "red"})._pinned(call, "container")
    assert admitted.path["id"] == "f" * 64


def test_docker_clients_whole_life(world: World) -> None:
    """An operator's day with Docker's command line: run, logs, exec, cp, stop, rm; only within the label."""
    red = world.on["red"]
    out = red.docker("run", "--rm", "-i", "--name", "job", "-m", "64m", red.image, "cat", input="hello").out
    assert out == "hello"
    red.docker("run", "-d", "--name", "svc", "--restart", "always", red.image, "sh", "-c", "echo up; sleep 1000")
    wait_until(lambda: red.docker("logs", "svc").out == "up\n", "its output")
    assert red.docker("exec", "svc", "echo", "in").out == "in\n"
    red.docker("cp", "-", "svc:/tmp", input=world.root.docker("cp", "red:/etc/passwd", "-").out)
    red.docker("stop", "-t", "0", "svc")
    red.docker("rm", "svc")
    assert json.loads(red.api.request("GET", "/containers/json?all=1").body)[0]["Id"] == world.red


def test_modes_of_the_socket_files(world: World) -> None:
    """A scoped socket is its owner's and its group's; nobody else's."""
    for name in ROLES:
        assert (world.daemon.home / f"{name}.sock").stat().st_mode & 0o777 == 0o660
