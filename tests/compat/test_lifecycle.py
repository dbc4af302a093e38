"""A container's life by the official command line: every verb, every state, every exit code; on both engines."""

from __future__ import annotations

import json
import re

import pytest

from support.deadline import wait_until
from support.engine import Engine


def state(engine: Engine, container: str) -> str:
    """The container's status word."""
    return str(engine.inspect(container)["State"]["Status"])


def test_created_started_stopped_removed(engine: Engine) -> None:
    """create, start, stop and rm print what they were given and leave the states that inspect tells."""
    name = engine.unique()
    made = engine.docker("create", "--name", name, engine.image, "sleep", "1000").out.strip()
    assert re.fullmatch(r"[0-9a-f]{64}", made)
    assert state(engine, name) == "created"
    assert engine.docker("start", name).out == f"{name}\n"
    shown = engine.inspect(name)["State"]
    assert (shown["Running"], shown["Status"], shown["ExitCode"]) == (True, "running", 0)
    assert shown["Pid"] > 0 and shown["FinishedAt"].startswith("0001-01-01")
    assert engine.docker("stop", "-t", "0", made[:12]).out == f"{made[:12]}\n"
    shown = engine.inspect(name)["State"]
    assert (shown["Running"], shown["Status"], shown["ExitCode"], shown["Pid"]) == (False, "exited", 137, 0)
    assert shown["FinishedAt"] > shown["StartedAt"]
    assert engine.docker("rm", name).out == f"{name}\n"
    assert engine.docker("inspect", name, check=False).code == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (["sh", "-c", "sh -c 'kill $$'; exit $?"], 143),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
    ],
)
def test_exit_codes(engine: Engine, command: list[str], code: int) -> None:
    """run exits as the program did, 128+n after a signal, 127 where there is none, 126 where it can't be executed."""
    result = engine.docker("run", "--rm", engine.image, *command, check=False)
    assert result.code == code
    if code in (126, 127):
        assert "docker: Error response from daemon: " in result.err
    assert not engine.containers()


def test_missing_program_is_named(engine: Engine) -> None:
    """The message names the program and says why; the container stays `created` with 127."""
    name = engine.unique()
    result = engine.docker("run", "--name", name, engine.image, "nope", check=False)
    assert result.code == 127
    assert 'exec: "nope": executable file not found in $PATH' in result.err
    shown = engine.inspect(name)["State"]
    assert (shown["Status"], shown["ExitCode"]) == ("created", 127)
    assert "executable file not found in $PATH" in shown["Error"]
    result = engine.docker("run", "--rm", engine.image, "/etc/passwd", check=False)
    assert 'exec: "/etc/passwd": permission denied' in result.err


def test_engine_refusals_exit_125(engine: Engine) -> None:
    """A request that the engine refuses makes the client exit 125 and leaves no container."""
    result = engine.docker("run", "--rm", "--cap-add", "NO_SUCH_CAP", engine.image, "true", check=False)
    assert result.code == 125
    assert not engine.containers()


def test_stop_sends_term_then_kill(engine: Engine) -> None:
    """A program that handles SIGTERM ends by itself; one that doesn't is killed after the time given."""
    handler = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    polite = engine.start(command=["sh", "-c", handler])
    wait_until(lambda: "ready" in engine.logs(polite), "the trap is set")
    engine.docker("stop", polite)
    assert engine.inspect(polite)["State"]["ExitCode"] == 7
    assert "got it" in engine.logs(polite)
    stubborn = engine.start(command=["sleep", "1000"])
    engine.docker("stop", "-t", "1", stubborn)
    assert engine.inspect(stubborn)["State"]["ExitCode"] == 137


def test_stop_signal_and_timeout_of_the_container(engine: Engine) -> None:
    """--stop-signal and --stop-timeout are what stop uses, and inspect shows them."""
    handler = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done"
    flags = ["--stop-signal", "SIGUSR1", "--stop-timeout", "3"]
    container = engine.start(flags=flags, command=["sh", "-c", handler])
    wait_until(lambda: "ready" in engine.logs(container), "the trap is set")
    engine.docker("stop", container)
    shown = engine.inspect(container)
    assert shown["State"]["ExitCode"] == 9
    assert (shown["Config"]["StopSignal"], shown["Config"]["StopTimeout"]) == ("SIGUSR1", 3)


