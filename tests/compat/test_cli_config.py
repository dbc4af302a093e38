"""What config.json says to both command lines: default formats, prune filters, headers, detach keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.engine import Engine, Result

Client = Callable[..., Result]


@pytest.fixture(params=["docker", "tare"])
def client(engine: Engine, request: pytest.FixtureRequest) -> Client:
    """Both command lines."""
    made: Client = engine.docker if request.param == "docker" else engine.tare_cli
    return made


def configured(folder: Path, **keys: Any) -> list[str]:
    """The flags with which a command line takes a config.json of these keys."""
    (folder / "config.json").write_text(json.dumps(keys))
    return ["--config", str(folder)]


def test_default_formats(engine: Engine, client: Client, tmp_path: Path) -> None:
    """psFormat and its sisters hold where neither --format nor --quiet is given."""
    name = engine.unique()
    engine.docker("run", "-d", "--name", name, engine.image, "sleep", "1000")
    engine.docker("volume", "create", name)
    engine.docker("network", "create", "--internal", name)
    formats = {"psFormat": "p {{.Names}}", "imagesFormat": "i {{.Repository}}", "networksFormat": "n {{.Name}}"}
    formats |= {"volumesFormat": "v {{.Name}}", "statsFormat": "s {{.Name}}"}
    config = configured(tmp_path, **formats)
    chosen = ["--filter", f"name={name}"]
    assert client(*config, "ps", *chosen).out == f"p {name}\n"
    assert client(*config, "container", "ls", *chosen, "--format", "{{.Names}}").out == f"{name}\n"
    assert len(client(*config, "ps", "-q", *chosen).out) == 13
    assert client(*config, "images", engine.image).out == f"i {engine.image}\n"
    assert client(*config, "network", "ls", *chosen).out == f"n {name}\n"
    assert client(*config, "volume", "ls", *chosen).out == f"v {name}\n"
    assert client(*config, "stats", "--no-stream", name).out == f"s {name}\n"
    engine.docker("rm", "-f", name)
    engine.docker("volume", "rm", name)
    engine.docker("network", "rm", name)


def test_prune_filters(engine: Engine, client: Client, tmp_path: Path) -> None:
    """pruneFilters are added to each prune, but for a label that the command line wants."""
    mark = engine.unique("mark")
    kept = engine.docker("create", "--label", mark, "--label", "keep", engine.image).out.strip()
    gone = engine.docker("create", "--label", mark, engine.image).out.strip()
    config = configured(tmp_path, pruneFilters=["label!=keep", "nonsense"])
    said = client(*config, "container", "prune", "-f", "--filter", f"label={mark}").out
    assert gone in said and kept not in said
    said = client(*config, "container", "prune", "-f", "--filter", f"label={mark}", "--filter", "label=keep").out
    assert kept in said


def test_detach_keys(engine: Engine, client: Client, tmp_path: Path) -> None:
    """detachKeys of the file are used, and checked."""
    config = configured(tmp_path, detachKeys="ctrl-nonsense")
    container = engine.docker("run", "-d", engine.image, "sleep", "1000").out.strip()
    said = client(*config, "exec", container, "true", check=False)
    assert said.code != 0 and "nonsense" in said.err
    assert client(*config, "exec", "--detach-keys", "ctrl-x", container, "echo", "1").out == "1\n"


def test_headers(tare: Engine, tmp_path: Path) -> None:
    """HttpHeaders go with each request; what would break a request, or lie about it, doesn't."""
    headers = {"X-Mark": "mine", "User-Agent": "other", "Content-Length": "9", "X-Bad": "a\r\nX: y", "Bad Name": "x"}
    config = configured(tmp_path, HttpHeaders=headers)
    assert tare.tare_cli(*config, "run", "--rm", tare.image, "echo", "1").out == "1\n"
    from tare.cli.configured import headers as chosen

    assert chosen({"HttpHeaders": headers}) == {"X-Mark": "mine"}


def test_keys_for_others(client: Client, tmp_path: Path) -> None:
    """Docker's alias for its builder, plugins and their folders change nothing about other commands."""
    others = {"cliPluginsExtraDirs": ["/nowhere"], "plugins": {"some": {"hooks": "build"}}, "features": {"x": "y"}}
    config = configured(tmp_path, aliases={"builder": "buildx"}, **others)
    assert client(*config, "ps", "--format", "json", "--filter", "name=nobody").out == ""


