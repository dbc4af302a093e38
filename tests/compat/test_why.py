"""`tare why`: the sentence fits what happened."""

from __future__ import annotations

import pytest

from support.deadline import wait_until
from support.engine import Engine


def why(tare: Engine, container: str) -> str:
    """What the command prints."""
    return tare.tare_cli("why", container).out


def ended(tare: Engine, *command: str, flags: tuple[str, ...] = ()) -> str:
    """A container that has ended."""
    name = tare.unique("why")
    tare.docker("run", "--name", name, *flags, tare.image, *command, check=False)
    return name


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("true",), "ended by itself, successfully"),
        (("sh", "-c", "echo last words; exit 3"), "exit code 3"),
        (("sh", "-c", "kill -SEGV $$; sleep 5"), "ended by itself"),
        (("nosuchcommand",), "no such command in its PATH"),
        (("/etc",), "may not be executed|is a directory"),
        (("sh", "-c", "nosuchcommand"), "a command was not found"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_ends(tare: Engine, command: tuple[str, ...], said: str) -> None:
    """Every kind of end has its own words, with the last lines of output."""
    container = ended(tare, *command)
    text = why(tare, container)
    assert any(part in text for part in said.split("|")), text
    if "last words" in " ".join(command):
        assert "    last words" in text
    tare.docker("rm", "-f", container)


def test_out_of_memory_names_the_figures(tare: Engine) -> None:
    """A container that was killed for memory is told with its limit."""
    command = ("sh", "-c", "head -c 100m /dev/zero | tail")
    container = ended(tare, *command, flags=("--memory", "16m", "--memory-swap", "16m", "--init=false"))
    text = why(tare, container)
    assert "used up its memory" in text and "of 16MiB allowed" in text, text
    tare.docker("rm", container)


def test_who_ended_it(tare: Engine) -> None:
    """stop and kill are named; a signal from elsewhere isn't ascribed to the engine."""
    container = tare.start()
    assert "runs." in why(tare, container)
    tare.docker("stop", "-t", "0", container)
    assert "SIGKILL when it had not ended" in why(tare, container)
    tare.docker("start", container)
    tare.docker("kill", "-s", "KILL", container)
    assert "kill sent it SIGKILL" in why(tare, container)
    tare.docker("start", container)
    pid = tare.docker("inspect", "-f", "{{.State.Pid}}", container).out.strip()
    import os
    import signal

    os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: "not by the engine" in why(tare, container), "the end by somebody on the host")
    tare.docker("rm", container)


def test_taken_port(tare: Engine) -> None:
    """A port that another container has is the reason."""
    first = tare.docker("run", "-d", "-p", "127.0.0.1::80", tare.image, "sleep", "1000").out.strip()
    port = tare.docker("port", first, "80").out.strip().rpartition(":")[2]
    second = ended(tare, "true", flags=("-p", f"127.0.0.1:{port}:80"))
    assert "another container publishes that port" in why(tare, second)
    tare.docker("rm", "-f", first, second)
