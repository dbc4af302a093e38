"""Bad input: requests whose status and message must be Docker's, on both engines; nothing stays behind."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from support.engine import Engine
from support.placeholders import fill

NO = "no-such"
NO_CONTAINER = f"[Nn]o such container: {NO}$"
NO_IMAGE = f"[Nn]o such image: {NO}(:latest)?$"
CREATE = "/containers/create"
OTHERS_NETWORK = {"NetworkMode": "container:{running}"}
BAD_NAME = r"Invalid container name \({}\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\] are allowed$"
KILL = "^([Cc]annot kill container: .+: )?"  # 28 says so
TAKEN = (
    r'^Conflict\. The container name "/{name}" is already in use by container "?[0-9a-f]{64}"?\. '
    r"You have to remove \(or rename\) that container to be able to reuse that name\.$"
)


TAKEN_BY_28 = ("create without an image", "a name without end", "an exposed port that is none")


class Case(NamedTuple):
    """A request, the status, and a pattern of the message that holds for every Docker from 20.10 on."""

    method: str
    path: str
    status: int
    pattern: str = "."
    body: Any = None
    only_newer: bool = False  # Docker 20.10 let it through


def create(pattern: str = ".", *, only_newer: bool = False, status: int = 400, **fields: Any) -> Case:
    """POST /containers/create with otherwise good fields."""
    body = {"Image": "{image}", "Cmd": ["true"], **fields}
    return Case("POST", CREATE, status, pattern, body, only_newer)


def host(pattern: str = ".", *, only_newer: bool = False, **fields: Any) -> Case:
    """The same with fields of HostConfig."""
    return create(pattern, only_newer=only_newer, HostConfig=fields)


def filtered(path: str, filters: str, pattern: str = ".") -> Case:
    """GET of a list with a filter."""
    return Case("GET", f"{path}?{urlencode({'filters': filters})}", 400, pattern)


UNKNOWN_CONTAINER = {
    f"{method} {rest or 'container'} of an unknown container": Case(
        method, f"/containers/{NO}{'/' if rest else ''}{rest}", 404, NO_CONTAINER, {} if rest in ("update",) else None
    )
    for method, rest in [
        *[("GET", rest) for rest in ("json", "logs?stdout=1", "top", "stats?stream=0", "changes", "export")],
        *[("POST", rest) for rest in ("start", "stop", "restart", "kill", "pause", "unpause", "wait", "update")],
        *[("POST", rest) for rest in ("attach?stream=1&stdout=1", "resize?h=10&w=10", "rename?name=tt-x")],
        ("DELETE", ""),
    ]
}
TABLE: dict[str, Case] = {
    **UNKNOWN_CONTAINER,
    "exec in an unknown container": Case("POST", f"/containers/{NO}/exec", 404, NO_CONTAINER, {"Cmd": ["x"]}),
    "commit of an unknown container": Case("POST", f"/commit?container={NO}", 404, NO_CONTAINER),
    "start of an unknown exec": Case("POST", f"/exec/{NO}/start", 404, f"[Nn]o such exec instance: {NO}$", {}),
    "inspect of an unknown exec": Case("GET", f"/exec/{NO}/json", 404, f"[Nn]o such exec instance: {NO}$"),
    "inspect of an unknown image": Case("GET", f"/images/{NO}/json", 404, NO_IMAGE),
    "history of an unknown image": Case("GET", f"/images/{NO}/history", 404, NO_IMAGE),
    "tag of an unknown image": Case("POST", f"/images/{NO}/tag?repo=x", 404, NO_IMAGE),
    "remove of an unknown image": Case("DELETE", f"/images/{NO}", 404, f"No such image: {NO}:latest$"),
    "create from an unknown image": create(f"^No such image: {NO}:latest$", status=404, Image=NO),
    "create from an unknown digest": create(
        f"^No such image: {NO}@sha256:0{{64}}$", status=404, Image=f"{NO}@sha256:{'0' * 64}"
    ),
    "create without an image": create(Image="", only_newer=True),
    "create with nothing to run": create("^[Nn]o command specified$", Image="{bare}", Cmd=None),
    "an image in capitals": create("^invalid reference format: repository name", Image="UPPER"),
    "a name with a space": Case(
        "POST", f"{CREATE}?name=a%20b", 400, "^" + BAD_NAME.format("a b"), {"Image": "{image}"}
    ),
    "a name of one letter": Case("POST", f"{CREATE}?name=x", 400, "^" + BAD_NAME.format("x"), {"Image": "{image}"}),
    "a name of a path": Case("POST", f"{CREATE}?name=..%2Fx", 400, "^Invalid container name", {"Image": "{image}"}),
    "a name without end": Case(
        "POST", f"{CREATE}?name={'n' * 256}", 400, "at most 255 characters", {"Image": "{image}"}, only_newer=True
    ),
    "a name that is taken": Case("POST", f"{CREATE}?name={{name}}", 409, TAKEN, {"Image": "{image}", "Cmd": ["x"]}),
    "no body": Case("POST", CREATE, 400),
    "half a body": Case("POST", CREATE, 400, ".", b'{"Image": "x"'),
    "a body of another shape": Case("POST", CREATE, 400, ".", b"[1, 2]"),
    "no JSON": Case("POST", CREATE, 400, ".", b"<xml/>"),
    "something after the body": Case("POST", CREATE, 400, ".", b'{"Image": "x"} {"y": 1}'),
    "a number for a text": create("json: cannot unmarshal|invalid JSON", Image=5),
    "a text for a number": host("json: cannot unmarshal|invalid JSON", Memory="much"),
    "an object for a list": create("json: cannot unmarshal|invalid JSON", Env={"A": "1"}),
    "too little memory": host("^Minimum memory limit allowed is 6MB$", Memory=1000),
    "swap below memory": host(
        "^Minimum memoryswap limit should be larger than memory limit, see usage$", Memory=64 << 20, MemorySwap=32 << 20
    ),
    "more CPUs than there are": host(
        r"^[Rr]ange of CPUs is from 0.01 to \d+.00, as there are only \d+ CPUs available$", NanoCpus=10**13
    ),
    "quota and CPUs": host(
        "^Conflicting options: Nano CPUs and CPU Quota cannot both be set.?$", NanoCpus=10**9, CpuQuota=5000
    ),
    "an unknown capability": host('^invalid CapAdd: unknown capability: "CAP_NO_SUCH"$', CapAdd=["NO_SUCH"]),
    "an unknown restart policy": host("^invalid restart policy", RestartPolicy={"Name": "sometimes"}),
    "retries without on-failure": host(
        "maximum retry count (cannot|can only) be used with", RestartPolicy={"Name": "always", "MaximumRetryCount": 2}
    ),
    "removal and restart": host(
        "^can't create 'AutoRemove' container with restart policy$", AutoRemove=True, RestartPolicy={"Name": "always"}
    ),
    "a relative working directory": create(
        "^the working directory 'a/b' is invalid, it needs to be an absolute path$", WorkingDir="a/b"
    ),
    "a variable without a name": create("^invalid environment variable: =x$", Env=["=x"]),
    "an unknown stop signal": create("^[Ii]nvalid signal: SIGNOPE$", StopSignal="SIGNOPE"),
    "an exposed port that is none": create(ExposedPorts={"x/tcp": {}}, only_newer=True),
    "an unknown pid mode": host("[Ii]nvalid PID mode", PidMode="nonsense", only_newer=True),
    "a filter that is no JSON": filtered("/containers/json", "{x"),
    "an unknown filter": filtered("/containers/json", '{"no":["x"]}', "^[Ii]nvalid filter '?no'?$"),
    "an unknown status": filtered("/containers/json", '{"status":["odd"]}', "odd"),
    "an unknown image filter": filtered("/images/json", '{"no":["x"]}', "^[Ii]nvalid filter '?no'?$"),
    "a filter that is neither true nor false": filtered(
        "/images/json", '{"dangling":["x"]}', r"^[Ii]nvalid filter 'dangling=\[x\]'$"
    ),
    "a time that is none": Case(
        "POST",
        "/images/prune?" + urlencode({"filters": '{"until":["x"]}'}),
        400,
        '^failed to parse value as time or duration: "x"$',
    ),
    "a security option without a value": host('^invalid --security-opt 1: "foo"$', SecurityOpt=["foo"]),
    "an unknown security option": host('^invalid --security-opt 2: "foo=bar"$', SecurityOpt=["foo=bar"]),
    "a hostname in the host's UTS namespace": create(
        "^conflicting options: hostname and the UTS mode$", Hostname="x", HostConfig={"UTSMode": "host"}
    ),
    "a hostname in another's network": create(
        "^conflicting options: hostname and the network mode$", Hostname="x", HostConfig=OTHERS_NETWORK
    ),
    "ports in another's network": host(
        "^conflicting options: port publishing and the container type network mode$",
        PortBindings={"80/tcp": [{"HostPort": ""}]},
        **OTHERS_NETWORK,
    ),
    "all ports in another's network": host(
        "^conflicting options: port publishing and the container type", PublishAllPorts=True, **OTHERS_NETWORK
    ),
    "exposed ports in another's network": create(
        "^conflicting options: port exposing and the container type network mode$",
        ExposedPorts={"80/tcp": {}},
        HostConfig=OTHERS_NETWORK,
    ),
    "name servers in another's network": host(
        "^conflicting options: dns and the network mode$", Dns=["1.1.1.1"], **OTHERS_NETWORK
    ),
    "hosts in another's network": host(
        "^conflicting options: custom host-to-IP mapping and the network mode$",
        ExtraHosts=["a:1.1.1.1"],
        **OTHERS_NETWORK,
    ),
    "an address in another's network": create(
        "^conflicting options: mac-address and the network mode$",
        MacAddress="02:42:ac:11:00:09",
        HostConfig=OTHERS_NETWORK,
    ),
    "a network of another scope": Case("GET", "/networks/bridge?scope=swarm", 404, "^network bridge not found$"),
    "neither verbose nor not": Case(
        "GET",
        "/networks/bridge?verbose=odd",
        400,
        '^invalid value for verbose: odd: strconv.ParseBool: parsing "odd": ',
    ),
    "an unknown condition": Case(
        "POST", "/containers/{running}/wait?condition=odd", 400, '^[Ii]nvalid condition: "odd"$', only_newer=True
    ),
    "an unknown signal": Case("POST", "/containers/{running}/kill?signal=NOPE", 400, KILL + "[Ii]nvalid signal: NOPE$"),
    "a signal out of range": Case("POST", "/containers/{running}/kill?signal=99999", 400, "signal:? 99999$"),
    "kill of a stopped one": Case("POST", "/containers/{created}/kill", 409, "is not running$"),
    "pause of a stopped one": Case("POST", "/containers/{created}/pause", 409, "is not running$"),
    "unpause of a running one": Case("POST", "/containers/{running}/unpause", 500, "is not paused$"),
    "resize without numbers": Case("POST", "/containers/{running}/resize?h=x&w=y", 400),
    "exec without a command": Case("POST", "/containers/{running}/exec", 400, "^No exec command specified$", {}),
    "exec in a stopped one": Case("POST", "/containers/{created}/exec", 409, "is not running$", {"Cmd": ["x"]}),
    "rename to nothing": Case(
        "POST", "/containers/{running}/rename?name=", 400, "^Neither old nor new names may be empty$"
    ),
    "rename to itself": Case(
        "POST",
        "/containers/{running}/rename?name={name}",
        400,
        "^Renaming a container with the same name as its current name$",
    ),
    "rename to a path": Case(
        "POST",
        "/containers/{running}/rename?name=a%2Fb",
        400,
        "^[Ee]rror when allocating new name: " + BAD_NAME.format("/?a/b"),
    ),
    "remove of a running one": Case(
        "DELETE",
        "/containers/{running}",
        409,
        "^(You cannot remove a running container|cannot remove container .*running)",
    ),
    "logs of no stream": Case(
        "GET", "/containers/{running}/logs", 400, "^Bad parameters: you must choose at least one stream$"
    ),
    "a tag with a slash": Case(
        "POST", "/images/{image}/tag?repo=x&tag=a/b", 400, "^invalid tag format|^invalid reference format"
    ),
    "a repository in capitals": Case(
        "POST", "/images/{image}/tag?repo=UPPER", 400, "^invalid reference format: repository name"
    ),
    "a page that isn't there": Case("GET", "/no/such/page", 404, "^page not found$"),
    "a version that is too new": Case(
        "GET", "/v9.99/version", 400, "^client version 9.99 is too new. Maximum supported API version is 1"
    ),
    "a version that is too old": Case(
        "GET", "/v1.5/version", 400, "^client version 1.5 is too old. Minimum supported API version is 1"
    ),
}


@pytest.fixture(scope="module")
def stage(any_engine: Engine) -> Iterator[dict[str, str]]:
    """What the table's placeholders stand for."""
    engine = any_engine
    bare = engine.unique("image")
    engine.import_image(bare, b"\0" * 10240, [])
    name = engine.unique()
    running = engine.start(flags=["--name", name])
    created = engine.docker("create", engine.image).out.strip()
    yield {"image": engine.image, "bare": bare, "running": running, "created": created, "name": name}
    engine.clean()
    engine.clean_images()


