"""schemathesis makes requests from Docker's OpenAPI file: no answer is a 500, and none is off its schema.

A few hundred requests usually; TARE_FUZZ_REQUESTS=20000 (`make compat`) asks for more, and for other ones each time.
Ids in paths are now and then those of things that exist, which a daemon of this file's own has; it is thrown away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from support import tared as own
from support.openapi import mismatches, specification
from support.rawhttp import RawClient, UnixConnection, tell

WANTED = int(os.environ.get("TARE_FUZZ_REQUESTS", "0"))
RUNNING, STOPPED, VOLUME, NETWORK = "fuzz-running", "fuzz-stopped", "fuzz-volume", "fuzz-network"
EXISTING = {"containers": [RUNNING, STOPPED], "images": ["box"], "volumes": [VOLUME], "networks": [NETWORK, "bridge"]}
# Where a real dockerd answers 500 too, and clients look at the text: part of it.
AS_DOCKER = {
    "POST /containers/{id}/unpause": "is not paused",
    "GET /images/search": "no such host",
    "POST /auth": "dial tcp",
}
QUIET_S = 0.3
MOST_BYTES = 1 << 20


@schemathesis.serializer("application/x-tar", "application/octet-stream")
def _as_it_is(context: Any, value: Any) -> bytes:
    """An archive: schemathesis makes bytes of any kind."""
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


def _schema() -> Any:
    document = {**specification(), "info": {"title": "Engine API", "version": "0"}, "basePath": "/"}
    return schemathesis.openapi.from_dict(json.loads(json.dumps(document)), config=SchemathesisConfig())


SCHEMA = _schema()
OPERATIONS = {
    f"{operation.method.upper()} {operation.path}": operation
    for operation in (result.ok() for result in SCHEMA.get_all_operations())
}
EXAMPLES = max(3, WANTED // len(OPERATIONS))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=not WANTED,
    phases=(Phase.generate, *((Phase.shrink,) if WANTED else ())),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def victim(nothing_left_at_the_end: None) -> Iterator[own.Tared]:
    """A daemon that is asked for anything."""
    daemon = own.Tared()
    try:
        daemon.start()
        daemon.engine.prepare()
        yield daemon
    finally:
        for network in RawClient(str(daemon.socket), check=False).request("GET", "/networks").json:
            daemon.engine.clean()
            daemon.engine.api.request("DELETE", f"/networks/{network['Id']}", check=False)
        daemon.stop()


def seed(daemon: own.Tared) -> None:
    """Lets the things exist whose names paths bear."""
    api = RawClient(str(daemon.socket), check=False)
    api.request("POST", "/volumes/create", {"Name": VOLUME})
    api.request("POST", "/networks/create", {"Name": NETWORK})
    daemon.engine.prepare()
    for name in (RUNNING, STOPPED):
        if api.request("GET", f"/containers/{name}/json").status == 404:
            body = {"Image": "box", "Cmd": ["sleep", "1000"], "StopSignal": "SIGKILL"}
            api.request("POST", "/containers/create", body, query={"name": name})
    api.request("POST", f"/containers/{RUNNING}/unpause")
    api.request("POST", f"/containers/{RUNNING}/start")


def new_exec(daemon: own.Tared) -> str:
    """A process that can be started."""
    api = RawClient(str(daemon.socket), check=False)
    made = api.request("POST", f"/containers/{RUNNING}/exec", {"Cmd": ["true"], "AttachStdout": True})
    return str(made.json["Id"]) if made.status == 201 else "none"


def send(daemon: own.Tared, method: str, target: str, headers: dict[str, str], body: bytes | None) -> Any:
    """(status, content type, body, whether that is all): a stream is left when it falls silent or grows long."""
    connection = UnixConnection(str(daemon.socket), timeout=20)
    try:
        connection.putrequest(method, target)
        for key, value in headers.items():
            if key.lower() not in ("host", "content-length", "connection", "upgrade", "transfer-encoding"):
                connection.putheader(key, value)
        connection.putheader("Content-Length", str(len(body or b"")))
        try:
            connection.endheaders(body or b"")
        except BrokenPipeError:
            pass  # the answer came before the body was read
        sock = connection.sock
        answer = connection.getresponse()
        sock.settimeout(QUIET_S)
        parts, whole = [], False
        try:
            while sum(map(len, parts)) < MOST_BYTES:
                part = answer.read1(65536)
                if not part:
                    whole = True
                    break
                parts.append(part)
        except TimeoutError:
            pass
        if answer.status in (501, 503):
            tell(str(daemon.socket), method, target, answer.status, b"".join(parts))
        return answer.status, answer.getheader("Content-Type", ""), b"".join(parts), whole
    finally:
        connection.close()


def aim(case: Any, daemon: own.Tared, name: str, data: st.DataObject) -> None:
    """Now and then a path names what exists, and a container is made of an image that does; nobody outside is met."""
    kind = name.split()[1].split("/")[1]
    if name == "POST /exec/{id}/resize":
        return  # one that exists is waited for, for 10 seconds
    for key in list(case.path_parameters or ()):
        if data.draw(st.integers(0, 3)):
            known = [new_exec(daemon)] if kind == "exec" else EXISTING.get(kind)
            if known:
                case.path_parameters[key] = data.draw(st.sampled_from(known))
    if name == "POST /containers/create" and isinstance(case.body, dict) and data.draw(st.integers(0, 3)):
        case.body["Image"] = "box"
    if name == "POST /auth" and isinstance(case.body, dict) and isinstance(case.body.get("serveraddress"), str):
        case.body["serveraddress"] = "127.0.0.1:1"  # nobody listens; any other might be someone's


@pytest.mark.timeout(20 + WANTED)
@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_as_the_file_says(victim: own.Tared, name: str) -> None:
    """Whatever an operation is sent, its answer is no 500 and has the file's shape."""
    operation = OPERATIONS[name]
    seed(victim)
    changes = operation.method.upper() in ("DELETE", "POST", "PUT")

    @SETTINGS
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
        try:
            case = data.draw(operation.as_strategy(generation_mode=mode))
        except schemathesis.errors.InvalidSchema:  # nothing invalid can be made for what takes anything
            case = data.draw(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
        if changes and EXAMPLES > 3:
            seed(victim)
        aim(case, victim, name, data)
        kwargs = case.as_transport_kwargs(base_url="http://localhost")
        wanted = ("method", "url", "params", "headers", "cookies", "data", "json", "files")
        prepared = requests.Request(**{key: kwargs[key] for key in wanted if key in kwargs}).prepare()
        method, target = str(prepared.method), prepared.path_url
        headers = {str(key): str(value) for key, value in prepared.headers.items()}
        raw = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
        status, kind, body, whole = send(victim, method, target, headers, raw)
        sent = f"{method} {target} {raw!r:.2000}"
        assert status != 500 or AS_DOCKER.get(name, "-") in body.decode(), f"{sent}\n→ 500 {body[:500]!r}"
        if whole:
            wrong = mismatches(method, target, status, body, kind)
            assert not wrong, f"{sent}\n→ {status} {body[:500]!r}\n" + "\n".join(wrong)

    ask()
    assert victim.process is not None and victim.process.poll() is None, "the daemon died"