def test_kill_by_name_and_number(engine: Engine) -> None:
    """kill sends the signal named with or without SIG, or numbered; without one it is SIGKILL."""
    script = (
        "trap 'echo hup' HUP; trap 'echo usr1' USR1; trap 'echo usr2' USR2; echo ready; while :; do sleep 0.05; done"
    )
    container = engine.start(command=["sh", "-c", script])
    wait_until(lambda: "ready" in engine.logs(container), "the traps are set")
    for given, said in (("HUP", "hup"), ("SIGUSR1", "usr1"), ("12", "usr2")):
        engine.docker("kill", "-s", given, container)
        wait_until(lambda said=said: said in engine.logs(container), f"{given} arrived")  # type: ignore[misc]
    assert state(engine, container) == "running"
    engine.docker("kill", container)
    assert engine.exit_code(container) == 137


def test_restart(engine: Engine) -> None:
    """restart gives the same container a new process; its files stay; a stopped one is started."""
    container = engine.start(command=["sh", "-c", "echo x >> /runs; sleep 1000"])
    wait_until(lambda: engine.docker("exec", container, "cat", "/runs", check=False).out == "x\n", "it ran once")
    before = engine.inspect(container)["State"]["Pid"]
    engine.docker("restart", "-t", "0", container)
    shown = engine.inspect(container)
    assert shown["State"]["Running"] and shown["State"]["Pid"] != before
    assert shown["RestartCount"] == 0
    wait_until(lambda: engine.docker("exec", container, "cat", "/runs").out == "x\nx\n", "the second run wrote")
    engine.docker("stop", "-t", "0", container)
    engine.docker("restart", container)
    assert state(engine, container) == "running"


def test_pause_and_unpause(engine: Engine) -> None:
    """A paused container doesn't run, says so, and refuses exec; unpause lets it go on."""
    container = engine.start(command=["sh", "-c", "while :; do echo tick; sleep 0.05; done"])
    wait_until(lambda: "tick" in engine.logs(container), "it ticks")
    assert engine.docker("pause", container).out == f"{container}\n"
    shown = engine.inspect(container)["State"]
    assert (shown["Status"], shown["Paused"], shown["Running"]) == ("paused", True, True)
    assert "(Paused)" in engine.docker("ps", "--format", "{{.Status}}", "--filter", f"id={container}").out
    refused = engine.docker("exec", container, "true", check=False)
    assert refused.code == 1 and f"Container {container} is paused, unpause the container before exec" in refused.err
    silent = len(engine.logs(container))
    assert len(engine.logs(container)) == silent
    engine.docker("unpause", container)
    wait_until(lambda: len(engine.logs(container)) > silent, "it ticks again")
    engine.docker("rm", "-f", container)


def test_a_paused_container_can_be_stopped_killed_and_removed(engine: Engine) -> None:
    """Nobody has to unpause first."""
    for verb in (["stop", "-t", "1"], ["kill"], ["rm", "-f"]):
        container = engine.start()
        engine.docker("pause", container)
        engine.docker(*verb, container)
        if verb[0] != "rm":
            wait_until(lambda c=container: state(engine, c) == "exited", f"{verb} ends it")  # type: ignore[misc]


def test_wait(engine: Engine) -> None:
    """wait prints the exit code of one that runs, and at once that of one that has ended."""
    container = engine.start(command=["sh", "-c", "read x; exit 5"], flags=["-i"])
    waiting = engine.popen("wait", container)
    engine.docker("attach", container, input="go\n", check=False)
    out, _ = waiting.communicate(timeout=100)
    assert out == b"5\n"
    assert engine.docker("wait", container).out == "5\n"


@pytest.mark.parametrize("condition", ["not-running", "next-exit", "removed"])
def test_wait_conditions(engine: Engine, condition: str) -> None:
    """The API's three conditions each end with the exit code at their own time."""
    made = engine.create({"Cmd": ["sh", "-c", "exit 3"], "HostConfig": {"AutoRemove": condition == "removed"}}).json[
        "Id"
    ]
    if condition == "not-running":
        engine.api.request("POST", f"/containers/{made}/start")
        assert engine.exit_code(made) == 3
        return
    with engine.api.opened("POST", f"/containers/{made}/wait", query={"condition": condition}) as answer:
        assert answer.status == 200  # the headers come at once: now it is certain that the engine waits
        assert engine.api.request("POST", f"/containers/{made}/start").status == 204
        assert json.loads(answer.read())["StatusCode"] == 3
    if condition == "removed":
        assert engine.api.request("GET", f"/containers/{made}/json").status == 404


