"""What log options mean for a container's file: bounded unless told otherwise."""

from __future__ import annotations

import pytest

from tare.engine.log_options import LogSettings, check_log, log_settings
from tare.engine.options import ContainerConfig, HostOptions, LogOptions
from tare.engine.records import Container, ContainerState
from tare.errors import InvalidArgument, Unsupported


def settings(driver: str, **options: str) -> LogSettings:
    """The settings of a container with a driver and options."""
    log = LogOptions(type=driver, config={name.replace("_", "-"): value for name, value in options.items()})
    check_log(log)
    container = Container(
        id="a" * 64,
        name="web",
        created_ns=1,
        image_id="sha256:0",
        layers=(),
        path="sh",
        args=(),
        config=ContainerConfig(image="box", labels={"team": "red"}, env=("MODE=fast",)),
        host=HostOptions(log_config=log),
        state=ContainerState(),
        log_path="/log",
    )
    return log_settings(container)


@pytest.mark.parametrize("driver", ["json-file", "local", "syslog", "journald", "fluentd"])
def test_logs_are_bounded_unless_told_otherwise(driver: str) -> None:
    """Five files of 20 MB, whatever the driver is; nothing else is kept for good."""
    found = settings(driver)
    assert (found.max_bytes, found.max_files) == (20 << 20, 5)


@pytest.mark.parametrize(
    ("driver", "options", "bounds"),
    [
        ("json-file", {"max_size": "-1"}, (0, 1)),
        ("json-file", {"max_size": "1m"}, (1 << 20, 1)),
        ("json-file", {"max_size": "1m", "max_file": "3"}, (1 << 20, 3)),
        ("json-file", {"max_file": "2"}, (20 << 20, 2)),
        ("syslog", {"cache_max_size": "1m"}, (1 << 20, 5)),
        ("syslog", {"cache_max_size": "1m", "cache_max_file": "2"}, (1 << 20, 2)),
    ],
)
def test_bounds(driver: str, options: dict[str, str], bounds: tuple[int, int]) -> None:
    """Sizes and numbers are Docker's, with Docker's names for the file beside a driver that ships."""
    found = settings(driver, **options)
    assert (found.max_bytes, found.max_files) == bounds


def test_tag_and_attributes() -> None:
    """json-file's entries bear what the options choose and the tag; those that are shipped bear no tag."""
    chosen = {"labels": "team", "env": "MODE", "tag": "{{.Name}}"}
    assert settings("json-file", **chosen).attributes == {"team": "red", "MODE": "fast", "tag": "web"}
    assert settings("syslog", **chosen).attributes == {"team": "red", "MODE": "fast"}


@pytest.mark.parametrize("options", [{"compress": "true", "max_file": "1"}, {"compress": "x"}, {"labels_regex": "("}])
def test_refused(options: dict[str, str]) -> None:
    """What can't be is refused at create."""
    with pytest.raises(InvalidArgument):
        settings("json-file", **options)


def test_drivers_that_are_not_there() -> None:
    """Docker's other drivers are Unsupported; a name that isn't one is a plugin that isn't found."""
    with pytest.raises(Unsupported):
        check_log(LogOptions(type="awslogs"))
    with pytest.raises(InvalidArgument, match='plugin "nope" not found'):
        check_log(LogOptions(type="nope"))
