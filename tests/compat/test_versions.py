"""Images as versions by `tare`'s own commands: what differs, what was, going back, forking, squashing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.engine import Engine


@pytest.fixture
def engine(tare: Engine) -> Iterator[Engine]:
    """Ours; images that the test made are removed."""
    yield tare
    tare.clean()
    tare.clean_images()


def step(engine: Engine, base: str, script: str, *flags: str, name: str = "") -> tuple[str, str]:
    """Runs a script in a new container of an image and commits it; (the container, the image's id)."""
    container = engine.unique()
    engine.docker("run", "--name", container, base, "sh", "-c", script)
    return container, engine.docker("commit", *flags, container, *([name] if name else [])).out.strip()


def test_diff_of_images_and_containers(engine: Engine) -> None:
    """Image and image, image and container, container and commit, by name and id, both ways."""
    name = engine.unique("image")
    container, first = step(engine, engine.image, "mkdir /d && echo one > /d/f && chmod 600 /etc/group", name=name)
    _, second = step(engine, name, "echo two > /d/f; rm /etc/passwd; echo new > /d/n")
    assert engine.tare_cli("diff", name, second[7:19]).out == (
        "C /d/f  (content: 4B → 4B)\nA /d/n  (file, 0644, 4B)\nD /etc/passwd  (file, 0644, 148B)\n"
    )
    assert engine.tare_cli("diff", engine.image, container).out == (
        "A /d  (directory, 0755)\nA /d/f  (file, 0644, 4B)\nC /etc/group  (mode: 0644 → 0600)\n"
    )
    assert engine.tare_cli("diff", container, first).out == ""
    assert engine.tare_cli("diff", name, name).out == ""
    assert engine.tare_cli("diff", "-p", first, second).out.splitlines()[:6] == [
        "diff --tare a/d/f b/d/f",
        "--- a/d/f",
        "+++ b/d/f",
        "@@ -1 +1 @@",
        "-one",
        "+two",
    ]
    rows = [json.loads(line) for line in engine.tare_cli("diff", "--format", "json", second, name).out.splitlines()]
    assert [(row["Kind"], row["Path"]) for row in rows] == [(0, "/d/f"), (2, "/d/n"), (1, "/etc/passwd")]
    refused = engine.tare_cli("diff", "nope", name, check=False)
    assert (refused.code, refused.err) == (1, "Error response from daemon: No such container or image: nope\n")


def test_diff_of_a_running_container(engine: Engine) -> None:
    """What it changes while it runs shows at once; its own mounts don't."""
    container = engine.start()
    engine.docker("exec", container, "sh", "-c", "echo x > /new; ln -s /new /link")
    assert engine.tare_cli("diff", engine.image, container).out == "A /link  (link to /new)\nA /new  (file, 0644, 2B)\n"
    assert engine.tare_cli("diff", container).out == "A /link\nA /new\n"


def graph(engine: Engine, *arguments: str) -> list[str]:
    """The log's lines without the moments at their ends."""
    return [line.partition(" — ")[0].rstrip() for line in engine.tare_cli("log", *arguments).out.splitlines()]


def test_log_shows_which_was_made_from_which(engine: Engine) -> None:
    """Two branches from one commit, with messages, authors and tags; an image alone shows its own past."""
    name, other = engine.unique("image"), engine.unique("image")
    _, first = step(engine, engine.image, "echo 1 > /f", "-m", "first", name=name)
    _, left = step(engine, name, "echo 2 > /f", "-m", "left\nwith details", "-a", "Ann", name=name)
    _, right = step(engine, first, "echo 3 > /f", name=other)
    base = json.loads(engine.docker("image", "inspect", engine.image).out)[0]["Id"]
    wanted = [
        f"* {right[7:19]} ({other}:latest) sh -c echo 3 > /f",
        f"| * {left[7:19]} ({name}:latest) left",
        "|/",
        f"* {first[7:19]} first",
        f"* {base[7:19]} ({engine.image}:latest) Imported from -",
    ]
    assert graph(engine, "--graph", name, other) == wanted
    assert graph(engine, name) == [wanted[1][4:], *(line[2:] for line in wanted[3:])]
    assert "left — Ann, " in engine.tare_cli("log", name).out
    assert graph(engine, "-n", "1", other) == [wanted[0][2:]]
    rows = [json.loads(line) for line in engine.tare_cli("log", "--format", "json", name).out.splitlines()]
    assert [(row["Id"], row["Parent"]) for row in rows] == [(left, first), (first, base), (base, "")]
    assert rows[0]["Message"] == "left\nwith details"


def test_the_graph_survives_a_removed_parent_and_another_engine(engine: Engine) -> None:
    """Without the parent the nearest ancestor takes its place; a loaded image is found to go on from what is here."""
    name, middle = engine.unique("image"), engine.unique("image")
    step(engine, engine.image, "echo 1 > /f", name=middle)
    step(engine, middle, "echo 2 > /f", name=name)
    saved = engine.api.request("GET", f"/images/{name}/get").body
    engine.docker("rm", "-f", *engine.containers())
    engine.docker("rmi", name)
    engine.docker("rmi", middle)
    engine.docker("load", input=saved)
    rows = [json.loads(line) for line in engine.tare_cli("log", "--format", "json", name).out.splitlines()]
    assert [row["Tags"] for row in rows] == [[f"{name}:latest"], [f"{engine.image}:latest"]]


def test_a_moved_tag_comes_back(engine: Engine) -> None:
    """The reflog tells where a name was; undo puts it back, undone again forth; a removed image is gone."""
    name = engine.unique("image")
    _, first = step(engine, engine.image, "echo 1 > /f", name=name)
    _, second = step(engine, name, "echo 2 > /f", name=name)
    engine.docker("tag", engine.image, name)
    rows = [line.split() for line in engine.tare_cli("reflog", name).out.splitlines()]
    assert rows[0] == ["NAME", "FROM", "TO", "BY", "WHEN"]
    assert [(row[1], row[3]) for row in rows[1:]] == [
        (second[7:19], "tag"),
        (first[7:19], "commit"),
        ("-", "commit"),
    ]

    def now() -> str:
        return str(json.loads(engine.docker("image", "inspect", name).out)[0]["Id"])

    base = now()
    said = engine.tare_cli("tag", "--undo", name).out
    assert said == f"{name}:latest is {second[7:19]} again (was {base[7:19]})\n"
    assert now() == second
    engine.tare_cli("tag", "--undo", name)
    assert now() == base
    engine.docker("rm", "-f", *engine.containers())
    engine.docker("image", "prune", "-f", "--filter", "moved=1h")
    assert engine.tare_cli("tag", "--undo", name).code == 0
    assert now() == second
    engine.docker("tag", engine.image, name)
    engine.docker("image", "prune", "-f")
    refused = engine.tare_cli("tag", "--undo", name, check=False)
    assert (refused.code, refused.err.strip()) == (
        1,
        f"Error response from daemon: {name}:latest was {second[7:19]} before, but that image is gone: it was removed",
    )
    assert f"{second[7:19]} (gone)" in engine.tare_cli("reflog").out
    assert "nothing to undo" in engine.tare_cli("tag", "--undo", "never", check=False).err


def test_undo_of_a_new_name(engine: Engine) -> None:
    """A name that the last move made goes; it can come back."""
    name = engine.unique("image")
    engine.docker("tag", engine.image, name)
    assert " is gone again (was " in engine.tare_cli("tag", "--undo", name).out
    assert engine.docker("image", "inspect", name, check=False).code == 1
    assert engine.tare_cli("tag", "--undo", name).code == 0
    assert engine.docker("image", "inspect", name).code == 0


def image_of(engine: Engine, container: str) -> str:
    return str(engine.inspect(container)["Image"])


def test_checkout_takes_a_container_back_and_forth(engine: Engine) -> None:
    """Its files become the version's, its settings stay, and what it had changed is kept as a commit."""
    name = engine.unique("image")
    _, first = step(engine, engine.image, "echo 1 > /f", name=name)
    _, second = step(engine, name, "echo 2 > /f; rm /etc/passwd", name=name)
    container = engine.unique()
    engine.docker("run", "--name", container, "-e", "A=b", name, "sh", "-c", "cat /f; echo changed > /mine; rm -f /f")
    assert engine.logs(container) == "2\n"
    done = engine.tare_cli("checkout", container, first[7:19])
    assert done.out == f"{container} is at {first[7:19]}\n"
    assert done.err.startswith(f"What it had changed is kept as tare-checkout/{container}:")
    saved = done.err.split()[7]
    assert engine.docker("diff", container).out == ""
    assert image_of(engine, container) == first
    assert engine.inspect(container)["Config"]["Env"] == ["A=b"]
    assert engine.docker("start", "-a", container).out == "1\n"
    lines = engine.tare_cli("diff", second, saved).out.splitlines()
    assert lines == ["D /f  (file, 0644, 2B)", "A /mine  (file, 0644, 8B)"]
    engine.tare_cli("checkout", container, saved)
    assert engine.tare_cli("diff", container, saved).out == ""
    assert engine.docker("start", "-a", container, check=False).out == ""
    engine.docker("rm", container)
    for tag in engine.docker(
        "images", "--format", "{{.Repository}}:{{.Tag}}", f"tare-checkout/{container}"
    ).out.split():
        engine.docker("rmi", tag)


def test_checkout_of_a_running_container(engine: Engine) -> None:
    """Refused; by force it is stopped, and runs again at the version. One that changed nothing leaves no commit."""
    name = engine.unique("image")
    _, first = step(engine, engine.image, "echo 1 > /f", name=name)
    container = engine.start()
    refused = engine.tare_cli("checkout", container, name, check=False)
    assert refused.code == 1 and "is running: stop it before checkout" in refused.err
    assert image_of(engine, container) != first
    done = engine.tare_cli("checkout", "--force", container, name)
    assert done.out.endswith(f" is at {first[7:19]}, started again\n")
    assert done.err == ""
    assert engine.docker("exec", container, "cat", "/f").out == "1\n"
    assert "No such image" in engine.tare_cli("checkout", "-f", container, "nope", check=False).err


def test_a_fork_has_the_settings_and_a_version(engine: Engine) -> None:
    """From a version, and from what the container is now; the old container stays as it is."""
    name = engine.unique("image")
    step(engine, engine.image, "echo 1 > /f", name=name)
    container, one, two = engine.unique(), engine.unique(), engine.unique()
    engine.docker("run", "-d", "--name", container, "-m", "64m", "-e", "A=b", name, "sh", "-c", "cat /f; sleep 1000")
    engine.docker("exec", container, "sh", "-c", "echo now > /f")
    engine.tare_cli("checkout", "-b", one, container, name)
    done = engine.tare_cli("checkout", "-b", two, container)
    assert "What it is now is kept as tare-checkout/" in done.err
    for fork, text in ((one, "1"), (two, "now")):
        facts = engine.inspect(fork)
        assert (facts["HostConfig"]["Memory"], facts["Config"]["Env"]) == (64 << 20, ["A=b"])
        assert facts["Config"]["Hostname"] == facts["Id"][:12]
        engine.docker("start", fork)
        assert engine.docker("exec", fork, "cat", "/f").out == f"{text}\n"
    assert engine.inspect(container)["State"]["Running"]
    assert "already in use" in engine.tare_cli("checkout", "-b", one, container, name, check=False).err
    engine.clean()
    engine.docker("rmi", done.err.split()[7])


def test_branch(engine: Engine) -> None:
    """Names are made at a version or where a container stands, never moved without -f, shown, and removed."""
    name, branch = engine.unique("image"), engine.unique("image")
    _, first = step(engine, engine.image, "echo 1 > /f", "-m", "the first", name=name)
    container = engine.unique()
    engine.docker("create", "--name", container, name)
    engine.tare_cli("branch", f"{branch}:dev", container)
    rows = [line.split(None, 3) for line in engine.tare_cli("branch").out.splitlines()]
    assert rows[0] == ["NAME", "VERSION", "CONTAINERS", "MESSAGE"]
    assert [f"{branch}:dev", first[7:19], container, "the first"] in rows
    refused = engine.tare_cli("branch", f"{branch}:dev", engine.image, check=False)
    assert refused.code == 1 and f"is there already, at {first[7:19]}" in refused.err
    engine.tare_cli("branch", "-f", f"{branch}:dev", engine.image)
    engine.tare_cli("branch", "-d", f"{branch}:dev")
    assert branch not in engine.tare_cli("branch").out


def test_squash_makes_one_version_of_several(engine: Engine) -> None:
    """The same files over the same base in one layer: replaced, deleted and recreated directories included."""
    name, squashed = engine.unique("image"), engine.unique("image")
    _, first = step(engine, engine.image, "mkdir /d && echo 1 > /d/a && echo 1 > /d/b && mkdir /e && echo 1 > /e/a")
    _, second = step(engine, first, "rm -r /d && echo 2 > /e/b && ln /e/b /e/c && rm /etc/passwd", "-m", "two")
    _, third = step(engine, second, "mkdir -m 700 /d && echo 3 > /d/a && rm -r /e && echo e > /e", "-m", "three")
    _, fourth = step(engine, third, "chmod 755 /d; touch -d 2001-01-01 /d/a; rm /bin/vi", "-c", "ENV N=4", name=name)
    made = engine.tare_cli("squash", f"{first}..{name}", "-t", squashed).out.strip()
    image = json.loads(engine.docker("image", "inspect", squashed).out)[0]
    base = json.loads(engine.docker("image", "inspect", first).out)[0]
    assert image["Id"] == made
    assert image["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert image["Config"]["Env"] == ["N=4"]
    assert (image["Parent"], image["Comment"]) == (first, "two\nthree")
    assert engine.tare_cli("diff", made, fourth).out == ""
    script = "ls -ln --full-time /d /e /etc /bin | grep -v ' /etc\\|hostname\\|hosts\\|resolv'"
    listings = [engine.docker("run", "--rm", which, "sh", "-c", script).out for which in (made, fourth)]
    assert listings[0] == listings[1]
    whole = engine.tare_cli("squash", name, "-m", "all", "-a", "Ann").out.strip()
    image = json.loads(engine.docker("image", "inspect", whole).out)[0]
    assert len(image["RootFS"]["Layers"]) == 1 and image["Author"] == "Ann"
    assert engine.tare_cli("diff", whole, fourth).out == ""
    assert "don't go on from those of" in engine.tare_cli("squash", f"{name}..{made}", check=False).err
    assert "nothing to squash" in engine.tare_cli("squash", f"{name}..{name}", check=False).err


def test_commits_of_one_container_follow_each_other(engine: Engine) -> None:
    """Though each is one layer over the same image; after a checkout the next one goes on from that version."""
    container, first = step(engine, engine.image, "echo 1 > /f", "-m", "one")
    engine.docker("start", "-a", container)
    second = engine.docker("commit", "-m", "two", container).out.strip()
    engine.tare_cli("checkout", container, first)
    engine.docker("start", "-a", container)
    third = engine.docker("commit", "-m", "three", container).out.strip()
    base = engine.tare_cli("log", engine.image).out.split()[0]
    rows = [json.loads(line) for line in engine.tare_cli("log", "--format", "json", second, third).out.splitlines()]
    parents = {row["Id"][7:19]: row["Parent"][7:19] for row in rows}
    assert parents == {
        third[7:19]: first[7:19],
        second[7:19]: first[7:19],
        first[7:19]: base,
        base: "",
    }
    assert [row["Message"] for row in rows] == ["three", "two", "one", "Imported from -"]
    saved = engine.docker("images", "-q", "--no-trunc", f"tare-checkout/{container}").out.split()
    for image in saved:
        engine.docker("rmi", "-f", image)
