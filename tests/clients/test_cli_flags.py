"""What the official command line has and `tare` lacks is refused by name, never taken for something else."""

from __future__ import annotations

import importlib
import sys

import pytest

from support.engine import run
from support.recording import flags_of_commands
from tare.cli.tree import COMMANDS

ELSEWHERE = "buildx swarm service stack node secret config plugin checkpoint trust manifest".split()


def lacking() -> list[tuple[str, str]]:
    """(command, flag) of the official client that ours hasn't; flag "" where the whole command is absent."""
    found = []
    for command, flags in flags_of_commands().items():
        if not command or command.split()[0] in ELSEWHERE:
            continue
        if command not in COMMANDS:
            found.append((command, ""))
            continue
        module = importlib.import_module(f"tare.cli.commands.{command.replace(' ', '_')}")
        own = {f"--{flag.name}" for flag in module.COMMAND.flags}
        found += [
            (command, long)
            for long in dict.fromkeys(long for long, _ in flags.values())
            if long not in own | {"--help"}
        ]
    return found


@pytest.mark.parametrize(("command", "flag"), lacking())
def test_what_is_lacking_is_refused_by_name(command: str, flag: str) -> None:
    """An unknown flag or command ends with its name in the error, before any engine is asked."""
    argv = [sys.executable, "-m", "tare.cli.main", "-H", "unix:///nonexistent/tare.sock", *command.split()]
    done = run([*argv, flag] if flag else argv, check=False)
    assert done.code != 0
    assert f"unknown flag: {flag}" in done.err if flag else command.split()[0] in done.err, done
