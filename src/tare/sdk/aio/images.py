"""The engine's images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tare.client.credentials import encode_header, registry_auth
from tare.client.engine import quote
from tare.sdk import documents
from tare.sdk.aio.calls import FOREVER_S, AsyncCalls, filter_values
from tare.sdk.aio.streams import AsyncStream, read_documents
from tare.sdk.records import Image, Progress, Pruned, RegistryLogin

PIECE_BYTES = 256 << 10


def split_reference(reference: str) -> tuple[str, str]:
    """("box", "1"), of "box:1"; the tag is "latest" if there is none, "" with a digest."""
    if "@" in reference:
        return reference, ""
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, "latest")


def image_path(reference: str, verb: str = "") -> str:
    return f"/images/{quote(reference, '/:@')}{'/' + verb if verb else ''}"


def login_header(name: str, login: RegistryLogin | None) -> dict[str, str]:
    """Who we are to the registry of an image's name."""
    if login is None:
        return registry_auth(_whole_name(name))
    return {"X-Registry-Auth": encode_header({"username": login.username, "password": login.password})}


def _whole_name(name: str) -> str:
    """The name with its registry."""
    first, slash, _ = name.partition("/")
    return name if slash and ("." in first or ":" in first or first == "localhost") else f"docker.io/{name}"


class AsyncImages:
    """`engine.images`."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def get(self, reference: str) -> Image:
        """One image. NotFound if it isn't there."""
        return documents.image_details(await self._calls.json("GET", image_path(reference, "json")))

    def stream_pull(
        self, reference: str, platform: str = "", login: RegistryLogin | None = None
    ) -> AsyncStream[Progress]:
        """Downloads an image, step by step. login: None for what `tare login` keeps."""
        name, tag = split_reference(reference)
        query = {"fromImage": name, "tag": tag or None, "platform": platform or None}
        return AsyncStream(
            lambda: self._calls.open("POST", "/images/create", query, None, login_header(name, login), FOREVER_S),
            read_documents,
            documents.progress,
        )

    async def pull(self, reference: str, platform: str = "", login: RegistryLogin | None = None) -> Image:
        """Downloads an image. login: None for what `tare login` keeps."""
        async with self.stream_pull(reference, platform, login) as steps:
            async for _ in steps:
                pass
        return await self.get(reference)

    def stream_push(self, reference: str, login: RegistryLogin | None = None) -> AsyncStream[Progress]:
        """Uploads an image, step by step. login: None for what `tare login` keeps."""
        name, tag = split_reference(reference)
        path = image_path(name, "push")
        return AsyncStream(
            lambda: self._calls.open("POST", path, {"tag": tag}, None, login_header(name, login), FOREVER_S),
            read_documents,
            documents.progress,
        )

    async def push(self, reference: str, login: RegistryLogin | None = None) -> str:
        """Uploads an image; returns the digest of what the registry has now under its name."""
        digest = ""
        async with self.stream_push(reference, login) as steps:
            async for step in steps:
                digest = (step.raw.get("aux") or {}).get("Digest") or digest
        return digest

    async def check_login(self, registry: str, login: RegistryLogin) -> str:
        """Asks a registry whether it knows these credentials; returns the token it gives in their place, or "".

        Nothing is kept. Unauthorized if it doesn't.
        """
        body = {"username": login.username, "password": login.password, "serveraddress": registry}
        found = await self._calls.json("POST", "/auth", body=body, timeout_s=FOREVER_S)
        return str(found.get("IdentityToken") or "")

    async def search(self, term: str, limit: int = 25) -> list[dict[str, Any]]:
        """What Docker Hub, or the registry that the term begins with, finds; as the engine tells it."""
        found: list[dict[str, Any]] = await self._calls.json("GET", "/images/search", {"term": term, "limit": limit})
        return found

    async def load(self, path: str | Path) -> list[str]:
        """Loads images from an archive that `save` wrote; returns their names or ids."""
        found = []
        with Path(path).open("rb") as file:
            pieces = iter(lambda: file.read(PIECE_BYTES), b"")
            exchange = await self._calls.open("POST", "/images/load", {"quiet": True}, pieces, timeout_s=FOREVER_S)
            async for item in read_documents(exchange):
                text = documents.progress(item).status.strip()
                if text.startswith("Loaded image"):
                    found.append(text.partition(": ")[2])
        return found

    async def save(self, references: str | list[str], path: str | Path) -> None:
        """Writes images to an archive."""
        names = [references] if isinstance(references, str) else references
        exchange = await self._calls.open("GET", "/images/get", {"names": names}, timeout_s=FOREVER_S)
        with Path(path).open("wb") as file:
            async for piece in exchange.pieces():
                file.write(piece)

    async def import_archive(self, path: str | Path, reference: str = "", changes: tuple[str, ...] = ()) -> str:
        """Makes an image of a tar of a root file system; returns its id. changes: such as 'CMD ["sh"]'."""
        name, tag = split_reference(reference) if reference else ("", "")
        query = {"fromSrc": "-", "repo": name or None, "tag": tag or None, "changes": list(changes)}
        last = ""
        with Path(path).open("rb") as file:
            pieces = iter(lambda: file.read(PIECE_BYTES), b"")
            exchange = await self._calls.open("POST", "/images/create", query, pieces, timeout_s=FOREVER_S)
            async for item in read_documents(exchange):
                last = documents.progress(item).status
        return last

    async def tag(self, reference: str, new: str) -> None:
        """Gives an image another name."""
        name, tag = split_reference(new)
        await self._calls.do("POST", image_path(reference, "tag"), {"repo": name, "tag": tag})

    async def remove(self, reference: str, force: bool = False) -> list[str]:
        """Takes a name away, and what no name needs any more; returns what was untagged or deleted."""
        found = await self._calls.json("DELETE", image_path(reference), {"force": force})
        return [str(value) for item in found or () for value in item.values()]

    async def history(self, reference: str) -> list[dict[str, Any]]:
        """How it was made, newest first, as the engine tells it."""
        found: list[dict[str, Any]] = await self._calls.json("GET", image_path(reference, "history"))
        return found

    async def prune(self, all: bool = False) -> Pruned:
        """Removes images without a name. all: also those that no container uses."""
        query = {"filters": {"dangling": ["false" if all else "true"]}}
        found = await self._calls.json("POST", "/images/prune", query, timeout_s=FOREVER_S)
        gone = tuple(str(value) for item in found.get("ImagesDeleted") or () for value in item.values())
        return Pruned(gone, found.get("SpaceReclaimed", 0))

    async def list(self, all: bool = False, **filters: Any) -> list[Image]:
        """Images; filters as `docker images --filter`: dangling, label, reference, before, since."""
        query = {"all": all, "filters": filter_values(filters)}
        return [documents.image_summary(item) for item in await self._calls.json("GET", "/images/json", query)]
