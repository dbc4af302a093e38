"""Completion: what is offered, by the table and by the engine, and that each shell's script shows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.engine import Engine, clean_environment
from tare.cli.completion import PLACES, complete, split_line
from tare.cli.main import GLOBAL_FLAGS, load
from tare.cli.tree import ALIASES, COMMANDS, GROUPS

TARE = [sys.executable, "-m", "tare.cli.main"]


def values(answer: str) -> list[str]:
    """The offers of an answer."""
    return [line.partition("\t")[0] for line in answer.splitlines()[1:]]


def test_every_command_and_flag_is_offered() -> None:
    """Each name of the command table, and each flag that --help shows, is completed."""
    assert set(values(complete([""]))) == {*GROUPS, *(name for name in (*COMMANDS, *ALIASES) if " " not in name)}
    for group in GROUPS:
        members = {name.partition(" ")[2] for name in (*COMMANDS, *ALIASES) if name.startswith(f"{group} ")}
        assert set(values(complete([group, ""]))) == members
    for path in COMMANDS:
        shown = {f"--{flag.name}" for flag in load(path).flags if flag.about}
        assert set(values(complete([*path.split(), "--"]))) == shown | {"--help"}
    assert "--tlsverify" in values(complete(["--tls"]))


def test_usage_lines_speak_of_known_places() -> None:
    """A usage line that names a thing of the engine uses the word by which completion knows it."""
    for path in COMMANDS:
        for word in load(path).usage.replace("[", " ").replace("]", " ").split():
            if word.rstrip(".").isupper() and word.rstrip(".") in ("CONTAINERS", "IMAGES", "CONTAINER_ID", "VOL"):
                pytest.fail(f"{path}: {word} is not one of {', '.join(PLACES)}")


@pytest.mark.parametrize(
    ("line", "first", "offered"),
    [
        ("tare ru", ":none", ["run"]),
        ("tare container sta", ":none", ["start", "stats"]),
        ("tare run --restart ", ":none", ["no", "always", "on-failure", "unless-stopped"]),
        ("tare run -it --restart=un", ":none", ["--restart=unless-stopped"]),
        ("tare run box ", ":files", []),
        ("tare run box -", ":files", []),
        ("tare run --env-file ", ":files", []),
        ("tare run --name ", ":none", []),
        ("tare completion f", ":none", ["fish"]),
        ("tare network create ", ":files", []),
        ("tare help ver", ":none", ["version"]),
        ("tare nosuch ", ":files", []),
        ("tare ps ", ":none", []),
        ("tare --log-level de", ":none", ["debug"]),
        ("tare -l de", ":none", ["debug"]),
        ("tare --log-level debug ru", ":none", ["run"]),
    ],
)
def test_what_can_stand_at_the_cursor(line: str, first: str, offered: list[str]) -> None:
    """Groups, commands, flags, values of flags; where there is nothing to offer, files, or nothing."""
    answer = complete(split_line(line))
    assert answer.splitlines()[0] == first
    assert values(answer) == offered


def test_aliases_are_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alias of config.json is offered like a command; behind it stands what can stand behind its words."""
    monkeypatch.setenv("TARE_CONFIG", str(tmp_path))
    ours = {
        "alias.psa": "ps -a",
        "alias.again": "run --restart",
        "alias.run": "ps",
        "alias.odd": "nosuch",
        "alias.q": "'",
    }
    (tmp_path / "config.json").write_text(
        json.dumps({"plugins": {"tare": ours}, "aliases": {"v": "volume", "builder": "x"}})
    )
    assert {"again", "psa", "v"} <= set(values(complete([""])))
    assert not {"odd", "q", "builder"} & set(values(complete([""]))) and values(complete([""])).count("run") == 1
    assert "psa\tps -a" in complete(["ps"]).splitlines()
    assert values(complete(["psa", "--qui"])) == ["--quiet"]
    assert values(complete(["again", "on"])) == ["on-failure"]
    assert values(complete(["v", "prun"])) == ["prune"]
    assert complete(["q", ""]) == ":files\n"
    (tmp_path / "config.json").write_text("{")
    assert "ps" in values(complete([""])) and complete(["psa", ""]) == ":files\n"


