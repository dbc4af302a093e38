"""From path to operation: versions, headers, what isn't there. No engine is needed for these."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from httpserver import running

import tare
from support.deadline import wait_until
from support.openapi import specification
from support.rawhttp import Answer, RawClient
from tare import errors
from tare.api.call import parse_filters, parse_query
from tare.api.errors import STATUS, response_of, status_of
from tare.api.messages import Response
from tare.api.operations import operations
from tare.api.router import Route, Router
from tare.api.serve import build_api
from tare.engine.engine import Engine
from tare.errors import InvalidArgument

NO_ENGINE = cast(Engine, None)
SWARM = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join"'


@pytest.fixture
def api(tmp_path: Path) -> Iterator[RawClient]:
    with running(build_api(NO_ENGINE), tmp_path) as server:
        yield RawClient(cast(str, server.address))


def test_ping_tells_what_clients_negotiate_with(api: RawClient) -> None:
    """GET and HEAD /_ping carry Docker's headers, with and without a version prefix."""
    for method, path in (("GET", "/_ping"), ("HEAD", "/_ping"), ("GET", "/v1.24/_ping"), ("GET", "/v1.55/_ping")):
        answer = api.request(method, path)
        assert answer.status == 200 and answer.body == (b"OK" if method == "GET" else b"")
        assert answer.headers["api-version"] == "1.55"
        assert answer.headers["server"] == f"Tare/{tare.__version__} (linux)"
        assert answer.headers["ostype"] == "linux" and answer.headers["docker-experimental"] == "false"
        assert answer.headers["cache-control"] == "no-cache, no-store, must-revalidate"
        assert answer.headers["content-type"].startswith("text/plain") and answer.headers["builder-version"] == "1"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1.56/_ping", 400, "client version 1.56 is too new. Maximum supported API version is 1.55"),
        ("/v2.0/_ping", 400, "client version 2.0 is too new. Maximum supported API version is 1.55"),
        (
            "/v1.23/version",
            400,
            "client version 1.23 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        ("/v1..2/_ping", 400, "invalid API version: 1..2"),
        ("/v9999999999999.1/_ping", 400, "invalid API version: 9999999999999.1"),
        ("/nope", 404, "page not found"),
        ("/v1.41/nope", 404, "page not found"),
        ("/v1.99/nope", 404, "page not found"),
        ("/v1.41/v1.41/info", 404, "page not found"),
        ("/containers/json/", 404, "page not found"),
        ("/containers/a/b/json", 404, "page not found"),
        ("/", 404, "page not found"),
        ("/v1.41", 404, "page not found"),
    ],
)
def test_paths_that_lead_nowhere(api: RawClient, path: str, status: int, message: str) -> None:
    """Docker's answers to wrong versions and unknown paths, in Docker's order: first the path, then the version."""
    answer = api.request("GET", path, check=False)
    assert (answer.status, answer.message) == (status, message)
    assert answer.headers["content-type"] == "application/json"


def test_paths_that_are_no_text(api: RawClient) -> None:
    """Bytes that aren't UTF-8 in a path are found nowhere; the error says so in UTF-8."""
    assert api.request("GET", "/%ff%fe", check=False).status == 404
    answer = api.request("GET", "/plugins/a%ffb/json")
    assert (answer.status, answer.message) == (404, 'plugin "a\ufffdb" not found')


def test_a_wrong_method_is_an_unknown_page(api: RawClient) -> None:
    """Docker answers 404, not 405; and 200 to OPTIONS."""
    assert api.request("DELETE", "/version", check=False).message == "page not found"
    assert api.request("OPTIONS", "/containers/json", check=False).status == 200


def test_unclean_paths_are_redirected(api: RawClient) -> None:
    """As Docker's mux does."""
    answer = api.request("GET", "//containers//json", query={"all": "1"}, check=False)
    assert answer.status == 301 and answer.headers["location"] == "/containers/json?all=1"
    answer = api.request("GET", "/a//b%0d%0aX-Evil: 1", check=False)
    assert "x-evil" not in answer.headers and answer.headers["location"] == "/a/b%0D%0AX-Evil%3A%201"
    assert api.request("GET", "/x/../version", check=False).headers["location"] == "/version"