@pytest.mark.parametrize("case", TABLE)
def test_refused_as_docker_does(any_engine: Engine, stage: dict[str, str], case: str) -> None:
    """Status and message are Docker's, and no container was made."""
    method, path, status, pattern, body, only_newer = TABLE[case]
    if only_newer and (any_engine.release == 20 or (any_engine.name == "docker" and case in TAKEN_BY_28)):
        pytest.skip(f"Docker differs here: version {any_engine.release} lets it through")
    if case == "an address in another's network" and any_engine.name == "docker" and any_engine.release > 20:
        pytest.skip("Docker differs here: newer versions drop it with a warning")
    before = set(any_engine.containers())
    answer = any_engine.api.request(method, fill(path, stage), fill(body, stage))
    # Docker before 23 said 500 for much that is the client's fault
    assert answer.status in ({status} if any_engine.is_tare else {status, 500}), answer
    assert re.search(fill(pattern, {"name": stage["name"]}), answer.message), answer.message
    assert set(any_engine.containers()) == before


def test_unknown_fields_are_ignored(engine: Engine) -> None:
    """Fields that nobody knows are no error, at any depth, in body and query."""
    body = {"Cmd": ["true"], "NoSuchField": 1, "HostConfig": {"NorThis": {"x": []}}}
    answer = engine.api.request("POST", "/containers/create?nor=this", {"Image": engine.image, **body})
    assert answer.status == 201
    assert engine.api.request("GET", "/containers/json?what=ever").status == 200


