"""Images by the official command line: import, commit, tag, history, inspect, remove; on both engines."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import re
import tarfile
from collections.abc import Iterator

import pytest
import zstandard

from support.busybox import busybox_tar
from support.engine import Engine


@pytest.fixture
def engine(any_engine: Engine) -> Iterator[Engine]:
    """Both engines; containers and images that the test made are removed."""
    yield any_engine
    any_engine.clean()
    any_engine.clean_images()


def small_tar(**files: str) -> bytes:
    """A tar with these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()


@pytest.mark.parametrize("compression", ["none", "gzip", "xz", "zstd", "bzip2"])
def test_import_of_each_compression(engine: Engine, compression: str) -> None:
    """import takes plain, gzip, bzip2, xz and zstd tars; the same content gets the same layer."""
    if compression == "zstd" and not engine.is_tare:
        pytest.skip("Docker differs here: version 20.10 doesn't know zstd")
    tar = small_tar(hello="world\n")
    packed = {
        "none": tar,
        "gzip": gzip.compress(tar),
        "xz": lzma.compress(tar),
        "zstd": zstandard.ZstdCompressor().compress(tar),
        "bzip2": bz2.compress(tar),
    }[compression]
    reference = engine.unique("image")
    said = engine.docker("import", "-", reference, input=packed).out
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", said)
    image = json.loads(engine.docker("image", "inspect", reference).out)[0]
    assert image["Id"] == said.strip()
    assert image["RootFS"] == {"Type": "layers", "Layers": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]}
    assert image["RepoTags"] == [f"{reference}:latest"]
    assert (image["Os"], image["Architecture"]) == ("linux", "amd64")


def test_import_with_changes_and_message(engine: Engine) -> None:
    """--change takes Dockerfile lines, --message lands in the history."""
    reference = engine.unique("image")
    changes = [
        'CMD ["sh", "-c", "echo $A"]',
        "ENV A=1 B=two",
        "WORKDIR /home",
        "USER web",
        "EXPOSE 80/tcp 53/udp",
        "LABEL x=y z=1",
        "VOLUME /data",
        'ENTRYPOINT ["/bin/env"]',
    ]
    flags = [part for change in changes for part in ("--change", change)]
    engine.docker("import", *flags, "--message", "made by a test", "-", reference, input=busybox_tar())
    image = json.loads(engine.docker("image", "inspect", reference).out)[0]
    config = image["Config"]
    assert config["Cmd"] == ["sh", "-c", "echo $A"] or config["Cmd"] is None
    assert config["Entrypoint"] == ["/bin/env"]
    assert {"A=1", "B=two"} <= set(config["Env"])
    assert (config["WorkingDir"], config["User"]) == ("/home", "web")
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}} and config["Volumes"] == {"/data": {}}
    assert config["Labels"] == {"x": "y", "z": "1"}
    history = engine.docker("history", "--no-trunc", "--format", "{{.Comment}}", reference).out
    assert history == "made by a test\n"
    assert engine.docker("run", "--rm", "--entrypoint", "sh", reference, "-c", "echo $B; pwd; id -un").out.split() == [
        "two",
        "/home",
        "web",
    ]


def test_bad_change_is_refused(engine: Engine) -> None:
    """A line that may not be in --change is an error, and no image is made."""
    reference = engine.unique("image")
    for change in ("RUN true", "NONSENSE x", "FROM scratch"):
        refused = engine.docker("import", "--change", change, "-", reference, input=small_tar(a="b"), check=False)
        assert refused.code == 1 and "is not a valid change command" in refused.err
    assert engine.docker("image", "inspect", reference, check=False).code == 1