def test_an_alias_in_a_file_of_both(engine: Engine, client: Client, tmp_path: Path) -> None:
    """Docker's command line refuses `aliases` of its own choice, and passes over those that `tare` has of `plugins`."""
    refused = engine.docker(*configured(tmp_path, aliases={"psa": "ps -a"}), "ps", check=False)
    assert refused.code != 0 and "not allowed to alias" in refused.err
    config = configured(tmp_path, plugins={"tare": {"alias.psa": "ps -a"}})
    assert client(*config, "ps", "-q", "--filter", "name=nobody").out == ""


@pytest.mark.parametrize(
    "keys",
    [
        lambda aliases: {"aliases": aliases},
        lambda aliases: {"plugins": {"tare": {f"alias.{name}": text for name, text in aliases.items()}}},
    ],
    ids=["aliases", "plugins"],
)
def test_aliases(tare: Engine, tmp_path: Path, keys: Callable[[dict[str, str]], dict[str, Any]]) -> None:
    """They stand for a command and its first arguments; no command is replaced, and no alias leads to another."""
    name = tare.unique()
    tare.docker("create", "--name", name, tare.image)
    aliases = {
        "psa": "container ls -a --format '{{.Names}} {{.State}}'",
        "ps": "version",
        "again": "psa",
        "unclosed": "ps 'a",
        "nothing": "",
        "buildx": "builder",
    }
    config = configured(tmp_path, **keys(aliases))
    assert tare.tare_cli(*config, "psa", "--filter", f"name={name}").out == f"{name} created\n"
    assert tare.tare_cli(*config, "ps").out.startswith("CONTAINER ID")
    for word in ("again", "nothing", "buildx", "other"):
        unknown = tare.tare_cli(*config, word, check=False)
        assert unknown.code == 1 and re.search("unknown command|is not implemented yet", unknown.err), word
    broken = tare.tare_cli(*config, "unclosed", check=False)
    assert broken.code == 1 and "alias unclosed in config.json: no closing quotation" in broken.err


def test_a_broken_file(tare: Engine, tmp_path: Path) -> None:
    """A file of something else, or with keys of the wrong kind, changes nothing."""
    for text in (
        "",
        "[]",
        "{",
        '{"psFormat": 1, "pruneFilters": [1], "HttpHeaders": [], "detachKeys": {}}',
        '{"aliases": [], "plugins": {"tare": 1}}',
        '{"aliases": {"nothing": 1}, "plugins": []}',
    ):
        (tmp_path / "config.json").write_text(text)
        assert tare.tare_cli("--config", str(tmp_path), "ps").out.startswith("CONTAINER ID")
        assert tare.tare_cli("--config", str(tmp_path), "network", "prune", "-f").code == 0
        assert tare.tare_cli("--config", str(tmp_path), "nothing", check=False).code == 1


def test_tree_of_images(tare: Engine) -> None:
    """Each image once, with all names; whether a container has it."""
    tare.docker("tag", tare.image, "another:1")
    tare.start()
    lines = tare.tare_cli("images", "--tree").out.splitlines()
    assert lines[0].split("  ")[0] == "IMAGE" and {line.split()[0] for line in lines} >= {"another:1", "box:latest"}
    image_id = tare.docker("images", "-q", tare.image).out.strip()
    assert len([line for line in lines if image_id in line and line.rstrip().endswith("yes")]) == 1
    assert tare.tare_cli("images", "--tree", "-q", check=False).code == 1
    tare.docker("rmi", "another:1")


def test_update_of_volumes(engine: Engine, client: Client) -> None:
    """There are cluster volumes only where there is a swarm."""
    name = engine.unique("v")
    said = client("volume", "update", "--availability", "drain", name, check=False)
    assert said.code == 1 and ("no such volume" in said.err or "requires API version" in said.err)
    if engine.is_tare:
        engine.docker("volume", "create", name)
        said = client("volume", "update", "--availability", "drain", name, check=False)
        assert said.code == 1 and "can only update cluster volumes" in said.err
        assert client("volume", "ls", "--cluster").out.split()[:2] == ["VOLUME", "NAME"]
        engine.docker("volume", "rm", name)