def test_field_names_in_any_case(engine: Engine) -> None:
    """Go reads field names in any case, and clients rely on it."""
    answer = engine.api.request(
        "POST", "/containers/create", {"image": engine.image, "cmd": ["a"], "HOSTCONFIG": {"memory": 9 << 20}}
    )
    assert answer.status == 201
    shown = engine.inspect(answer.json["Id"])
    assert shown["Config"]["Cmd"] == ["a"] and shown["HostConfig"]["Memory"] == 9 << 20


def test_null_means_default(engine: Engine) -> None:
    """null for any field means that it isn't given."""
    nothing = {
        "Cmd": ["true"],
        "Env": None,
        "Labels": None,
        "HostConfig": {"Memory": None, "Binds": None},
        "User": None,
    }
    assert engine.create(nothing).status == 201


def test_command_as_a_string(engine: Engine) -> None:
    """Cmd and Entrypoint may be one string."""
    made = engine.create({"Cmd": "echo", "Entrypoint": "env"}).json["Id"]
    assert engine.inspect(made)["Config"]["Cmd"] == ["echo"]


def test_bottomless_json(tare: Engine) -> None:
    """JSON nested 100,000 deep is refused, and the daemon lives."""
    for body in (b"[" * 100_000, b'{"HostConfig":' * 100_000 + b"1" + b"}" * 100_000):
        answer = tare.api.request("POST", "/containers/create", body, headers={"Content-Type": "application/json"})
        assert answer.status in (400, 413), answer
    assert tare.api.request("GET", "/_ping").status == 200