def test_commit(engine: Engine) -> None:
    """commit makes an image of what the container changed, with the changes, author and message given."""
    script = "echo data > /made; rm /etc/group; sleep 1000"
    container = engine.start(flags=["-e", "KEPT=1"], command=["sh", "-c", script])
    engine.docker("exec", container, "sh", "-c", "until [ ! -e /etc/group ]; do sleep 0.02; done")
    reference = engine.unique("image")
    flags = ["--author", "me", "--message", "why", "--change", 'CMD ["cat", "/made"]', "--change", "ENV NEW=2"]
    said = engine.docker("commit", *flags, container, f"{reference}:v1").out
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", said)
    assert engine.docker("run", "--rm", f"{reference}:v1").out == "data\n"
    shown = engine.docker("run", "--rm", f"{reference}:v1", "sh", "-c", "echo $KEPT $NEW; ls /etc").out.split()
    assert shown[:2] == ["1", "2"] and "group" not in shown and "passwd" in shown
    image = json.loads(engine.docker("image", "inspect", f"{reference}:v1").out)[0]
    base = json.loads(engine.docker("image", "inspect", engine.image).out)[0]
    assert image["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert image["Author"] == "me" and image["Config"]["Cmd"] == ["cat", "/made"]
    rows = engine.docker("history", "--format", "{{.Comment}}", f"{reference}:v1").out.splitlines()
    assert len(rows) == 2 and rows[0] == "why"
    assert engine.inspect(container)["State"]["Status"] == "running"


def test_commit_of_a_stopped_container_and_without_name(engine: Engine) -> None:
    """A stopped container can be committed; without a name the image is dangling."""
    container = engine.start(command=["touch", "/x"])
    engine.exit_code(container)
    image = engine.docker("commit", container).out.strip()
    assert json.loads(engine.docker("image", "inspect", image).out)[0]["RepoTags"] == []
    assert image.removeprefix("sha256:")[:12] in engine.docker("images", "-q", "--filter", "dangling=true").out
    engine.docker("rmi", image)


def test_tag_list_and_remove(engine: Engine) -> None:
    """tag adds a name; rmi takes one name away and the image with the last one."""
    first, second = engine.unique("image"), engine.unique("image")
    engine.import_image(first, small_tar(a=first))
    image = engine.docker("images", "-q", "--no-trunc", first).out.strip()
    engine.docker("tag", first, f"{second}:x.y-1")
    assert engine.docker("images", "-q", "--no-trunc", f"{second}:x.y-1").out.strip() == image
    row = engine.docker("images", "--format", "{{.Repository}}|{{.Tag}}|{{.ID}}|{{.Size}}", second).out.strip()
    assert row.split("|")[:3] == [second, "x.y-1", image.removeprefix("sha256:")[:12]]
    assert engine.docker("rmi", first).out == f"Untagged: {first}:latest\n"
    said = engine.docker("rmi", f"{second}:x.y-1").out.splitlines()
    assert said[:2] == [f"Untagged: {second}:x.y-1", f"Deleted: {image}"] and said[2].startswith("Deleted: sha256:")
    missing = engine.docker("rmi", first, check=False)
    assert missing.code == 1 and f"No such image: {first}:latest" in missing.err


def test_remove_of_what_is_used(engine: Engine) -> None:
    """rmi refuses an image that a container uses, and by id one with several names; -f and names go on."""
    reference = engine.unique("image")
    image = engine.import_image(reference, busybox_tar({"mark": reference.encode()}))
    stopped = engine.docker("create", reference).out.strip()
    refused = engine.docker("rmi", reference, check=False)
    text = f'unable to remove repository reference "{reference}" (must force) - container {stopped[:12]}'
    assert refused.code == 1 and f"conflict: {text} is using its referenced image {image[7:19]}" in refused.err
    running = engine.docker("run", "-d", reference, "sleep", "1000").out.strip()
    refused = engine.docker("rmi", "-f", image, check=False)
    text = f"unable to delete {image[7:19]} (cannot be forced) - image is being used by running container"
    assert refused.code == 1 and f"conflict: {text} {running[:12]}" in refused.err
    engine.docker("rm", "-f", stopped, running)
    engine.docker("tag", reference, f"{reference}:two")
    refused = engine.docker("rmi", image, check=False)
    text = f"unable to delete {image[7:19]} (must be forced) - image is referenced in multiple repositories"
    assert refused.code == 0 or text in refused.err  # two tags of one repository are no conflict
    if refused.code:
        engine.docker("rmi", "-f", image)
    assert engine.docker("image", "inspect", reference, check=False).code == 1


def test_old_clients_see_which_container_was_committed(engine: Engine) -> None:
    """Until 1.44, Container and ContainerConfig of an image tell of the container that was committed."""
    container = engine.docker("create", "--hostname", "spring", engine.image, "true").out.strip()
    image = engine.docker("commit", container).out.strip()
    seen = engine.api.request("GET", f"/v1.41/images/{image}/json").json
    assert seen["Container"] == container
    assert (seen["ContainerConfig"]["Hostname"], seen["ContainerConfig"]["Image"]) == ("spring", engine.image)
    engine.docker("rmi", image)


def test_compose_1_finds_the_container_config_of_an_image(engine: Engine) -> None:
    """Compose 1.29 looks for ContainerConfig at any version: an engine of today has to know it by its name."""
    if not engine.is_tare and engine.release >= 25:
        pytest.skip("Docker differs here: since 25 Compose 1.29 fails")
    headers = {"User-Agent": "docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1"}
    seen = engine.api.request("GET", f"/images/{engine.image}/json", headers=headers).json
    assert "Volumes" in seen["ContainerConfig"]


def test_image_of_a_commit_keeps_its_parent(engine: Engine) -> None:
    """A parent that was untagged lives as long as the child; then both can go."""
    reference, child = engine.unique("image"), engine.unique("image")
    engine.import_image(reference, busybox_tar({"mark": reference.encode()}))
    container = engine.docker("create", reference).out.strip()
    engine.docker("commit", container, child)
    engine.docker("rm", container)
    engine.docker("rmi", "-f", reference)
    assert engine.docker("run", "--rm", child, "cat", "/mark").out == reference
    engine.docker("rmi", child)


def test_image_list_filters(engine: Engine) -> None:
    """reference, label, dangling, before and since choose; --digests and --no-trunc show more."""
    mark = engine.unique("image")
    engine.import_image(f"{mark}-a", small_tar(a="1"), ["LABEL kind=first"])
    engine.import_image(f"{mark}-b", small_tar(a="2"), ["LABEL kind=second"])

    def listed(*flags: str) -> set[str]:
        out = engine.docker("images", "--format", "{{.Repository}}", *flags).out.split()
        return {name.removeprefix(mark) for name in out if name.startswith(mark)}

    assert listed() == {"-a", "-b"}
    assert listed("--filter", "label=kind=first") == {"-a"}
    assert listed("--filter", "label=kind") == {"-a", "-b"}
    assert listed("--filter", f"reference={mark}-?:latest") == {"-a", "-b"}
    assert listed("--filter", f"reference={mark}-a") == {"-a"}
    assert listed("--filter", f"since={mark}-a") == {"-b"}
    assert listed("--filter", "dangling=true") == set()
    assert "<none>" in engine.docker("images", "--digests", f"{mark}-a").out


def test_history_columns(engine: Engine) -> None:
    """history has the image's row with its size and comment."""
    lines = engine.docker("history", engine.image).out.splitlines()
    assert lines[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert len(lines) == 2 and "Imported from -" in lines[1]
    row = engine.api.request("GET", f"/images/{engine.image}/history").json[0]
    assert row["Size"] > 500_000 and row["Comment"] == "Imported from -" and f"{engine.image}:latest" in row["Tags"]


def test_image_found_by_id_prefix(engine: Engine) -> None:
    """An image is found by full id, digest form, and unique prefix."""
    image = json.loads(engine.docker("image", "inspect", engine.image).out)[0]["Id"]
    for form in (image, image[7:], image[7:19], image[7:13]):
        assert engine.docker("image", "inspect", "-f", "{{.Id}}", form).out.strip() == image


def test_image_prune(engine: Engine) -> None:
    """prune takes dangling images only, unless -a; filters choose."""
    reference = engine.unique("image")
    engine.import_image(reference, small_tar(a="1"), [f"LABEL prune={reference}"])
    lost = engine.docker("images", "-q", "--no-trunc", reference).out.strip()
    engine.import_image(reference, small_tar(a="2"), [f"LABEL prune={reference}"])
    said = engine.docker("image", "prune", "-f", "--filter", f"label=prune={reference}").out
    assert f"deleted: {lost}" in said.lower() and "Total reclaimed space:" in said
    said = engine.docker("image", "prune", "-af", "--filter", f"label=prune={reference}").out
    assert f"untagged: {reference}:latest" in said
    assert engine.docker("image", "inspect", reference, check=False).code == 1


def test_content_at_an_image_volume(engine: Engine) -> None:
    """What the image has at its VOLUME is there in a container."""
    reference = engine.hostile_image({"data/file": b"from image"}, ["VOLUME /data", 'CMD ["sh"]'])
    assert engine.docker("run", "--rm", reference, "cat", "/data/file").out == "from image"