def test_rename(engine: Engine) -> None:
    """rename moves the name; the old one is free at once; one that is taken is refused."""
    old, new = engine.unique(), engine.unique()
    container = engine.start(flags=["--name", old])
    engine.docker("rename", old, new)
    assert engine.inspect(container)["Name"] == f"/{new}"
    assert engine.docker("inspect", old, check=False).code == 1
    other = engine.start(flags=["--name", old])
    refused = engine.docker("rename", other, new, check=False)
    assert refused.code == 1
    assert f'Conflict. The container name "/{new}" is already in use by container' in refused.err


def test_rm_of_running(engine: Engine) -> None:
    """rm refuses one that runs; rm -f kills and removes it."""
    container = engine.start()
    refused = engine.docker("rm", container, check=False)
    assert refused.code == 1 and "container" in refused.err and "running" in refused.err
    engine.docker("rm", "-f", container)
    assert engine.api.request("GET", f"/containers/{container}/json").status == 404


def test_auto_remove(engine: Engine) -> None:
    """--rm gives the program's exit code and then nothing is left of the container."""
    name = engine.unique()
    assert engine.docker("run", "--rm", "--name", name, engine.image, "sh", "-c", "exit 6", check=False).code == 6
    wait_until(lambda: engine.api.request("GET", f"/containers/{name}/json").status == 404, "it is gone")
    detached = engine.start(flags=["--rm"])
    engine.docker("stop", "-t", "0", detached)
    wait_until(lambda: engine.api.request("GET", f"/containers/{detached}/json").status == 404, "it is gone")


def test_restart_on_failure(engine: Engine) -> None:
    """--restart on-failure:2 runs it three times, then gives up with the code."""
    container = engine.start(flags=["--restart", "on-failure:2"], command=["sh", "-c", "echo run; exit 4"])

    def given_up() -> bool:
        shown = engine.inspect(container)
        return bool(shown["RestartCount"] == 2 and shown["State"]["Status"] == "exited")

    wait_until(given_up, "it gave up", 20)
    assert engine.inspect(container)["State"]["ExitCode"] == 4
    assert engine.docker("logs", container).out == "run\n" * 3


def test_restart_always_until_stopped(engine: Engine) -> None:
    """--restart always starts it again after it ended; after stop it stays down."""
    container = engine.start(flags=["--restart", "always"], command=["sh", "-c", "sleep 0.2"])
    wait_until(lambda: engine.inspect(container)["RestartCount"] >= 1, "it was restarted", 20)
    engine.docker("stop", "-t", "0", container)
    assert state(engine, container) == "exited"
    assert not engine.inspect(container)["State"]["Running"]


def test_wait_ends_with_a_run_that_is_restarted(engine: Engine) -> None:
    """wait gives the exit code of a run even if the policy starts the container again."""
    container = engine.start(flags=["--restart", "always"], command=["sh", "-c", "sleep 1; exit 3"])
    code = engine.exit_code(container, timeout=15)
    assert code == 3 or (code == 0 and not engine.is_tare)  # dockerd 20.10 may read the code of the run that follows


def test_commit_of_what_is_about_to_end(engine: Engine) -> None:
    """commit, which pauses, works at whatever point of its end a container is."""
    for _ in range(12):
        container = engine.start(command=["true"])
        answer = engine.api.request("POST", "/commit", {}, query={"container": container, "pause": "1"})
        assert answer.status == 201, answer
        engine.docker("rmi", answer.json["Id"])


def test_container_prune(engine: Engine) -> None:
    """prune removes what doesn't run and says what; label filters choose."""
    label = engine.unique("label")
    running = engine.start(flags=["--label", label])
    ended = engine.start(flags=["--label", label], command=["true"])
    engine.exit_code(ended)
    created = engine.docker("create", "--label", label, engine.image).out.strip()
    said = engine.docker("container", "prune", "-f", "--filter", f"label={label}").out
    assert ended in said and created in said and running not in said
    assert said.startswith("Deleted Containers:\n") and "Total reclaimed space:" in said
    assert state(engine, running) == "running"


def test_start_of_running_and_stop_of_stopped_are_no_errors(engine: Engine) -> None:
    """The API says 304; the client takes it for success."""
    container = engine.start()
    assert engine.api.request("POST", f"/containers/{container}/start").status == 304
    engine.docker("start", container)
    engine.docker("stop", "-t", "0", container)
    assert engine.api.request("POST", f"/containers/{container}/stop").status == 304
    engine.docker("stop", container)


def test_files_stay_between_runs(engine: Engine) -> None:
    """What the first run wrote, the second finds."""
    container = engine.docker("create", engine.image, "sh", "-c", "cat /x 2>/dev/null; echo more >> /x").out.strip()
    assert engine.docker("start", "-a", container).out == ""
    assert engine.docker("start", "-a", container).out == "more\n"
