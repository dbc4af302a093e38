"""A real dockerd runs containers with our OCI runtime: `dockerd --add-runtime tare=…`, `docker run --runtime tare`."""

from __future__ import annotations

import json

import pytest

from support.engine import Engine, Result
from support.terminal import Terminal


@pytest.fixture
def docker(docker_engine: Engine) -> Engine:
    """A dockerd that knows the runtime."""
    known = json.loads(docker_engine.docker("info", "-f", "{{json .Runtimes}}").out)
    if "tare" not in known:
        pytest.skip("the dockerd that TARE_TEST_DOCKERD names wasn't started with our runtime")
    return docker_engine


def run(docker: Engine, *arguments: str, check: bool = True) -> Result:
    """`docker run --rm --runtime tare …`"""
    return docker.docker("run", "--rm", "--runtime", "tare", *arguments, check=check)


def test_output_and_exit_codes(docker: Engine) -> None:
    """What the command prints and returns gets through; commands that can't run give 127 and 126."""
    done = run(docker, docker.image, "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (done.out, done.err, done.code) == ("out\n", "err\n", 3)
    assert run(docker, docker.image, "nosuch", check=False).code == 127
    assert run(docker, docker.image, "/etc", check=False).code == 126


def test_options_arrive(docker: Engine) -> None:
    """Limits, user, hostname, capabilities, read-only root and environment are those asked for."""
    script = "hostname; id -u; echo $V; grep CapEff /proc/self/status; touch /x 2>&1 | grep -o Read-only; ulimit -n"
    flags = ("--hostname", "box", "--user", "7", "-e", "V=1", "--read-only", "--ulimit", "nofile=99:99")
    lines = run(docker, *flags, "--memory", "64m", docker.image, "sh", "-c", script).out.split("\n")
    assert lines[:3] == ["box", "7", "1"] and lines[3].split()[1] == "0" * 16 and lines[4:6] == ["Read-only", "99"]


def test_exec_pause_update_and_stop(docker: Engine) -> None:
    """The verbs that go through the runtime later in a container's life."""
    container = docker.docker("run", "-d", "--runtime", "tare", docker.image, "sleep", "1000").out.strip()
    assert docker.docker("exec", container, "sh", "-c", "echo inside").out == "inside\n"
    docker.docker("pause", container)
    assert docker.docker("inspect", "-f", "{{.State.Status}}", container).out == "paused\n"
    docker.docker("unpause", container)
    docker.docker("update", "--memory", "80m", "--memory-swap", "80m", container)
    assert "sleep 1000" in docker.docker("top", container).out
    docker.docker("restart", "-t", "0", container)
    docker.docker("stop", "-t", "0", container)
    assert docker.docker("inspect", "-f", "{{.State.ExitCode}}", container).out == "137\n"
    docker.docker("rm", container)


def test_terminal(docker: Engine) -> None:
    """`run -it` has a terminal of the container's own."""
    argv = docker.argv("run", "--rm", "-it", "--runtime", "tare", docker.image, "sh", "-c", "tty; echo done")
    with Terminal(argv) as terminal:
        terminal.expect(b"/dev/pts/0")
        terminal.expect(b"done")
        assert terminal.wait() == 0
