"""`tare` sends, says and returns what Docker's client 28.2 does, command line by command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_lines import CREATE, OTHERS, lines
from recorded import FILE, Bench, comparable

from support.terminal import Terminal

TARE = [sys.executable, "-c", "from tare.cli.main import main; main()"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("recorder"))
    yield made
    made.recorder.stop()


@pytest.fixture(scope="module")
def docker() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


@pytest.mark.parametrize("line", lines(CREATE) + lines(OTHERS))
def test_the_same_as_docker(bench: Bench, docker: dict[str, Any], line: str) -> None:
    """Requests (ignoring order inside lists), standard output, standard error and exit code are Docker's."""
    tare = comparable(bench.run(TARE, line), docker["base"])
    assert tare == docker["results"][line]


def test_the_recording_covers_every_line(docker: dict[str, Any]) -> None:
    """No line of the list lacks a recording, and none is recorded that isn't in the list."""
    assert set(docker["results"]) == set(lines(CREATE) + lines(OTHERS))


def test_environment_keeps_its_order(bench: Bench) -> None:
    """Variables reach the engine in the order in which they were given; the last of equal names wins."""
    done = bench.run(TARE, "create -e B=1 -e A=2 -e B=3 x")
    assert done["requests"][0][3]["Env"] == ["B=3", "A=2"]


def test_detached_run_does_not_wait(bench: Bench) -> None:
    """run -d is create and start; the id is all that is printed."""
    done = bench.run(TARE, "run -d --name foo x a -b --c")
    assert [(method, path) for method, path, _, _ in done["requests"]] == [
        ("POST", "/containers/create"),
        ("POST", f"/containers/{'c' * 64}/start"),
    ]
    assert done["requests"][0][3]["Cmd"] == ["a", "-b", "--c"]
    assert done["out"] == "c" * 64 + "\n"


def test_update_sends_every_resource(bench: Bench) -> None:
    """The body of update is the whole record of resources, what wasn't asked for left empty."""
    done = bench.run(TARE, "update -m 1g --cpus 1.5 --restart always --pids-limit 5 --memory-swap -1 x")
    body = done["requests"][0][3]
    wanted = {
        "Memory": 1 << 30,
        "NanoCpus": 1_500_000_000,
        "PidsLimit": 5,
        "MemorySwap": -1,
        "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
        "OomKillDisable": None,
        "CpusetCpus": "",
    }
    assert wanted.items() <= body.items()


def test_several_are_asked_for_at_once(bench: Bench) -> None:
    """stop of several containers doesn't wait for one before it asks for the next; names are printed as given."""
    done = bench.run(TARE, "stop -t 3 x y z")
    assert sorted(path for _, path, _, _ in done["requests"]) == [f"/containers/{name}/stop" for name in "xyz"]
    assert done["out"] == "x\ny\nz\n"


@pytest.mark.parametrize(
    ("offered", "used"), [("1.41", "v1.41"), ("1.50", "v1.50"), ("1.99", "v1.50")], ids=["older", "same", "newer"]
)
def test_the_lower_version_is_spoken(tmp_path: Path, offered: str, used: str) -> None:
    """Requests carry the lower of the engine's API version and the one that the client was written for."""
    made = Bench(tmp_path)
    made.recorder.api_version = offered
    made.run(TARE, "stop x")
    import subprocess

    subprocess.run([*TARE, "stop", "x"], env=made.environment, capture_output=True, check=True)
    assert made.recorder.requests[0].version == used
    made.recorder.stop()


@pytest.mark.parametrize("name", ["build", "manifest", "swarm"])
def test_what_is_absent_says_so(bench: Bench, name: str) -> None:
    """A command of Docker's that tare doesn't have is named as such, and nothing is sent."""
    done = bench.run(TARE, f"{name} x")
    assert (done["code"], done["err"], done["requests"]) == (1, f"tare: '{name}' is not implemented yet\n", [])


def test_tcp_speaks_too(tmp_path: Path) -> None:
    """An engine on tcp:// is spoken to without TLS; what can't be an engine's address is refused."""
    import subprocess

    for host, text in (
        ("ssh://-me@there", "that is no machine's name"),
        ("npipe:////./pipe/x", "tare doesn't speak npipe://"),
        ("foo", "unable to parse tare host `foo`"),
        ("tcp://localhost:x", "bad port 'x'"),
        ("tcp://127.0.0.1:1", "Cannot connect to the Tare daemon at tcp://127.0.0.1:1. Is tared running?"),
        (f"unix://{tmp_path}/none", f"Cannot connect to the Tare daemon at unix://{tmp_path}/none. Is tared running?"),
    ):
        done = subprocess.run([*TARE, "-H", host, "ps"], capture_output=True, text=True)
        assert done.returncode == 1
        assert text in done.stderr


def test_the_windows_size_is_told_from_the_start(tmp_path: Path) -> None:
    """On a terminal the container's first size goes with create, and an exec's with both of its calls."""
    made = Bench(tmp_path)
    made.recorder.answers[("POST", "/containers/x/exec")] = (201, {"Id": "e" * 64})
    for line in ("create -it x", "exec -it x sh"):
        with Terminal([*TARE, *line.split()], rows=33, cols=99, env=made.environment) as screen:
            screen.wait()
    create, _inspect, execute, start = made.recorder.requests[:4]
    assert create.body["HostConfig"]["ConsoleSize"] == [33, 99]
    assert execute.body["ConsoleSize"] == start.body["ConsoleSize"] == [33, 99]
    made.recorder.stop()


def test_whose_socket_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root has /run; others have their runtime folder, or root's socket if it is the only one and open to them."""
    from tare.client import host

    theirs, own = tmp_path / "root.sock", tmp_path / "tare" / "tare.sock"
    monkeypatch.setattr(host, "DEFAULT_ROOT_SOCKET", str(theirs))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert host.default_host().target == str(theirs)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert host.default_host().text == f"unix://{own}"
    theirs.touch()
    assert host.default_host().target == str(theirs)
    own.parent.mkdir()
    own.touch()
    assert host.default_host().target == str(own)
