"""Registries for the tests: real ones, plain, with passwords, with TLS; and scripted ones that misbehave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted_registry import ScriptedRegistry

from support.engine import Engine
from support.registry import Registry, is_installed


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One for the session, where Tare and the tests are."""
    if not is_installed():
        pytest.fail("docker-registry is missing: scripts/setup --dev installs it")
    made = Registry(tmp_path_factory.mktemp("registry"))
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def registry_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Registry]]:
    """Starts a registry where an engine finds it on its localhost."""
    started: list[Registry] = []

    def start(engine: Engine, **options: object) -> Registry:
        root: Path = tmp_path_factory.mktemp("registry")
        made = Registry(root, enter=engine.enter, **options)  # type: ignore[arg-type]
        started.append(made)
        return made.start()

    yield start
    for made in started:
        made.stop()


@pytest.fixture
def scripted() -> Iterator[ScriptedRegistry]:
    """A registry that says what the test tells it to."""
    made = ScriptedRegistry()
    try:
        yield made
    finally:
        made.stop()
