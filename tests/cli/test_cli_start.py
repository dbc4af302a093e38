"""What every start of `tare` costs: which modules come in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recorder import Recorder

HEAVY = {
    "argparse",
    "asyncio",
    "calendar",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "http.client",
    "importlib",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "re",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "typing",
    "urllib.parse",
}
# Leaves like main() but tells which modules were loaded at the end.
PROGRAM = """
import sys
from tare.cli.main import run
before = set(sys.modules)
run(sys.argv[1:])
sys.stderr.write("\\nloaded " + " ".join(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    "line",
    [
        "ps",
        "ps -a --filter name=x",
        "version",
        "images",
        "create -it -p 80:80 -v /a:/b -e A=b --name x x sh",
        "run -d x",
        "stop x",
        "rm -f x",
        "--version",
    ],
)
def test_nothing_heavy_is_loaded(tmp_path: Path, line: str) -> None:
    """Everyday commands load none of the modules that cost milliseconds: no json, re, socket, enum, argparse …"""
    recorder = Recorder(tmp_path / "engine.sock")
    recorder.answers[("GET", "/containers/json")] = (200, [])
    recorder.answers[("GET", "/images/json")] = (200, [])
    recorder.answers[("GET", "/version")] = (200, {"Version": "1"})
    plain = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "-H", recorder.host, *line.split()], capture_output=True, text=True, check=True
    )
    recorder.stop()
    loaded = set(done.stderr.rpartition("loaded ")[2].split())
    assert "tare.cli.main" in loaded
    assert not (loaded & HEAVY) - set(plain.stdout.split())


def test_every_command_loads_and_has_help() -> None:
    """Each command of the tree has a module, a usage line and a text per visible flag; names and letters are unique."""
    from tare.cli.help import format_help
    from tare.cli.main import load
    from tare.cli.tree import ALIASES, COMMANDS, GROUPS

    for path in (*COMMANDS, *ALIASES, *GROUPS, ""):
        text = format_help(path)
        assert text.startswith(f"Usage:  tare {path}".rstrip())
        assert max(map(len, text.splitlines())) < 110
        if path not in GROUPS and path:
            flags = load(path).flags
            assert len({flag.name for flag in flags}) == len(flags)
            letters = [flag.short for flag in flags if flag.short]
            assert len(set(letters)) == len(letters)


def test_commands_are_those_of_the_folder() -> None:
    """No module lies in the commands folder that no name leads to."""
    import tare.cli.commands
    from tare.cli.tree import COMMANDS

    folder = Path(tare.cli.commands.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert modules == {path.replace(" ", "_").replace("-", "_") for path in COMMANDS}


@pytest.mark.parametrize(
    "line", ["--help", "run --help", "run -it --help x", "ps --help", "container --help", "help run", "create --help"]
)
def test_help_is_shown_without_an_engine(line: str) -> None:
    """--help wins over everything else that is missing, goes to stdout, and asks no engine."""
    program = [sys.executable, "-c", "from tare.cli.main import main; main()", "-H", "unix:///nowhere"]
    done = subprocess.run([*program, *line.split()], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage:  tare ")


def test_help_on_stderr_when_nothing_was_asked() -> None:
    """tare alone, or a group alone, shows its help on stderr."""
    for words in ([], ["container"]):
        program = [sys.executable, "-c", "from tare.cli.main import main; main()"]
        done = subprocess.run([*program, *words], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith("Usage:  tare ")
