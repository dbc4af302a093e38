"""A disk that is full at a step of a pull: the error names it, no half image is there, the next pull goes through."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from scripted_registry import ScriptedRegistry, build
from test_interrupted_pulls import noise_tar
from test_registry_login import pull

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared

POINTS = (
    *("registry.download.piece", "registry.download.written", "registry.download.checked", "storage.layer.stage"),
    *("storage.extract.finish", "storage.layer.row", "storage.original.row", "pull.layer.extracted"),
    *("pull.layers.held", "images.record.content", "storage.content.write", "storage.database.commit"),
    *("storage.database.commit@3", "images.record.done"),
)


@pytest.fixture(scope="module")
def own() -> Iterator[Tared]:
    daemon = Tared("--trash-keep", "0", bridge=False)
    daemon.make_armable()
    with daemon:
        yield daemon


def findings(engine: Engine) -> list[object]:
    lines = [json.loads(line) for line in engine.api.request("GET", "/tare/fsck").body.splitlines()]
    assert "Done" in lines[-1], lines[-1]
    return [found for line in lines if (found := line.get("Finding"))]


@pytest.mark.parametrize("point", POINTS)
def test_a_pull_to_a_full_disk(own: Tared, scripted: ScriptedRegistry, point: str) -> None:
    """What is told is Docker's "no space left on device" and which disk; fsck finds nothing then or afterwards."""
    engine = own.engine
    scripted.put_image("x", "1", build(noise_tar(1, 300_000), noise_tar(2, 1000)))
    own.arm(f"{point}:full")
    _, text = pull(engine, f"{scripted.host}/x", "1")
    assert point.partition("@")[0] in own.passed()
    own.arm("")
    tolerated = point == "storage.original.row"  # then the image is there, and goes out with a plain layer
    if tolerated:
        assert "Downloaded newer image" in text
    else:
        assert "no space left on device" in text and " on /" in text
        assert engine.api.request("GET", "/images/json").json == [] or point == "images.record.done"
    assert findings(engine) == []
    _, text = pull(engine, f"{scripted.host}/x", "1")
    assert "Status: " in text
    assert engine.docker("image", "inspect", "-f", "{{len .RootFS.Layers}}", f"{scripted.host}/x:1").out == "2\n"
    assert findings(engine) == []
    engine.docker("rmi", "-f", f"{scripted.host}/x:1")
    wait_until(lambda: not list((own.data_root / "layers/layers").iterdir()), "its layers are gone")
