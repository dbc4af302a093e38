"""Contexts: the same story with Docker's client and ours, told apart only by their names, and files shared by both."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.engine import Result, clean_environment, docker_clients, run

TARE = [sys.executable, "-c", "from tare.cli.main import main; main()"]
DOCKER = docker_clients()[:1] or ["docker"]
# What is done one after another; a word with = before the command is environment.
STORY = """
context show
context create foo --docker host=tcp://1.2.3.4:2376,skip-tls-verify=true --description about
context create foo
context ls --format {{.Name}}/{{.Description}}/{{.Current}}
context inspect foo
context inspect -f {{.Endpoints.docker.Host}} foo
context use foo
context show
--context nope ps
DOCKER_CONTEXT=nope ps
--context foo -H unix:///x ps
DOCKER_HOST=unix:///x context show
DOCKER_HOST=unix:///x --context foo context show
DOCKER_HOST=unix:///x DOCKER_CONTEXT=foo context show
DOCKER_HOST=unix:///x context inspect -f {{.Endpoints.docker.Host}}
DOCKER_HOST=unix:///x context use default
DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=/nonexistent DOCKER_HOST=tcp://1.2.3.4 context show
context rm nope
context use foo
context rm foo
context rm -f foo
context inspect foo
context create b1 --docker host=unix:///y
context create bad!name
context create default
context rm default
context update b1 --description z
context update foo
DOCKER_HOST=unix:///x context use b1
context use default
context inspect b1
context export b1
context export b1
context import b2 b1.dockercontext
context import b2 b1.dockercontext
context ls -q
context inspect nope
context use nope
context export nope
context import default b1.dockercontext
context create c3 --docker x=y
context create c3 --docker host=ssh://a@b
context create c4 --docker host=tcp://h:1,ca=/nope
context create c5 --from b1
context inspect c5 -f {{.Name}}/{{.Endpoints.docker.Host}}
DOCKER_CONTEXT=c3 context show
-c b1 context show
-H unix:///x context show
context rm c3 b1 nope
context ls -q
"""

# What clients before 28 say otherwise, with what the newest say.
EARLIER = {
    "conflicting options: either specify --host or --context, not both\n": (
        "conflicting options: cannot specify both --host and --context\n"
    ),
    'default: context "default" cannot be removed\n': 'context "default" cannot be removed\n',
    "unable to create docker endpoint config: x: unrecognized config key\n": (
        "unable to create docker endpoint config: unrecognized config key: x\n"
    ),
}


def tell(client: list[str], home: Path) -> list[tuple[str, Result]]:
    """Runs the story with one client in its own settings folder."""
    home.mkdir()
    told = []
    for line in STORY.strip().splitlines():
        words = line.split()
        environment = {"DOCKER_CONFIG": str(home), "TARE_AUTOSTART": "0"}
        while "=" in words[0] and words[0].partition("=")[0].isupper():
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        script = f'cd {home}; exec "$@"'
        told.append((line, run(["sh", "-c", script, "sh", *client, *words], env=environment, check=False)))
    return told


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Result, Result]]:
    """Each line with what Docker's client made of it, and ours."""
    place = tmp_path_factory.mktemp("contexts")
    docker, ours = tell(DOCKER, place / "d"), tell(TARE, place / "t")
    return [
        (line, his, Result(mine.code, mine.out.replace(f"{place}/t", f"{place}/d"), mine.err))
        for (line, his), (_, mine) in zip(docker, ours, strict=True)
    ]


def test_the_story_is_the_same(stories: list[tuple[str, Result, Result]]) -> None:
    """Output, errors and exit codes of all context commands, and which context is in force, are Docker's."""
    different = []
    for line, his, mine in stories:
        said = (mine.code, mine.out, mine.err.replace("/t/contexts/", "/d/contexts/"))
        wanted = (his.code, his.out, EARLIER.get(his.err, his.err))
        if said != wanted:
            different.append((line, wanted, said))
    assert not different, "\n".join(map(repr, different))


