"""What can be told of the library without an engine: its faces, its weight, options, documents."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tare
from tare.sdk import aio, blocking
from tare.sdk.archives import split_target
from tare.sdk.documents import event, progress, stats
from tare.sdk.errors import EngineFailed, ProtocolError, Unavailable, error_of
from tare.sdk.options import create_body, restart_policy, update_body
from tare.sdk.records import Health

ROOT = Path(__file__).parent.parent.parent


def test_the_faces_are_in_step() -> None:
    """The blocking face is what scripts/sdkfaces makes of the asyncio one."""
    done = subprocess.run([sys.executable, ROOT / "scripts" / "sdkfaces", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugs_have_the_same_methods() -> None:
    """What the two hand-written modules offer the rest is the same."""
    from tare.sdk.aio.plug import AsyncPlug
    from tare.sdk.blocking.plug import Plug

    seam = {"receive", "post", "send", "end_input", "is_stale", "close"}
    for name in seam:
        ours, theirs = inspect.signature(getattr(AsyncPlug, name)), inspect.signature(getattr(Plug, name))
        assert ours == theirs, name
    assert Path(aio.__file__).parent.joinpath("plug.py").exists()
    assert Path(blocking.__file__).parent.joinpath("plug.py").exists()


def test_importing_tare_is_cheap() -> None:
    """`import tare` loads nothing of the library, the engine or asyncio before it is asked for."""
    code = "import sys, __future__; before = set(sys.modules); import tare; print(sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "['tare']"


def test_the_library_loads_no_engine() -> None:
    """A user of the library doesn't load what the daemon is made of."""
    code = "import sys, tare; tare.connect; print(*sorted(m for m in sys.modules if m.startswith('tare.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.split(".")[1] for name in loaded} <= {"sdk", "client", "values", "errors"}


def test_every_public_name_is_there() -> None:
    """tare.__all__ keeps its word, and other names are an error."""
    assert all(getattr(tare, name) for name in tare.__all__)
    with pytest.raises(AttributeError):
        _ = tare.nosuch


@pytest.mark.parametrize(
    ("options", "where", "expected"),
    [
        ({"ports": {80: 8080}}, "PortBindings", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
        ({"ports": {"53/udp": ("::1", 5)}}, "PortBindings", {"53/udp": [{"HostIp": "::1", "HostPort": "5"}]}),
        ({"ports": {80: None}}, "PortBindings", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        ({"volumes": {"/a": "/b:ro"}}, "Binds", ["/a:/b:ro"]),
        ({"memory": "1.5g"}, "Memory", 1536 << 20),
        ({"cpus": 0.5}, "NanoCpus", 500_000_000),
        ({"restart": "on-failure:3"}, "RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
        ({"tmpfs": ["/run"]}, "Tmpfs", {"/run": ""}),
        ({"ulimits": {"core": 0}}, "Ulimits", [{"Name": "core", "Soft": 0, "Hard": 0}]),
        ({"log_driver": "none", "log_options": {"a": "b"}}, "LogConfig", {"Type": "none", "Config": {"a": "b"}}),
        (
            {"devices": ["/dev/fuse:r"]},
            "Devices",
            [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "r"}],
        ),
        ({"extra_host_config": {"OomScoreAdj": 5}}, "OomScoreAdj", 5),
    ],
)
def test_options_become_dockers(options: Any, where: str, expected: Any) -> None:
    """An option has one meaning, and it is the API's."""
    assert create_body("box", None, options)["HostConfig"][where] == expected


def test_commands_and_health_checks_become_dockers() -> None:
    """Text is split as a shell would; lists are taken as they are."""
    health = Health(("curl", "-f"), interval_s=1.5, retries=2)
    body = create_body("box", "echo 'a b' $HOME", {"entrypoint": ["sh"], "health": health, "environment": {"A": "1"}})
    assert body["Cmd"] == ["echo", "a b", "$HOME"]
    assert body["Entrypoint"] == ["sh"]
    assert body["Env"] == ["A=1"]
    assert body["Healthcheck"] == {"Test": ["CMD", "curl", "-f"], "Interval": 1_500_000_000, "Retries": 2}


@pytest.mark.parametrize("options", [{"ports": {0: 1}}, {"ports": {"x": 1}}, {"memory": "lots"}, {"restart": "a:b"}])
def test_wrong_options_are_a_value_error(options: Any) -> None:
    """What can't be meant is told before the engine is asked."""
    with pytest.raises(ValueError):
        create_body("box", None, options)
    with pytest.raises(TypeError, match="volumes"):
        update_body({"volumes": {}})  # type: ignore[typeddict-unknown-key]


def test_restart_policies() -> None:
    """A policy without a count has none."""
    assert restart_policy("always") == {"Name": "always"}


def test_errors_by_status() -> None:
    """Each status has the class that tells what can be done; unknown ones are ApiError."""
    assert type(error_of(404, "x")) is tare.NotFound
    assert type(error_of(409, "x")) is tare.Conflict
    assert type(error_of(503, "x")) is Unavailable
    assert type(error_of(500, "x")) is EngineFailed
    assert type(error_of(418, "x")) is tare.ApiError
    assert isinstance(error_of(501, "x"), tare.ClientError)


def test_documents_of_engines_that_leave_things_out() -> None:
    """null and absence are empty, not an error."""
    found = stats({"read": "2030-01-01T00:00:00.123456789Z", "networks": None, "memory_stats": {}})
    assert (found.cpu_percent, found.memory_percent, found.network_sent_bytes) == (0.0, 0.0, 0)
    assert event({"time": 5, "Type": "x", "Action": "y", "Actor": {"ID": "z", "Attributes": None}}).attributes == {}
    with pytest.raises(ProtocolError, match="no space"):
        progress({"errorDetail": {"message": "no space"}, "error": "no space"})


@pytest.mark.parametrize("path", ["relative", "/", "/a/..", "/a/", ""])
def test_a_file_needs_a_name(path: str) -> None:
    """Paths that name no file are refused before anything is sent."""
    with pytest.raises(ValueError):
        split_target(path)
