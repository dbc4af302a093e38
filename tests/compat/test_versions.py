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