def test_each_reads_what_the_other_wrote(tmp_path: Path) -> None:
    """A context with TLS files made by one client is the same for the other, in the same folder and as an archive."""
    made = run([*TARE, "cert", "-o", str(tmp_path / "made")]).out.strip()
    files = ",".join(f"{name}={made}/{name}.pem" for name in ("ca", "cert", "key"))
    environment = {"DOCKER_CONFIG": str(tmp_path / "config")}

    def call(client: list[str], *args: str) -> Result:
        return run([*client, "context", *args], env=environment)

    for writer, reader, name in ((DOCKER, TARE, "dd"), (TARE, DOCKER, "tt")):
        call(writer, "create", name, "--docker", f"host=tcp://1.2.3.4:2376,{files}", "--description", "both")
        call(writer, "use", name)
        assert call(reader, "show").out == f"{name}\n"
        mine, his = (json.loads(call(client, "inspect").out) for client in (writer, reader))
        assert mine == his
        assert mine[0]["TLSMaterial"] == {"docker": ["ca.pem", "cert.pem", "key.pem"]}
        archive = tmp_path / f"{name}.tar"
        call(writer, "export", name, str(archive))
        assert archive.stat().st_mode & 0o777 == 0o600
        call(reader, "import", f"{name}2", str(archive))
        again = json.loads(call(writer, "inspect", f"{name}2").out)[0]
        assert again["TLSMaterial"] == mine[0]["TLSMaterial"]
        assert again["Endpoints"] == mine[0]["Endpoints"]


def test_settings_of_others_are_kept(tmp_path: Path) -> None:
    """context use changes one key of config.json and nothing else, keeps a link a link, and the file private."""
    real = tmp_path / "real.json"
    real.write_text(json.dumps({"auths": {"x": {"auth": "YTpi"}}, "unknown": [1, {"a": None}]}))
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.json").symlink_to(real)
    environment = {"DOCKER_CONFIG": str(config)}
    run([*TARE, "context", "create", "here", "--docker", "host=unix:///x"], env=environment)
    run([*TARE, "context", "use", "here"], env=environment)
    kept = {"auths": {"x": {"auth": "YTpi"}}, "unknown": [1, {"a": None}]}
    assert json.loads(real.read_text()) == {**kept, "currentContext": "here"}
    assert (config / "config.json").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    run([*TARE, "--config", str(config), "context", "use", "default"])
    assert json.loads(real.read_text()) == kept
    real.write_text("not JSON")
    done = run([*TARE, "context", "use", "here"], env=environment, check=False)
    assert done.code == 1
    assert real.read_text() == "not JSON"


def hostile_tar() -> bytes:
    """An archive that wants to write elsewhere."""
    output = io.BytesIO()
    meta = json.dumps({"Name": "../../up", "Endpoints": {"docker": {"Host": "unix:///x"}}}).encode()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, data in (("meta.json", meta), ("../evil", b"x"), ("tls/docker/../../../../evil", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("tls/docker/ca.pem")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        archive.addfile(link)
    return output.getvalue()


def zipped() -> bytes:
    """A zip, which Docker's client takes too."""
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("meta.json", json.dumps({"Name": "z", "Endpoints": {"docker": {"Host": "unix:///z"}}}))
        archive.writestr("tls/docker/ca.pem", "ca")
    return output.getvalue()


def test_an_archive_writes_nothing_of_its_own_choice(tmp_path: Path) -> None:
    """Names, links and paths in an imported archive reach nothing outside the context that is named."""
    archive, config = tmp_path / "a.tar", tmp_path / "deep" / "config"
    archive.write_bytes(hostile_tar())
    environment = {"DOCKER_CONFIG": str(config)}
    run([*TARE, "context", "import", "mine", str(archive)], env=environment)
    (found,) = json.loads(run([*TARE, "context", "inspect", "mine"], env=environment).out)
    assert (found["Name"], found["TLSMaterial"]) == ("mine", {})
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file() and path != archive]
    assert [path.name for path in written] == ["meta.json"]
    archive.write_bytes(zipped())
    run([*TARE, "context", "import", "zip", str(archive)], env=environment)
    assert "unix:///z" in run([*TARE, "context", "inspect", "zip"], env=environment).out
    for junk in (b"", b"junk", b"PK\x03\x04junk"):
        archive.write_bytes(junk)
        assert run([*TARE, "context", "import", "junk", str(archive)], env=environment, check=False).code == 1


def test_the_environment_of_tests_is_clean() -> None:
    """No context of whoever runs the tests is in force."""
    assert "DOCKER_CONTEXT" not in clean_environment()