def test_config_is_looked_for_where_the_line_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config before the cursor holds for what is offered, too."""
    monkeypatch.delenv("TARE_CONFIG", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "other"))
    (tmp_path / "config.json").write_text('{"plugins": {"tare": {"alias.mine": "ps"}}}')
    assert values(complete(["mi"])) == []
    assert values(complete(["--config", str(tmp_path), "mi"])) == ["mine"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tare ", [""]),
        ("tare a", ["a"]),
        ("tare  a  b ", ["a", "b", ""]),
        ("tare 'a b' c", ["a b", "c"]),
        ('tare "a b', ["a b"]),
        (r"tare a\ b", ["a b"]),
        ("tare ''", [""]),
        (r"tare 'a\b'", [r"a\b"]),
        ("tare a\\", ["a\\"]),
    ],
)
def test_lines_are_split_as_by_a_shell(line: str, words: list[str]) -> None:
    """Quotes and backslashes are understood as far as they are typed."""
    assert split_line(line) == words


def test_names_come_from_the_engine(engine: Engine) -> None:
    """Containers by what the verb can do with them, images, networks, volumes; of the engine that the line names."""
    runs, ended = engine.unique("runs"), engine.unique("ended")
    engine.start("--name", runs)
    engine.create({}, ended)

    def offered(*words: str) -> list[str]:
        line = ["-H", f"unix://{engine.socket}", *words]
        return values(complete(line))

    stem = runs[: -len("runs1") - 3]
    assert {runs, ended} <= set(offered("rm", stem))
    assert runs in offered("exec", "")
    assert ended not in offered("exec", "")
    assert ended in offered("start", "")
    assert runs not in offered("start", "")
    assert f"{runs}:" in offered("cp", "")
    assert any(name.startswith(engine.image.partition(":")[0]) for name in offered("run", ""))
    assert "bridge" in offered("network", "inspect", "")
    assert "bridge" in offered("run", "--network", "br")
    assert "--network=bridge" in offered("run", "--network=br")
    assert {runs, "bridge"} <= set(offered("inspect", ""))


def test_an_engine_that_is_not_there_is_no_noise() -> None:
    """Without an engine nothing is offered, said, or started."""
    environment = clean_environment({"DOCKER_HOST": "unix:///nonexistent/sock"})
    done = subprocess.run([*TARE, "__complete", "--line", "tare rm "], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, ":none\n", "")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a `tare` for PATH and the scripts of all shells."""
    program = tmp_path / "tare"
    program.write_text(f'#!/bin/sh\nexec {" ".join(TARE)} "$@"\n')
    program.chmod(0o755)
    for shell in ("bash", "zsh", "fish"):
        made = subprocess.run([*TARE, "completion", shell], capture_output=True, check=True).stdout
        (tmp_path / f"script.{shell}").write_bytes(made)
    return tmp_path


def shell(home: Path, *argv: str) -> str:
    """What a shell prints."""
    environment = clean_environment({"PATH": f"{home}:{os.environ['PATH']}", "HOME": str(home)})
    done = subprocess.run(argv, cwd=home, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    return done.stdout


BASH = """
source script.bash
line=$1; COMP_LINE=$line; COMP_POINT=${#line}; COMP_WORDS=(tare); COMP_CWORD=1
_tare
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compadd() { print -l -- "${(@)values}" }
_files() { print files }
source ./script.zsh
words=("$@"); CURRENT=$#words; PREFIX=${words[-1]}
_tare
"""


def test_bash_offers_it(home: Path) -> None:
    """bash shows the commands, and a value without the part that bash has split off."""
    assert shell(home, "bash", "-c", BASH, "bash", "tare container sta") == "start\nstats\n"
    assert shell(home, "bash", "-c", BASH, "bash", "tare run --restart=un") == "unless-stopped\n"


def test_zsh_offers_it(home: Path) -> None:
    """zsh shows the commands, and files where files can be."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    assert shell(home, "zsh", "-f", "-c", ZSH, "zsh", "tare", "container", "sta") == "start\nstats\n"
    assert shell(home, "zsh", "-f", "-c", ZSH, "zsh", "tare", "run", "--env-file", "") == "files\n"


def test_fish_offers_it(home: Path) -> None:
    """fish shows the commands with their summaries, and files where files can be."""
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = "source script.fish; complete -C $argv[1]"
    offered = shell(home, "fish", "--no-config", "-c", script, "tare container sta")
    assert offered == "start\tStart stopped containers\nstats\tShow what containers use, live\n"
    (home / "envfile").touch()
    assert "envfile" in shell(home, "fish", "--no-config", "-c", script, "tare run --env-file en")


def test_global_flags_are_known() -> None:
    """The table of global flags is the one that parses."""
    assert {flag.name for flag in GLOBAL_FLAGS} >= {"host", "context", "tlsverify"}