def test_every_operation_of_docker_is_known() -> None:
    """Each operation of the OpenAPI file has a route, and every route is one of them."""
    described = {
        (method.upper(), path)
        for path, methods in specification()["paths"].items()
        for method in methods
        if method in ("get", "post", "put", "delete", "head")
    }
    table = {(method, path) for method, path, _, _ in operations()}
    assert table == described
    router = build_api(NO_ENGINE)
    for method, path, name, _ in operations():
        filled = path.replace("{id}", "abc").replace("{name}", "ab/c")
        route, variables = router.find(method, filled)
        assert route is not None and route.name == name, (method, path)
        assert set(variables.values()) <= {"abc", "ab/c"}


def test_operations_that_are_not_there_say_so_by_name(api: RawClient) -> None:
    """501 names the operation; swarm's say what a node outside a swarm says."""
    answer = api.request("PUT", "/volumes/x", {})
    assert answer.status == 503 and answer.message.startswith("volume update only valid for cluster volumes")
    answer = api.request("POST", "/plugins/some/push")
    assert (answer.status, answer.message) == (501, "PluginPush is not implemented by Tare yet")
    answer = api.request("GET", "/services")
    assert answer.status == 503 and answer.message.startswith(SWARM)
    assert api.request("POST", "/swarm/leave").message == "This node is not part of a swarm"
    assert api.request("POST", "/swarm/init", {}).message == "SwarmInit is not implemented by Tare yet"


def test_truthful_emptiness(api: RawClient) -> None:
    """There are no plugins or caches: lists are empty, and one by name isn't found."""
    assert api.request("GET", "/plugins").json == []
    assert api.request("POST", "/build/prune").json["SpaceReclaimed"] == 0
    assert api.request("POST", "/networks/prune", query={"filters": {"nope": ["x"]}}).status == 400


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status"),
    [
        ("/containers/create", b"[" * 100_000, "application/json", 400),
        ("/containers/create", b'{"Image":"' + b"x" * (9 << 20) + b'"}', "application/json", 413),
        ("/containers/create", b"{}", "text/plain", 400),
        ("/containers/create", b"{}", "", 400),
        ("/containers/create", b"\xff\xfe", "application/json", 400),
        ("/containers/create", b"", "application/json", 400),
        ("/containers/x/exec", b"[]", "application/json", 400),
        ("/exec/x/start", b'{"Tty":5}', "application/json", 400),
        ("/containers/x/update", b'"x"', "application/json", 400),
        ("/commit", b'{"Cmd":5}', "application/json", 400),
    ],
)
def test_bodies_of_the_wrong_kind(api: RawClient, path: str, body: bytes, content_type: str, status: int) -> None:
    """Too deep, too large, not JSON, or of another type: an error in Docker's form, never a 500."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = _request(api, path, body, headers)
    assert answer is None or answer.status == status, answer
    assert answer is None or answer.message


def _request(api: RawClient, path: str, body: bytes, headers: dict[str, str]) -> Answer | None:
    try:
        return api.request("POST", path, body, headers=headers, check=False)
    except (BrokenPipeError, ConnectionResetError):
        return None  # hung up on while it still sent: the answer may be lost with the connection


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/containers/json?limit=abc", 'strconv.Atoi: parsing "abc": invalid syntax'),
        ("/containers/json?filters=zzz", "invalid character 'z' looking for beginning of value"),
        ("/containers/json?filters=[]", "invalid filter"),
        ("/containers/x/stop?t=1.5", 'strconv.Atoi: parsing "1.5": invalid syntax'),
        ("/containers/x/resize?h=a&w=1", 'strconv.Atoi: parsing "a": invalid syntax'),
        ("/containers/x/logs", "Bad parameters: you must choose at least one stream"),
        ("/events?since=yesterday", 'failed to parse value as time or duration: "yesterday"'),
        ("/containers/x/stats?stream=1&one-shot=1", "cannot have stream=true and one-shot=true"),
    ],
)
def test_wrong_arguments(api: RawClient, path: str, message: str) -> None:
    """Wrong query arguments are 400 in Go's words (older Docker had 500 for some)."""
    method = "POST" if "stop" in path or "resize" in path else "GET"
    answer = api.request(method, path)
    assert (answer.status, answer.message) == (400, message)


