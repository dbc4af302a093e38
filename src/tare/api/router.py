"""From method and path to the operation: version prefixes, Docker's headers, and the answers for what isn't there."""

from __future__ import annotations

import asyncio
import functools
import posixpath
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import tare
from tare.api.call import Call, parse_query
from tare.api.errors import error_response, response_of
from tare.api.messages import Request, Response
from tare.api.operations import NOT_A_MANAGER, NOT_IN_SWARM, operations
from tare.errors import InvalidArgument, Unavailable, Unsupported

if TYPE_CHECKING:
    from tare.api.scope import Scope
    from tare.engine.engine import Engine

MAX_VERSION = (1, 55)
MIN_VERSION = (1, 24)
MAX_VERSION_TEXT = "1.55"
MIN_VERSION_TEXT = "1.24"
_PREFIX = re.compile(r"/v([0-9.]+)(?=/)")

Operation = Callable[[Call], Awaitable[Response | None]]


class Route(NamedTuple):
    """An operation's place. finishes: whether it goes on to its end when the client vanishes in the middle.

    One that may wait for somebody else's server must not, or can tell by its arguments.
    """

    method: str
    path: str
    name: str
    run: Operation
    finishes: bool | Callable[[Call], bool] = False


class Router:
    """Finds and runs operations. It is the Handler of the HTTP server."""

    def __init__(self, engine: Engine, routes: Iterable[Route], scope: Scope | None = None) -> None:
        self._engine = engine
        self._scope = scope
        self._literal: dict[tuple[str, str], Route] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
        self._running: set[asyncio.Future[Response | None]] = set()
        self._headers = {
            "Api-Version": MAX_VERSION_TEXT,
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": f"Tare/{tare.__version__} (linux)",
        }
        for route in _complete(routes):
            self._add(route)

    def _add(self, route: Route) -> None:
        if "{" not in route.path:
            self._literal[route.method, route.path] = route
            return
        pattern = re.sub(r"\\{(name)\\}", r"(?P<\1>.+)", re.escape(route.path))
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", pattern)
        first = route.path.split("/", 2)[1]
        self._patterns.setdefault(first, []).append((re.compile(pattern + r"\Z", re.DOTALL), route))

    async def __call__(self, request: Request) -> Response | None:
        """Answers a request."""
        try:
            response = await self._dispatch(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            response = response_of(error, f"{request.method} {request.path}")
        if response is None:
            return None
        return response._replace(headers={**self._headers, **response.headers})

    async def _dispatch(self, request: Request) -> Response | None:
        path, version = request.path, MAX_VERSION
        if path.startswith("/v"):
            prefix = _PREFIX.match(path)
            if prefix:
                path = path[prefix.end() :]
        else:
            prefix = None
        if "//" in path or "/./" in path or "/../" in path:
            return _moved(request)
        route, names = self.find(request.method, path)
        if route is None:
            if request.method == "OPTIONS":
                return Response(200)
            return error_response(404, "page not found")
        if prefix:
            version = check_version(prefix[1])
        first, every = parse_query(request.query)
        call = Call(self._engine, request, version, names, first, every)
        scope = self._scope
        if scope is not None:
            call = await scope.admit(route.name, call)
        finishes = route.finishes(call) if callable(route.finishes) else route.finishes
        if not finishes:
            response = await route.run(call)
            if scope is not None and response is not None:
                response = scope.shape(route.name, self._engine, response)
            return response
        # The client may vanish; a change that was begun is finished all the same, and its failure logged.
        task = asyncio.ensure_future(_run_to_end(route, call))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def find(self, method: str, path: str) -> tuple[Route | None, Mapping[str, str]]:
        """The route for a path without version prefix, and the path's variables."""
        route = self._literal.get((method, path))
        if route is not None:
            return route, {}
        for pattern, candidate in self._patterns.get(path.split("/", 2)[1] if path.startswith("/") else "", ()):
            if candidate.method == method:
                found = pattern.match(path)
                if found:
                    return candidate, found.groupdict()
        return None, {}


async def _run_to_end(route: Route, call: Call) -> Response | None:
    try:
        return await route.run(call)
    except Exception as error:
        return response_of(error, f"{call.request.method} {call.request.path}")


@functools.lru_cache(64)
def check_version(text: str) -> tuple[int, int]:
    """The version of a path prefix. Raises InvalidArgument with Docker's texts."""
    parts = text.split(".")
    if not all(part.isdigit() and len(part) < 6 for part in parts) or len(parts) > 4:
        raise InvalidArgument(f"invalid API version: {text[:32]}")
    major, minor = int(parts[0]), int(parts[1]) if len(parts) > 1 else 0
    if (major, minor) < MIN_VERSION:
        raise InvalidArgument(
            f"client version {text} is too old. Minimum supported API version is {MIN_VERSION_TEXT}, "
            "please upgrade your client to a newer version"
        )
    if (major, minor) > MAX_VERSION:
        raise InvalidArgument(f"client version {text} is too new. Maximum supported API version is {MAX_VERSION_TEXT}")
    return major, minor


def _moved(request: Request) -> Response:
    clean = posixpath.normpath(request.path).replace("//", "/")
    target = quote(clean) + (f"?{request.query}" if request.query else "")
    return Response(301, {"Location": target})


def _complete(routes: Iterable[Route]) -> list[Route]:
    """routes, and an honest answer for every operation of Docker's that they leave out; literal paths come first."""
    made = {(route.method, route.path): route for route in routes}
    for method, path, name, swarm in operations():
        if (method, path) not in made:
            run = _swarm_answer(path) if swarm else _unsupported_answer(name)
            made[method, path] = Route(method, path, name, run)
    return sorted(made.values(), key=lambda route: (route.path.count("{"), -len(route.path)))


def _unsupported_answer(name: str) -> Operation:
    async def answer(call: Call) -> Response:
        raise Unsupported(f"{name} is not implemented by Tare yet")

    return answer


def _swarm_answer(path: str) -> Operation:
    text = NOT_IN_SWARM if path == "/swarm/leave" else NOT_A_MANAGER

    async def answer(call: Call) -> Response:
        raise Unavailable(text)

    return answer