def test_endless_json(tare: Engine) -> None:
    """A JSON body of 64 MiB is refused without being read into memory whole, and the daemon lives."""
    body = b'{"Image": "' + b"x" * (64 << 20) + b'"}'
    headers = {"Content-Type": "application/json"}
    try:
        answer = tare.api.request("POST", "/containers/create", body, headers=headers, check=False)
        assert answer.status in (400, 413), answer
    except ConnectionError:
        pass  # the answer may be lost when the engine hangs up on what it will not read
    assert tare.api.request("GET", "/_ping").status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\n" + b"X: y\r\n" * 300_000 + b"\r\n",
        b"GET /" + b"a" * 2_000_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ",
        b"\0\xff" * 1000,
    ],
)
def test_broken_http(tare: Engine, head: bytes) -> None:
    """What is no HTTP gets a 4xx or a closed connection, and the daemon lives."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(tare.socket))
        try:
            client.sendall(head)
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(100)
        except (ConnectionError, BrokenPipeError):
            answer = b""
    assert not answer or answer.split()[1][:1] == b"4", answer
    assert tare.api.request("GET", "/_ping").status == 200


@pytest.mark.parametrize("path", ["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"])
def test_what_is_not_there_yet_says_so(tare: Engine, path: str) -> None:
    """A part of the API that this engine hasn't got is 501 or 503, and the message names it."""
    answer = tare.api.request("GET", path, check=False)
    assert answer.status in (501, 503) and answer.message
