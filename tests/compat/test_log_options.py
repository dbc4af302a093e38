"""Log drivers and options, on both engines where Docker has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.deadline import wait_until
from support.engine import Engine

FIVE_MB = "i=0; while [ $i -lt 5000 ]; do echo $i-$(printf %01000d 0); i=$((i+1)); done; echo end"


def logs(engine: Engine, container: str, *flags: str) -> str:
    """The container's standard output as logged."""
    return engine.docker("logs", *flags, container).out


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_rotation_bounds_the_log(engine: Engine, driver: str) -> None:
    """max-size and max-file bound what is kept; what is kept is the end, in order."""
    flags = ("--log-driver", driver, "--log-opt", "max-size=200k", "--log-opt", "max-file=3")
    container = engine.docker("run", "-d", *flags, engine.image, "sh", "-c", FIVE_MB).out.strip()
    engine.docker("wait", container)
    wait_until(lambda: logs(engine, container, "--tail", "1") == "end\n", "the end of the log")
    lines = logs(engine, container).splitlines()
    numbers = [int(line.partition("-")[0]) for line in lines[:-1]]
    assert numbers == list(range(5000 - len(numbers), 5000))
    assert 100 < len(numbers) < 2000
    engine.docker("rm", container)


def test_labels_and_variables_are_details(engine: Engine) -> None:
    """--log-opt labels and env choose what `logs --details` shows."""
    flags = ("--label", "team=red", "--label", "x=y", "-e", "MODE=fast")
    options = ("--log-opt", "labels=team", "--log-opt", "env=MODE")
    container = engine.docker("run", "-d", *flags, *options, engine.image, "echo", "hello").out.strip()
    engine.docker("wait", container)
    assert logs(engine, container, "--details") == "MODE=fast,team=red hello\n"
    assert logs(engine, container) == "hello\n"
    engine.docker("rm", container)


def test_driver_none_keeps_nothing(engine: Engine) -> None:
    """Without a log `logs` says so; attached output comes all the same."""
    name = engine.unique()
    out = engine.docker("run", "--name", name, "--log-driver", "none", engine.image, "echo", "hello").out
    assert out == "hello\n"
    refused = engine.docker("logs", name, check=False)
    assert refused.code == 1 and "does not support reading" in refused.err
    engine.docker("rm", name)


@pytest.mark.parametrize(
    "options", [("max-size=lots",), ("max-file=0",), ("no-such=1",), ("mode=sometimes",)], ids=lambda value: value[0]
)
def test_wrong_options_are_refused(engine: Engine, options: tuple[str, ...]) -> None:
    """A wrong option is an error, not ignored."""
    flags = [flag for option in options for flag in ("--log-opt", option)]
    refused = engine.docker("run", "--rm", *flags, engine.image, "true", check=False)
    assert refused.code == 125
    for container in engine.containers():
        engine.docker("rm", container)


def test_clear(tare: Engine) -> None:
    """`tare logs --clear` empties the log of a running container and of one that has ended."""
    container = tare.docker("run", "-d", tare.image, "sh", "-c", "echo one; sleep 1000").out.strip()
    wait_until(lambda: logs(tare, container) == "one\n", "the first line")
    tare.tare_cli("logs", "--clear", container)
    wait_until(lambda: not logs(tare, container), "an empty log")
    tare.docker("kill", container)
    tare.tare_cli("logs", "--clear", container)
    assert logs(tare, container) == ""
    tare.docker("rm", container)


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_compressed_rotation(engine: Engine, driver: str) -> None:
    """compress=true packs what is rotated; `logs` and its --tail read through it."""
    options = ("max-size=200k", "max-file=4", "compress=true")
    flags = ("--log-driver", driver, *(part for option in options for part in ("--log-opt", option)))
    container = engine.docker("run", "-d", *flags, engine.image, "sh", "-c", FIVE_MB).out.strip()
    engine.docker("wait", container)
    wait_until(lambda: logs(engine, container, "--tail", "1") == "end\n", "the end of the log")
    numbers = [int(line.partition("-")[0]) for line in logs(engine, container, "--tail", "450").splitlines()[:-1]]
    assert numbers == list(range(5000 - 449, 5000))
    if engine.is_tare:
        folder = Path(engine.inspect(container)["LogPath"]).parent
        wait_until(lambda: len(list(folder.glob("*.log.[123].gz"))) == 3, "three packed files")
        assert sum(path.stat().st_size for path in folder.glob("*.gz")) < 60_000
    engine.docker("rm", container)
