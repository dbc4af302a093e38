"""Runs a client's scenario, a program in the client's own language and environment, against one engine.

The clients are installed unchanged by scripts/clients below build/clients; nothing here imports one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clients import Scenario, installed
from support.engine import Engine, Result, run


@pytest.fixture
def scenario(engine: Engine, tmp_path: Path) -> Iterator[Scenario]:
    """scenario(argv…): runs a program beside the engine, which finds it by DOCKER_HOST; it must exit 0.

    IMAGE, NAME and SCRATCH tell it the busybox image, a name nobody else uses, and a directory.
    """
    name = engine.unique("client")
    home = tmp_path / "home"
    home.mkdir()
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def start(*argv: str, env: dict[str, str] | None = None, timeout: float = 90, check: bool = True) -> Result:
        environment = {
            "DOCKER_HOST": f"unix://{engine.socket}",
            "DOCKER_CONFIG": str(home / ".docker"),
            "HOME": str(home),
            "IMAGE": engine.image,
            "NAME": name,
            "PYTHONPATH": "",
            "SCRATCH": str(scratch),
            "TESTCONTAINERS_RYUK_DISABLED": "true",  # its reaper is an image of its own, from a registry
            **(env or {}),
        }
        return run([*engine.enter, *argv], env=environment, timeout=timeout, check=check)

    yield start
    listed = engine.api.request("GET", "/containers/json", query={"all": "1"}).json
    left = [one["Names"] for one in listed if any(name in called for called in one["Names"])]
    assert not left, f"the scenario left {left}"


@pytest.fixture
def python() -> str:
    """The interpreter that has the small Python clients."""
    return str(installed("python") / "bin" / "python")


@pytest.fixture
def node() -> dict[str, str]:
    """The environment in which Node finds the clients' packages."""
    where = installed("node")
    if shutil.which("node") is None:
        pytest.skip("client not installed: node itself (Debian: nodejs)")
    return {"NODE_PATH": str(where / "node_modules")}
