"""A container carried from one engine to another: each step may be repeated, and the source stays until the target says
that it has all of it.

    image, networks to the target → source: held still → parts to the target → target: whole → source: into the trash
      → target: started
"""

from __future__ import annotations

from tare.cli.command import CliError
from tare.cli.far import TAR_HEADERS, Pump, asked, carry_images, is_absent
from tare.cli.session import container_path, describe
from tare.client.engine import quote, read_json
from tare.client.errors import ApiError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.client.engine import Engine

    Query = dict[str, str | list[str]]


class Wishes:
    """What the flags of `move` say. how: stop, pause or "". forced: kinds of obstacles that are no obstacles."""

    __slots__ = ("copy", "forced", "how", "quiet", "volumes")

    def __init__(self, how: str, copy: str, volumes: bool, forced: set[str], quiet: bool) -> None:
        self.how = how
        self.copy = copy
        self.volumes = volumes
        self.forced = forced
        self.quiet = quiet


class Moved:
    """How it went. size: bytes that went over."""

    __slots__ = ("id", "name", "networks", "running", "size", "volumes")

    def __init__(self, id_: str, name: str) -> None:
        self.id = id_
        self.name = name
        self.size = 0
        self.running = False
        self.networks: list[str] = []
        self.volumes: list[str] = []


def departure(ref: str, verb: str = "") -> str:
    return container_path(ref, f"departure{'/' + verb if verb else ''}")


def arrival(ref: str, verb: str = "") -> str:
    return f"/tare/arrivals/{quote(ref)}{'/' + verb if verb else ''}"


def move(source: Engine, target: Engine, ref: str, wishes: Wishes) -> Moved:
    """Carries it. Raises CliError for what can't travel, ApiError for what an engine refuses."""
    query: Query = {"volumes": "1" if wishes.volumes else "0"}
    if wishes.copy:
        query["copy"] = wishes.copy
    try:
        told = asked(source, "GET", departure(ref), query)
    except ApiError as error:
        if error.status != 404 or wishes.copy:
            raise
        return _go_on(target, ref, error)
    _check(told, wishes)
    asked(target, "GET", "/tare/trash")  # whether that engine is Tare's
    # What needs no stop comes first, and all that could be refused: it is down for its own files only.
    carried = _carry_image(source, target, told, wishes.quiet)
    networks = _make_networks(source, target, told["Networks"])
    target.call("POST", "/tare/arrivals", {"check": "1"}, told["Description"]).read()
    if not wishes.copy:
        told = asked(source, "POST", departure(ref), {**query, "how": wishes.how})
    done = Moved(told["Id"], told["Name"])
    done.volumes = told["Volumes"] if wishes.volumes else []
    done.size, done.networks = carried, networks
    try:
        _carry_parts(source, target, ref, told, done, wishes.quiet)
        target.post(arrival(done.id, "finish"))
        if not wishes.copy:
            source.call("POST", departure(ref, "finish"))
    except (ClientError, CliError) as error:
        raise error if wishes.copy else CliError(f"{describe(error)}\n{_HINT.format(ref)}") from None
    done.running = target.post(arrival(done.id, "start"))["Running"]
    return done


_HINT = "{0} is held here. The same command goes on where it was; tare move --abort {0} HOST gives it up."


def _carry_image(source: Engine, target: Engine, told: dict[str, Any], quiet: bool) -> int:
    """Bytes that went over."""
    try:
        return carry_images(source, target, [told["Image"]], quiet=quiet, only_new_names=True).size
    except ApiError as error:
        if error.status == 404 and not is_absent(error):
            text = f"the image of {told['Name']} was removed here: commit it, and move a container of that"
            raise CliError(text) from None
        raise


def _go_on(target: Engine, ref: str, error: ApiError) -> Moved:
    """The source has it no more: a move that was cut at its very end goes on."""
    try:
        there = target.get(arrival(ref))
    except ApiError:
        raise error from None
    if not there["Whole"]:
        raise error
    done = Moved(there["Id"], there["Name"])
    done.running = target.post(arrival(done.id, "start"))["Running"]
    return done


def _check(told: dict[str, Any], wishes: Wishes) -> None:
    found = [one for one in told["Obstacles"] if one["Kind"] not in wishes.forced]
    if not found:
        return
    lines = "".join(f"\n  {one['About']}" for one in found)
    kinds = sorted({f"--force-{'binds' if one['Kind'] == 'bind' else 'host'}" for one in found})
    raise CliError(
        f"{told['Name']} can't be moved as it is:{lines}\n{' '.join(kinds)} moves it all the same, without that"
    )


def _make_networks(source: Engine, target: Engine, names: list[str]) -> list[str]:
    """Networks that the target doesn't have are made there, as they are here, but for their addresses."""
    made = []
    for name in names:
        path = f"/networks/{quote(name)}"
        try:
            target.get(path)
            continue
        except ApiError as error:
            if error.status != 404:
                raise
        there = source.get(path)
        keys = ("Name", "Driver", "Internal", "Attachable", "Options", "Labels")
        target.post("/networks/create", body={key: there[key] for key in keys if there.get(key) is not None})
        made.append(name)
    return made


def _carry_parts(source: Engine, target: Engine, ref: str, told: dict[str, Any], done: Moved, quiet: bool) -> None:
    begun = read_json(target.call("POST", "/tare/arrivals", None, told["Description"]))
    for name in begun["Wanted"]:
        pump = Pump(source.call("GET", departure(ref, "part"), {"name": name}), 0, quiet)
        target.call("PUT", arrival(done.id, "part"), {"name": name}, pump, TAR_HEADERS).read()
        done.size += pump.size


def give_up(source: Engine, target: Engine | None, ref: str) -> str:
    """`move --abort`: the container stays; what is at the target of it is forgotten. Refused once it is whole there."""
    told = asked(source, "GET", departure(ref))
    if target is not None:
        try:
            there = target.get(arrival(told["Id"]))
            if there["Whole"]:
                raise CliError(f"{told['Name']} is whole over there already: repeat the move to finish it")
            target.delete(arrival(told["Id"]))
        except ApiError as error:
            if error.status != 404 or is_absent(error):
                raise
    status: str = source.delete(departure(ref))["Status"]
    return status
