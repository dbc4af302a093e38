"""Another engine than the one that commands speak to, and what is carried between the two by this process.

Neither engine needs to reach the other, nor to trust it with keys: both are spoken to from here. Layers that the target
has don't travel; a real dockerd, which can't tell, gets the whole archive.
"""

from __future__ import annotations

import os
import re
import sys

from tare.cli.command import CliError
from tare.cli.progress import show_progress
from tare.cli.units import format_size
from tare.client.contexts import ContextError, endpoint_of
from tare.client.engine import Engine, read_json
from tare.client.errors import ApiError
from tare.client.host import parse_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from tare.cli.session import Session

# scheme://machine[:port][/path/of/a/socket]:image. A tag may have a colon, too: the first one ends the address.
_ADDRESSED = re.compile(r"((?:ssh|tcp|http|unix)://(?:\[[^\]]*\]|[^:/]*)(?::\d+)?(?:/[^:]*)?):(.+)\Z")
TAR_HEADERS = {"Content-Type": "application/x-tar"}


def far_engine(text: str) -> Engine:
    """The engine that a word names: a context, user@machine (by ssh), or an address with its scheme."""
    if "://" in text:
        return Engine(parse_host(text))
    if "@" in text:
        return Engine(parse_host(f"ssh://{text}"))
    try:
        return Engine(endpoint_of(text))
    except ContextError:
        raise CliError(
            f'"{text}" is neither a context (see "tare context ls") nor an address such as ssh://root@{text}'
        ) from None


def is_context(name: str) -> bool:
    """Whether there is a context of that name."""
    try:
        endpoint_of(name)
    except ContextError:
        return False
    return True


def split_far(session: Session, text: str) -> tuple[str, str] | None:
    """(engine, image) of HOST:IMAGE, where HOST is an address with its scheme, or a context; else None.

    CONTEXT:IMAGE also reads as NAME:TAG: where there is such an image here, nobody guesses.
    """
    addressed = _ADDRESSED.match(text)
    if addressed:
        return addressed[1], addressed[2]
    if "://" in text:
        raise CliError(f'"{text}" names no image: write ADDRESS:IMAGE, as ssh://root@box:web:v1')
    name, colon, image = text.partition(":")
    if not colon or not image or "/" in name or not is_context(name):
        return None
    if has_image(session.engine, text):
        raise CliError(
            f'"{text}" is an image here, and "{name}" is a context too: '
            f'write "tare send {image} {name}" to send to that engine'
        )
    return name, image


def has_image(engine: Engine, name: str) -> bool:
    """Whether an engine has an image of that name."""
    from tare.cli.session import image_path

    try:
        engine.get(image_path(name, "json"))
    except ApiError as error:
        if error.status in (400, 404):
            return False
        raise
    return True


def is_absent(error: ApiError) -> bool:
    """Whether an engine said that it doesn't know such a call: it is not Tare's, or an older one."""
    return error.status == 404 and "page not found" in error.message


class Carried:
    """What went over. layers: how many of how many; None: the whole archive, since one side is not Tare's."""

    __slots__ = ("layers", "size", "total")

    def __init__(self, layers: int | None, total: int, size: int) -> None:
        self.layers = layers
        self.total = total
        self.size = size

    def describe(self) -> str:
        if self.layers is None:
            return f"all layers, {format_size(self.size)} (not Tare at both ends: nobody knows what is there already)"
        return f"{self.layers} of {self.total} layers, {format_size(self.size)}"


def carry_images(source: Engine, target: Engine, names: list[str], *, quiet: bool, only_new_names: bool) -> Carried:
    """Takes images from one engine to another. Repeated after a cut, it goes on with the layer that it was at."""
    try:
        offered = read_json(source.call("GET", "/tare/images/offer", {"names": names}))
        missing = target.post("/tare/images/missing", body={"Layers": offered["Layers"]})["Layers"]
    except ApiError as error:
        if is_absent(error):
            return _carry_archive(source, target, names, quiet=quiet)
        raise
    absent = set(missing)
    layers = {layer["Digest"]: layer["Size"] for layer in offered["Layers"]}
    body = {"Names": names, "Without": [digest for digest in layers if digest not in absent]}
    total = sum(layers[digest] for digest in absent)
    pump = Pump(source.call("POST", "/tare/images/send", None, body), total, quiet)
    query: dict[str, str | list[str]] = {"quiet": "1", "names": "new" if only_new_names else "all"}
    answer = target.call("POST", "/tare/images/receive", query, pump, TAR_HEADERS)
    show_progress(answer.messages(), to_stderr=True, quiet=quiet)
    return Carried(len(absent), len(layers), pump.size)


def _carry_archive(source: Engine, target: Engine, names: list[str], *, quiet: bool) -> Carried:
    pump = Pump(source.call("GET", "/images/get", {"names": [_whole(source, name) for name in names]}), 0, quiet)
    answer = target.call("POST", "/images/load", {"quiet": "1"}, pump, TAR_HEADERS)
    show_progress(answer.messages(), to_stderr=True, quiet=quiet)
    return Carried(None, 0, pump.size)


def _whole(engine: Engine, name: str) -> str:
    """A name without a tag with its default, so that not the whole repository goes."""
    from tare.cli.session import image_path

    tagged = f"{name}:latest"
    tags = engine.get(image_path(name, "json")).get("RepoTags") or []
    return tagged if ":" not in name.rpartition("/")[2] and tagged in tags else name


class Pump:
    """An answer's body as a request's, counted, with a line on the terminal that tells how far it is."""

    def __init__(self, pieces: Iterable[bytes], total: int, quiet: bool) -> None:
        self._pieces = pieces
        self._total = total
        self._shown = not quiet and os.isatty(2)
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.size += len(piece)
            if self._shown:
                of = f" of {format_size(max(self._total, self.size))}" if self._total else ""
                sys.stderr.write(f"\r\x1b[2K{format_size(self.size)}{of}")
                sys.stderr.flush()
            yield piece
        if self._shown:
            sys.stderr.write("\r\x1b[2K")


def asked(engine: Engine, method: str, path: str, query: Any = None, body: object = None) -> Any:
    """The JSON of an engine that has to be Tare's. Raises CliError if it isn't."""
    try:
        return read_json(engine.call(method, path, query, body))
    except ApiError as error:
        if not is_absent(error):
            raise
        raise CliError(f"tare: the engine at {engine.host.text} is not Tare's, or an older one") from None
