"""logs: what was written, when, how much of it, and following it; on both engines."""

from __future__ import annotations

import re
import time

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.rawhttp import demultiplex

STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")


@pytest.fixture(scope="module")
def written(any_engine: Engine) -> object:
    """A container that wrote ten lines, the even ones to stderr, and ended."""
    script = "for i in 1 3 5 7 9; do echo out$i; sleep 0.02; echo err$((i+1)) >&2; sleep 0.02; done"
    container = any_engine.docker("run", "-d", any_engine.image, "sh", "-c", script).out.strip()
    any_engine.exit_code(container)
    yield container
    any_engine.clean()


@pytest.fixture
def engine(any_engine: Engine) -> Engine:
    """Both engines; this file's container stays until its end."""
    return any_engine


def test_streams_stay_apart_and_in_order(engine: Engine, written: str) -> None:
    """stdout's lines come on stdout, stderr's on stderr, each in order."""
    result = engine.docker("logs", written)
    assert result.out.split() == ["out1", "out3", "out5", "out7", "out9"]
    assert result.err.split() == ["err2", "err4", "err6", "err8", "err10"]


@pytest.mark.parametrize(
    ("tail", "wanted"),
    [
        ("0", []),
        ("1", ["err10"]),
        ("3", ["err8", "out9", "err10"]),
        ("99", None),
        ("all", None),
        ("-5", None),
        ("x", None),
    ],
)
def test_tail(engine: Engine, written: str, tail: str, wanted: list[str] | None) -> None:
    """--tail counts lines of both streams from the end; what isn't a count means all."""
    result = engine.docker("logs", "--tail", tail, written)
    lines = sorted((result.out + result.err).split())
    assert lines == sorted(wanted) if wanted is not None else len(lines) == 10


def test_timestamps(engine: Engine, written: str) -> None:
    """-t puts an RFC 3339 time with nine digits before each line, never going back."""
    answer = engine.api.request("GET", f"/containers/{written}/logs", query={"stdout": 1, "stderr": 1, "timestamps": 1})
    streams = demultiplex(answer.body)
    lines = streams[1].decode().splitlines() + streams[2].decode().splitlines()
    assert len(lines) == 10 and all(STAMP.match(line) for line in lines)
    ordered = [line.split(" ", 1)[1] for line in sorted(lines)]
    assert ordered == ["out1", "err2", "out3", "err4", "out5", "err6", "out7", "err8", "out9", "err10"]


def test_since_and_until(engine: Engine, written: str) -> None:
    """--since and --until cut by the time of each line, given as a time stamp, as seconds, or as an age."""
    stamped = engine.docker("logs", "-t", written).out.splitlines()
    third = stamped[2].split(" ", 1)[0]
    assert engine.docker("logs", "--since", third, written).out.split() == ["out5", "out7", "out9"]
    until = engine.docker("logs", "--until", third, written).out.split()
    assert until in (["out1", "out3", "out5"], ["out1", "out3"])
    assert engine.docker("logs", "--since", "1h", written).out.split()[0] == "out1"
    assert engine.docker("logs", "--until", "1h", written).out == ""
    assert engine.docker("logs", "--since", str(int(time.time()) + 1000), written).out == ""
    both = engine.docker("logs", "--since", third, "--tail", "2", written)
    assert sorted((both.out + both.err).split()) == ["err10", "out9"]


def test_one_stream_only(engine: Engine, written: str) -> None:
    """The API gives one stream when asked for one, and refuses when asked for none."""
    answer = engine.api.request("GET", f"/containers/{written}/logs", query={"stderr": "true"})
    streams = demultiplex(answer.body)
    assert streams[1] == b"" and streams[2].startswith(b"err2\n")
    answer = engine.api.request("GET", f"/containers/{written}/logs")
    assert (answer.status, answer.message) == (400, "Bad parameters: you must choose at least one stream")


def test_follow_to_the_end(engine: Engine) -> None:
    """-f shows lines as they come and ends when the container does; several followers each get all."""
    script = "echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two >&2; echo three"
    container = engine.start(command=["sh", "-c", script])
    followers = [engine.popen("logs", "-f", container) for _ in range(3)]
    for follower in followers:
        assert follower.stdout is not None and follower.stdout.readline() == b"one\n"
    engine.docker("exec", container, "touch", "/go")
    for follower in followers:
        out, err = follower.communicate(timeout=100)
        assert (out, err, follower.returncode) == (b"three\n", b"two\n", 0)
    engine.docker("rm", "-f", container)


