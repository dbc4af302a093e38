"""Images and containers from one engine to another, both Tare's: `near.to(far).send("web:v2")`."""

from __future__ import annotations

from typing import Any

from tare.client.engine import quote
from tare.sdk import documents
from tare.sdk.aio.calls import FOREVER_S, AsyncCalls
from tare.sdk.aio.containers import AsyncContainer
from tare.sdk.aio.streams import read_documents
from tare.sdk.errors import Conflict, NotFound
from tare.sdk.records import Carried

TAR = {"Content-Type": "application/x-tar"}


class AsyncTravel:
    """`engine.to(other)`. Every step may be repeated: after a cut, call it again."""

    def __init__(self, source: AsyncCalls, target: AsyncCalls) -> None:
        self._source = source
        self._target = target

    async def send(self, references: str | list[str], keep_names: bool = False) -> Carried:
        """Takes images over, without the layers that are there. keep_names: names of images there stay theirs."""
        names = [references] if isinstance(references, str) else references
        offered = await self._source.json("GET", "/tare/images/offer", {"names": names})
        found = await self._target.json("POST", "/tare/images/missing", None, {"Layers": offered["Layers"]})
        absent = set(found["Layers"])
        present = [layer["Digest"] for layer in offered["Layers"] if layer["Digest"] not in absent]
        body = {"Names": names, "Without": present}
        archive = await self._source.open("POST", "/tare/images/send", None, body, None, FOREVER_S)
        query = {"quiet": True, "names": "new" if keep_names else "all"}
        answer = await self._target.open("POST", "/tare/images/receive", query, archive.pieces(), TAR, FOREVER_S)
        async for item in read_documents(answer):
            documents.progress(item)
        return Carried(len(absent), len(offered["Layers"]))

    async def move(
        self, container: str, how: str = "", volumes: bool = True, force: tuple[str, ...] = ()
    ) -> AsyncContainer:
        """Carries a container with all that is its own; there it is started if it ran. The networks must be there.

        how: "stop" or "pause" for one that runs. volumes: with their files. force: "bind", "host": kinds of what can't
        travel that are no obstacle. Conflict names the obstacles.
        """
        place = f"/containers/{quote(container)}/departure"
        query = {"how": how, "volumes": "1" if volumes else "0"}
        try:
            told = await self._source.json("GET", place, query)
        except NotFound:
            return await self._started(container)  # a move that was cut at its very end goes on
        blocked = [one["About"] for one in told["Obstacles"] if one["Kind"] not in force]
        if blocked:
            raise Conflict(409, f"{told['Name']} can't be moved as it is: {'; '.join(blocked)}")
        told = await self._source.json("POST", place, query, timeout_s=FOREVER_S)
        await self.send(told["Image"], keep_names=True)
        begun = await self._target.json("POST", "/tare/arrivals", None, told["Description"])
        for name in begun["Wanted"]:
            await self._carry(place, told, name)
        await self._target.do("POST", f"/tare/arrivals/{quote(told['Id'])}/finish")
        await self._source.do("POST", f"{place}/finish")
        return await self._started(told["Id"])

    async def _carry(self, place: str, told: dict[str, Any], name: str) -> None:
        part = await self._source.open("GET", f"{place}/part", {"name": name}, timeout_s=FOREVER_S)
        path = f"/tare/arrivals/{quote(told['Id'])}/part"
        answer = await self._target.open("PUT", path, {"name": name}, part.pieces(), TAR, FOREVER_S)
        await answer.read()

    async def _started(self, container: str) -> AsyncContainer:
        found = await self._target.json("POST", f"/tare/arrivals/{quote(container)}/start", timeout_s=FOREVER_S)
        return AsyncContainer(self._target, found["Id"])
