# Made from tare/sdk/aio/client.py by scripts/sdkfaces: change that one.
"""An engine as Python has it: run, container, and collections of what is there."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from tare.client.engine import quote
from tare.sdk import documents
from tare.sdk.address import choose_host
from tare.sdk.blocking.calls import FOREVER_S, Calls, Query, filter_values
from tare.sdk.blocking.containers import Container, Moment, end_of, moment_value
from tare.sdk.blocking.images import Images
from tare.sdk.blocking.kept import Networks, Volumes
from tare.sdk.blocking.streams import Session, Stream, read_documents
from tare.sdk.blocking.trash import Trash
from tare.sdk.blocking.travel import Travel
from tare.sdk.errors import ClientError, NotFound
from tare.sdk.options import Command, ContainerOptions, create_body
from tare.sdk.records import ContainerSummary, EngineInfo, Event, Finding, Packed, Pruned, Result, Version


class Containers:
    """`engine.containers`."""

    def __init__(self, calls: Calls, images: Images) -> None:
        self._calls = calls
        self._images = images

    def list(self, all: bool = False, limit: int | None = None, **filters: Any) -> list[ContainerSummary]:
        """Running containers, with `all` all. Filters as `docker ps --filter`: label, name, status, ancestor …"""
        query = {"all": all, "limit": limit, "filters": filter_values(filters)}
        return [documents.container_summary(item) for item in self._calls.json("GET", "/containers/json", query)]

    def get(self, name: str) -> Container:
        """The container with this name or id. NotFound if there is none."""
        found = self._calls.json("GET", f"/containers/{quote(name)}/json")
        return Container(self._calls, found["Id"])

    def create(self, image: str, command: Command | None = None, **options: Unpack[ContainerOptions]) -> Container:
        """Makes a container and doesn't start it. An image that isn't there is pulled."""
        body = create_body(image, command, options)
        query = {"name": options.get("name")}
        try:
            made = self._calls.json("POST", "/containers/create", query, body)
        except NotFound as error:
            if "image" not in error.message.lower():
                raise
            try:
                self._images.pull(image)
            except ClientError as failure:
                raise error from failure
            made = self._calls.json("POST", "/containers/create", query, body)
        return Container(self._calls, made["Id"])

    def prune(self, **filters: Any) -> Pruned:
        """Removes all stopped containers."""
        query = {"filters": filter_values(filters)}
        found = self._calls.json("POST", "/containers/prune", query, timeout_s=FOREVER_S)
        return Pruned(tuple(found.get("ContainersDeleted") or ()), found.get("SpaceReclaimed", 0))


class Throwaway:
    """A container that is there from entering to leaving a `with`."""

    def __init__(self, containers: Containers, image: str, command: Command | None, options: ContainerOptions) -> None:
        self._containers = containers
        self._image = image
        self._command = command
        self._options = options
        self._made: Container | None = None

    def __enter__(self) -> Container:
        made = self._containers.create(self._image, self._command, **self._options)
        try:
            made.start()
        except BaseException:
            made.remove(force=True, volumes=True)
            raise
        self._made = made
        return made

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._made is not None:
            try:
                self._made.remove(force=True, volumes=True)
            except NotFound:
                pass  # it was removed inside


class Client:
    """A client of one engine, Tare's or Docker's.

    host: "unix:///path", "tcp://host:port", "ssh://user@host"; without it what TARE_HOST, DOCKER_HOST, DOCKER_CONTEXT
    or the chosen context say, else Tare's own socket. context: a context's name. certificates: a directory with ca.pem,
    cert.pem and key.pem, for TLS. version: of the API, instead of agreeing on one. timeout_s: how long an answer may
    take where nothing says otherwise.
    """

    def __init__(
        self,
        host: str | None = None,
        *,
        context: str | None = None,
        certificates: str | Path | None = None,
        version: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._calls = Calls(choose_host(host, context, certificates), version, timeout_s)
        self.images = Images(self._calls)
        self.containers = Containers(self._calls, self.images)
        self.volumes = Volumes(self._calls)
        self.trash = Trash(self._calls)
        self.networks = Networks(self._calls)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    @property
    def address(self) -> str:
        """Where the engine is."""
        return self._calls.host.text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._calls.close()

    def run(
        self,
        image: str,
        command: Command | None = None,
        *,
        input: bytes | str | None = None,
        check: bool = False,
        timeout_s: float | None = None,
        **options: Unpack[ContainerOptions],
    ) -> Result:
        """Runs a command in a new container and removes it: what it printed and its exit code.

        check: CommandFailed unless it ends with 0. timeout_s: after this, the container is removed
        and TimeoutError raised.
        """
        if input is not None:
            options["stdin_open"] = True
            options.setdefault("extra_config", {"StdinOnce": True})
        options["auto_remove"] = False
        container = self.containers.create(image, command, **options)
        with container:
            session: Session = container.attach(stdin=input is not None, tty=bool(options.get("tty")))
            with session:
                session.set_deadline(end_of(timeout_s))
                container.start()
                out, err = session.communicate(input)
            code = container.wait(timeout_s=timeout_s)
        result = Result(code, out, err, command if isinstance(command, str) else " ".join(command or (image,)))
        return result.check() if check else result

    def to(self, other: Client) -> Travel:
        """The way to another engine: `engine.to(other).send("web:v2")`, `engine.to(other).move("web", how="stop")`."""
        return Travel(self._calls, other._calls)

    def container(self, image: str, command: Command | None = None, **options: Unpack[ContainerOptions]) -> Throwaway:
        """A running container for the length of a `with`: `with engine.container("box", "sleep 1000") as c: …`"""
        return Throwaway(self.containers, image, command, options)

    def events(self, since: Moment = None, until: Moment = None, **filters: Any) -> Stream[Event]:
        """What happens, as it happens. Filters as `docker events --filter`: type, event, container, image, label …"""
        query = {"since": moment_value(since), "until": moment_value(until), "filters": filter_values(filters)}
        opened = self._calls
        return Stream(lambda: opened.open("GET", "/events", query), read_documents, documents.event)

    def version(self) -> Version:
        """What the engine is."""
        return documents.version(self._calls.json("GET", "/version"))

    def info(self) -> EngineInfo:
        """The engine's state."""
        return documents.engine_info(self._calls.json("GET", "/info"))

    def ping(self) -> None:
        """Returns if the engine answers."""
        self._calls.do("GET", "/_ping")

    def fsck(self, repair: bool = False, contents: bool = True) -> list[Finding]:
        """Checks all that the engine keeps: what is wrong, if anything. contents: every byte is read."""
        method, query = "POST" if repair else "GET", {"contents": "1" if contents else "0"}
        exchange = self._calls.open(method, "/tare/fsck", query, timeout_s=FOREVER_S)
        return documents.findings(exchange.read())

    def pack(self, unpack: bool = False) -> Packed:
        """Stores versions that no container sees as what differs from newer ones; unpack: makes all plain again."""
        exchange = self._calls.open("POST", "/tare/pack", {"unpack": "1"} if unpack else None, timeout_s=FOREVER_S)
        return documents.packed(exchange.read(), self._calls.json("GET", "/tare/pack"))

    def request(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Any:
        """Any other call of the API, below its version: JSON in, JSON out."""
        return self._calls.json(method, path, query, body)
