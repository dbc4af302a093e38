"""An engine as Python has it: run, container, and collections of what is there."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from tare.client.engine import quote
from tare.sdk import documents
from tare.sdk.address import choose_host
from tare.sdk.aio.calls import FOREVER_S, AsyncCalls, Query, filter_values
from tare.sdk.aio.containers import AsyncContainer, Moment, end_of, moment_value
from tare.sdk.aio.images import AsyncImages
from tare.sdk.aio.kept import AsyncNetworks, AsyncVolumes
from tare.sdk.aio.streams import AsyncSession, AsyncStream, read_documents
from tare.sdk.aio.trash import AsyncTrash
from tare.sdk.aio.travel import AsyncTravel
from tare.sdk.errors import ClientError, NotFound
from tare.sdk.options import Command, ContainerOptions, create_body
from tare.sdk.records import ContainerSummary, EngineInfo, Event, Finding, Packed, Pruned, Result, Version


class AsyncContainers:
    """`engine.containers`."""

    def __init__(self, calls: AsyncCalls, images: AsyncImages) -> None:
        self._calls = calls
        self._images = images

    async def list(self, all: bool = False, limit: int | None = None, **filters: Any) -> list[ContainerSummary]:
        """Running containers, with `all` all. Filters as `docker ps --filter`: label, name, status, ancestor …"""
        query = {"all": all, "limit": limit, "filters": filter_values(filters)}
        return [documents.container_summary(item) for item in await self._calls.json("GET", "/containers/json", query)]

    async def get(self, name: str) -> AsyncContainer:
        """The container with this name or id. NotFound if there is none."""
        found = await self._calls.json("GET", f"/containers/{quote(name)}/json")
        return AsyncContainer(self._calls, found["Id"])

    async def create(
        self, image: str, command: Command | None = None, **options: Unpack[ContainerOptions]
    ) -> AsyncContainer:
        """Makes a container and doesn't start it. An image that isn't there is pulled."""
        body = create_body(image, command, options)
        query = {"name": options.get("name")}
        try:
            made = await self._calls.json("POST", "/containers/create", query, body)
        except NotFound as error:
            if "image" not in error.message.lower():
                raise
            try:
                await self._images.pull(image)
            except ClientError as failure:
                raise error from failure
            made = await self._calls.json("POST", "/containers/create", query, body)
        return AsyncContainer(self._calls, made["Id"])

    async def prune(self, **filters: Any) -> Pruned:
        """Removes all stopped containers."""
        query = {"filters": filter_values(filters)}
        found = await self._calls.json("POST", "/containers/prune", query, timeout_s=FOREVER_S)
        return Pruned(tuple(found.get("ContainersDeleted") or ()), found.get("SpaceReclaimed", 0))


class AsyncThrowaway:
    """A container that is there from entering to leaving a `with`."""

    def __init__(
        self, containers: AsyncContainers, image: str, command: Command | None, options: ContainerOptions
    ) -> None:
        self._containers = containers
        self._image = image
        self._command = command
        self._options = options
        self._made: AsyncContainer | None = None

    async def __aenter__(self) -> AsyncContainer:
        made = await self._containers.create(self._image, self._command, **self._options)
        try:
            await made.start()
        except BaseException:
            await made.remove(force=True, volumes=True)
            raise
        self._made = made
        return made

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._made is not None:
            try:
                await self._made.remove(force=True, volumes=True)
            except NotFound:
                pass  # it was removed inside


class AsyncClient:
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
        self._calls = AsyncCalls(choose_host(host, context, certificates), version, timeout_s)
        self.images = AsyncImages(self._calls)
        self.containers = AsyncContainers(self._calls, self.images)
        self.volumes = AsyncVolumes(self._calls)
        self.trash = AsyncTrash(self._calls)
        self.networks = AsyncNetworks(self._calls)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    @property
    def address(self) -> str:
        """Where the engine is."""
        return self._calls.host.text

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections."""
        self._calls.close()

    async def run(
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
        container = await self.containers.create(image, command, **options)
        async with container:
            session: AsyncSession = await container.attach(stdin=input is not None, tty=bool(options.get("tty")))
            async with session:
                session.set_deadline(end_of(timeout_s))
                await container.start()
                out, err = await session.communicate(input)
            code = await container.wait(timeout_s=timeout_s)
        result = Result(code, out, err, command if isinstance(command, str) else " ".join(command or (image,)))
        return result.check() if check else result

    def to(self, other: AsyncClient) -> AsyncTravel:
        """The way to another engine: `engine.to(other).send("web:v2")`, `engine.to(other).move("web", how="stop")`."""
        return AsyncTravel(self._calls, other._calls)

    def container(
        self, image: str, command: Command | None = None, **options: Unpack[ContainerOptions]
    ) -> AsyncThrowaway:
        """A running container for the length of a `with`: `with engine.container("box", "sleep 1000") as c: …`"""
        return AsyncThrowaway(self.containers, image, command, options)

    def events(self, since: Moment = None, until: Moment = None, **filters: Any) -> AsyncStream[Event]:
        """What happens, as it happens. Filters as `docker events --filter`: type, event, container, image, label …"""
        query = {"since": moment_value(since), "until": moment_value(until), "filters": filter_values(filters)}
        opened = self._calls
        return AsyncStream(lambda: opened.open("GET", "/events", query), read_documents, documents.event)

    async def version(self) -> Version:
        """What the engine is."""
        return documents.version(await self._calls.json("GET", "/version"))

    async def info(self) -> EngineInfo:
        """The engine's state."""
        return documents.engine_info(await self._calls.json("GET", "/info"))

    async def ping(self) -> None:
        """Returns if the engine answers."""
        await self._calls.do("GET", "/_ping")

    async def fsck(self, repair: bool = False, contents: bool = True) -> list[Finding]:
        """Checks all that the engine keeps: what is wrong, if anything. contents: every byte is read."""
        method, query = "POST" if repair else "GET", {"contents": "1" if contents else "0"}
        exchange = await self._calls.open(method, "/tare/fsck", query, timeout_s=FOREVER_S)
        return documents.findings(await exchange.read())

    async def pack(self, unpack: bool = False) -> Packed:
        """Stores versions that no container sees as what differs from newer ones; unpack: makes all plain again."""
        exchange = await self._calls.open(
            "POST", "/tare/pack", {"unpack": "1"} if unpack else None, timeout_s=FOREVER_S
        )
        return documents.packed(await exchange.read(), await self._calls.json("GET", "/tare/pack"))

    async def request(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Any:
        """Any other call of the API, below its version: JSON in, JSON out."""
        return await self._calls.json(method, path, query, body)
