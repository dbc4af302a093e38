"""Two engines of Tare's: what one has, the other is to get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from relays import Relay, relay

from support.engine import Engine
from support.tared import Tared


@pytest.fixture(scope="session")
def far_daemon(nothing_left_at_the_end: None) -> Iterator[Tared]:
    """The other engine, one for the session."""
    daemon = Tared()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture
def near(tare: Engine) -> Iterator[Engine]:
    """The session's engine; images that the test made are removed."""
    yield tare
    tare.clean()
    tare.clean_images()


@pytest.fixture
def far(far_daemon: Tared) -> Iterator[Engine]:
    """The other engine, empty; afterwards so again."""
    yield far_daemon.engine
    empty(far_daemon.engine)


def empty(engine: Engine) -> None:
    """Removes all that an engine has."""
    engine.clean()
    api = engine.api
    for image in api.request("GET", "/images/json").json:
        api.request("DELETE", f"/images/{image['Id']}?force=1", check=False)
    for volume in api.request("GET", "/volumes").json["Volumes"] or ():
        api.request("DELETE", f"/volumes/{volume['Name']}", check=False)
    api.request("POST", "/networks/prune")
    api.request("DELETE", "/tare/trash")


@pytest.fixture
def way(tmp_path: Path, far: Engine) -> Iterator[Relay]:
    """The counted way to the other engine."""
    with relay(tmp_path, far) as made:
        yield made
