"""`engine.to(other)` of the Python library, blocking and for asyncio."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import tare as library
from support.engine import Engine


def made(engine: Engine, *flags: str) -> str:
    name = engine.unique()
    command = ("sh", "-c", "echo mine > /mine; sleep 1000")
    engine.docker("run", "-d", "--stop-signal", "KILL", *flags, "--name", name, engine.image, *command)
    return name


def test_the_blocking_face(near: Engine, far: Engine, tmp_path: Path) -> None:
    """send tells how many layers went; move gives the container that is there; obstacles are a Conflict."""
    with library.Client(f"unix://{near.socket}") as here, library.Client(f"unix://{far.socket}") as there:
        assert (here.to(there).send(near.image).layers, here.to(there).send(near.image).layers) == (1, 0)
        name = made(near)
        moved = here.to(there).move(name, how="stop")
        assert moved.exec("cat /mine").output == "mine\n"
        with pytest.raises(library.NotFound):
            here.containers.get(name)
        bound = made(near, "-v", f"{tmp_path}:/host")
        with pytest.raises(library.Conflict, match="/host is"):
            here.to(there).move(bound, how="stop")


def test_the_face_for_asyncio(near: Engine, far: Engine) -> None:
    """The same words."""

    async def work() -> str:
        here, there = library.AsyncClient(f"unix://{near.socket}"), library.AsyncClient(f"unix://{far.socket}")
        async with here, there:
            moved = await here.to(there).move(made(near), how="pause")
            return (await moved.exec("cat /mine")).output

    assert asyncio.run(work()) == "mine\n"