def test_follow_ends_on_removal(engine: Engine) -> None:
    """rm -f of the container ends a follower."""
    container = engine.start(command=["sh", "-c", "echo up; sleep 1000"])
    follower = engine.popen("logs", "-f", container)
    assert follower.stdout is not None and follower.stdout.readline() == b"up\n"
    engine.docker("rm", "-f", container)
    follower.communicate(timeout=100)


def test_follow_over_a_restart(engine: Engine) -> None:
    """The log goes on over a restart: what both runs wrote is there."""
    container = engine.start(command=["sh", "-c", "echo run; sleep 1000"])
    wait_until(lambda: engine.docker("logs", container).out == "run\n", "the first line is there")
    engine.docker("restart", "-t", "0", container)
    wait_until(lambda: engine.docker("logs", container).out == "run\nrun\n", "the second is there")
    engine.docker("rm", "-f", container)


@pytest.mark.parametrize(
    ("script", "out"),
    [
        ("printf 'no newline'", b"no newline"),
        ("printf '\\r\\n\\ta\\n\\nb\\n'", b"\r\n\ta\n\nb\n"),
        ("printf 'a\\0b\\n'", b"a\0b\n"),
        ("printf 'h\\303\\251 \\360\\237\\220\\263\\n'", "hé 🐳\n".encode()),
    ],
)
def test_bytes_are_kept(engine: Engine, script: str, out: bytes) -> None:
    """Lines without an end, empty ones, NUL bytes and UTF-8 come back as they were."""
    container = engine.docker("run", "-d", engine.image, "sh", "-c", script).out.strip()
    engine.exit_code(container)
    client = engine.popen("logs", container)
    assert client.communicate(timeout=100)[0] == out
    engine.docker("rm", container)


def test_long_lines_are_whole(engine: Engine) -> None:
    """A line longer than the log's record (16 KiB) comes back as one line."""
    script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end"
    container = engine.docker("run", "-d", engine.image, "sh", "-c", script).out.strip()
    engine.exit_code(container)
    assert engine.docker("logs", container).out == "x" * 100000 + "\nend\n"
    assert engine.docker("logs", "--tail", "1", container).out == "end\n"
    engine.docker("rm", container)


def test_flood_is_whole(engine: Engine) -> None:
    """200,000 lines written at once are all there, in order."""
    container = engine.docker("run", "-d", engine.image, "seq", "200000").out.strip()
    engine.exit_code(container)
    lines = engine.docker("logs", container).out.splitlines()
    assert lines == [str(n) for n in range(1, 200001)]
    assert engine.docker("logs", "--tail", "2", container).out == "199999\n200000\n"
    engine.docker("rm", container)


def test_rotation(engine: Engine) -> None:
    """--log-opt max-size and max-file keep the newest lines; logs reads across the files."""
    flags = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"]
    container = engine.docker("run", "-d", *flags, engine.image, "seq", "5000").out.strip()
    engine.exit_code(container)
    lines = engine.docker("logs", container).out.split()
    assert lines[-1] == "5000" and 300 < len(lines) < 2000
    assert lines == [str(n) for n in range(5001 - len(lines), 5001)]
    config = engine.inspect(container)["HostConfig"]["LogConfig"]
    assert config == {"Type": "json-file", "Config": {"max-size": "20k", "max-file": "3"}}
    engine.docker("rm", container)


def test_driver_none_has_no_logs(engine: Engine) -> None:
    """--log-driver none keeps nothing and logs says so; attached output still comes."""
    name = engine.unique()
    run = engine.docker("run", "--name", name, "--log-driver", "none", engine.image, "echo", "seen")
    assert run.out == "seen\n"
    refused = engine.docker("logs", name, check=False)
    assert refused.code == 1 and "configured logging driver does not support reading" in refused.err
    engine.docker("rm", name)


def test_unknown_driver_is_refused(tare: Engine) -> None:
    """A log driver that isn't there is refused (a real dockerd looks 15 seconds for a plugin first, so only ours)."""
    engine = tare
    refused = engine.docker("run", "--rm", "--log-driver", "no-such", engine.image, "true", check=False)
    assert refused.code == 125 and 'logging plugin no-such: plugin "no-such" not found' in refused.err
    engine.clean()