def test_filters_come_in_two_forms() -> None:
    """A map of lists, and the map of maps that Docker's clients send; false switches one off."""
    assert parse_filters('{"label":["a","b=c"]}') == {"label": ("a", "b=c")}
    assert parse_filters('{"label":{"a":true,"b":false}}') == {"label": ("a",)}
    assert parse_filters("null") == {}
    for wrong in ("5", '{"a":5}', '{"a":[1]}', '{"a":"b"}'):
        with pytest.raises(InvalidArgument):
            parse_filters(wrong)


def test_repeated_arguments() -> None:
    """The first value counts; the others are there for arguments that take many."""
    assert parse_query("a=1&a=2&b=%20x+y&c") == (
        {"a": "1", "b": " x y", "c": ""},
        {"a": ["1", "2"], "b": [" x y"], "c": [""]},
    )
    with pytest.raises(InvalidArgument):
        parse_query("&".join("a=1" for _ in range(2000)))


def test_every_error_class_has_a_status() -> None:
    """The table covers the tree, and the more special class wins."""
    for name in dir(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.TareError):
            assert any(kind is row for row, _ in STATUS) or status_of_class(kind) == 500
    assert status_of(errors.TooLarge("x")) == 413
    assert status_of(errors.KernelError(1, "mount")) == 500
    assert response_of(errors.NotModified("x"), "test") == Response(304)


def status_of_class(kind: type[errors.TareError]) -> int:
    return next(status for row, status in STATUS if issubclass(kind, row))


def test_an_unexpected_error_is_logged_and_short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A bug is a 500 with one line for the client and the traceback in the log; the server goes on."""

    async def broken(call: Any) -> Any:
        raise KeyError("a bug")

    router = Router(NO_ENGINE, [Route("GET", "/version", "SystemVersion", broken)])
    with running(router, tmp_path) as server:
        client = RawClient(cast(str, server.address))
        answer = client.request("GET", "/version", check=False)
        assert answer.status == 500 and json.loads(answer.body) == {"message": "KeyError: 'a bug'"}
        assert client.request("GET", "/nope", check=False).status == 404
    assert "Traceback" in caplog.text and "a bug" in caplog.text


def test_a_change_that_was_begun_is_finished(tmp_path: Path) -> None:
    """When the client of a changing operation vanishes, the operation goes on to its end."""
    begun, go_on, ended = threading.Event(), asyncio.Event(), threading.Event()

    async def slow(call: Any) -> Any:
        begun.set()
        await go_on.wait()
        ended.set()
        return None

    router = Router(NO_ENGINE, [Route("POST", "/containers/{id}/stop", "ContainerStop", slow, finishes=True)])
    with running(router, tmp_path) as server:
        with server.connect() as sock:
            sock.sendall(b"POST /containers/x/stop HTTP/1.1\r\nHost: x\r\n\r\n")
            assert begun.wait(60)
        wait_until(lambda: server.connections() == 0, "the connection is gone")
        assert not ended.is_set()
        server.loop.call_soon_threadsafe(go_on.set)
        assert ended.wait(60)


def test_a_change_that_fails_after_its_client_left_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its error goes to the log once, and not as an exception that nobody took."""
    begun, go_on = threading.Event(), asyncio.Event()

    async def failing(call: Any) -> Any:
        begun.set()
        await go_on.wait()
        raise errors.Internal("the disk is full")

    router = Router(NO_ENGINE, [Route("POST", "/commit", "ImageCommit", failing, finishes=True)])
    with running(router, tmp_path) as server:
        with server.connect() as sock:
            sock.sendall(b"POST /commit HTTP/1.1\r\nHost: x\r\n\r\n")
            assert begun.wait(60)
        wait_until(lambda: server.connections() == 0, "the connection is gone")
        server.loop.call_soon_threadsafe(go_on.set)
        wait_until(lambda: "the disk is full" in caplog.text, "the failure is logged")
    assert "never retrieved" not in caplog.text


def test_tcp_is_served_too(tmp_path: Path) -> None:
    """The same on a TCP listener."""
    with running(build_api(NO_ENGINE), tmp_path, tcp=True) as server:
        answer = server.talk(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert server.family == socket.AF_INET and answer.endswith(b"\r\n\r\nOK")
