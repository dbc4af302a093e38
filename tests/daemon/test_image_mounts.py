"""`--mount type=image`: another image's files in a container, read-only, for as long as it is there."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from support.crashes import asker
from support.engine import Engine
from support.tared import Tared


def tar(**files: str) -> bytes:
    """A layer with directories, files and a link that leads out of it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
        out = tarfile.TarInfo("data/out")
        out.type, out.linkname = tarfile.SYMTYPE, "/../../../../etc"
        archive.addfile(out)
    return data.getvalue()


def import_data(engine: Engine, name: str = "assets") -> None:
    """An image of two layers: the second removes a file and changes another."""
    engine.import_image(name, tar(data__one="one\n", data__two="two\n", gone="x\n", etc__own="own\n"))
    work = engine.unique()
    engine.docker("create", "--name", work, "--network", "none", name, "x")
    engine.docker("cp", "-", f"{work}:/data", input=tar(two="new\n"))
    engine.docker("commit", work, name)
    engine.docker("rm", work)


@pytest.fixture
def assets(tare: Engine) -> Iterator[str]:
    import_data(tare)
    yield "assets"
    tare.clean()
    tare.docker("rmi", "-f", "assets", check=False)


def run(engine: Engine, mount: str, command: str) -> Any:
    """By our own client: Docker's knows these since 28."""
    options = ("--rm", "--network", "none", "--mount", mount)
    return engine.tare_cli("run", *options, engine.image, "sh", "-c", command)


def started(engine: Engine, mount: str) -> str:
    """A container that has it and runs."""
    name = engine.unique()
    options = ("-d", "--name", name, "--network", "none", "--mount", mount)
    engine.tare_cli("run", *options, engine.image, "sleep", "1000")
    return name


def test_its_files_are_there_and_read_only(tare: Engine, assets: str) -> None:
    """All layers merged, whiteouts and the engine's own mount points not shown; nothing can be written."""
    found = run(
        tare, f"type=image,src={assets},dst=/x", "cat /x/data/one /x/data/two; ls /x; touch /x/new 2>&1 || true"
    )
    assert found.out.splitlines()[:-1] == ["one", "new", "data", "etc", "gone"]
    assert "Read-only file system" in found.out.splitlines()[-1]
    assert (
        run(tare, f"type=image,src={assets},dst=/x,readonly=false", "touch /x/a 2>/dev/null || echo no").out == "no\n"
    )


def test_a_part_of_it(tare: Engine, assets: str) -> None:
    """A directory, a file; a link in the image leads within the image."""
    mount = f"type=image,src={assets},dst=/x,image-subpath="
    assert run(tare, mount + "data", "cat /x/two").out == "new\n"
    assert run(tare, mount + "data/one", "cat /x").out == "one\n"
    assert run(tare, mount + "data/out", "ls /x").out == "own\n"


def test_inspect_says_which(tare: Engine, assets: str) -> None:
    """As Docker's Mounts, with the image's id as its source."""
    name = started(tare, f"type=image,src={assets},dst=/x,image-subpath=data")
    image = tare.docker("inspect", "-f", "{{.Id}}", assets).out.strip()
    assert tare.inspect(name)["Mounts"] == [
        {
            "Type": "image",
            "Name": assets,
            "Source": image,
            "Destination": "/x",
            "Mode": "",
            "RW": False,
            "Propagation": "",
        }
    ]
    asked = {"Type": "image", "Source": assets, "Target": "/x", "ImageOptions": {"Subpath": "data"}}
    assert tare.inspect(name)["HostConfig"]["Mounts"] == [asked]


def test_the_image_is_held(tare: Engine, assets: str) -> None:
    """Its removal is refused while a container has it; removed by force, the files stay for it."""
    name = started(tare, f"type=image,src={assets},dst=/x")
    refused = tare.docker("rmi", assets, check=False)
    assert refused.code and "is using" in refused.err
    assert tare.docker("image", "prune", "-af").code == 0
    tare.docker("stop", "-t", "0", name)
    tare.docker("rmi", "-f", assets)
    tare.docker("start", name)
    assert tare.docker("exec", name, "cat", "/x/data/one").out == "one\n"
    assert tare.docker("cp", f"{name}:/x/data/two", "-").code == 0
    tare.docker("rm", "-f", name)


def test_with_user_namespaces(tare: Engine, assets: str) -> None:
    """Its files belong to root as the container sees it."""
    mount = ("--mount", f"type=image,src={assets},dst=/x")
    command = (
        "--rm",
        "--network",
        "none",
        "--userns",
        "private",
        *mount,
        tare.image,
        "stat",
        "-c",
        "%u",
        "/x/data/two",
    )
    found = tare.tare_cli("run", *command, check=False)
    if "user namespaces on this kernel" in found.err:
        pytest.skip("an ordinary user can't make namespaces here: no mapped layers")
    assert found.out == "0\n"


def test_others_have_it_too(tare: Engine, assets: str) -> None:
    """--volumes-from, and a copy out of a container that never ran."""
    first = started(tare, f"type=image,src={assets},dst=/x")
    found = tare.run("--network", "none", "--volumes-from", first, tare.image, "cat", "/x/data/two")
    assert found.out == "new\n"
    created = tare.create(
        {
            "Image": tare.image,
            "HostConfig": {"Mounts": [{"Type": "image", "Source": assets, "Target": "/x"}]},
        }
    ).json["Id"]
    assert b"new" in tare.api.request("GET", f"/containers/{created}/archive", query={"path": "/x/data/two"}).body


@pytest.mark.parametrize(
    ("mount", "status", "text"),
    [
        ({"Source": "nosuch"}, 404, "No such image: nosuch:latest"),
        ({"Source": ""}, 400, 'invalid mount config for type "image": field Source must not be empty'),
        ({"ImageOptions": {"Subpath": "../x"}}, 400, "subpath must be a relative path within the image"),
        ({"ImageOptions": {"Subpath": "/x"}}, 400, "subpath must be a relative path within the image"),
        ({"ImageOptions": {"Subpath": "no/such"}}, 400, "has nothing at subpath no/such"),
        ({"BindOptions": {"Propagation": "shared"}}, 400, "BindOptions must not be specified"),
        ({"Type": "volume", "ImageOptions": {"Subpath": "x"}}, 400, "ImageOptions must not be specified"),
    ],
)
def test_refused(tared: Tared, tare: Engine, assets: str, mount: dict[str, Any], status: int, text: str) -> None:
    """With Docker's texts; nothing is left of the container."""
    before = sorted((tared.data_root / "snapshots").iterdir())
    asked = {"Type": "image", "Source": assets, "Target": "/x", **mount}
    answer = tare.create({"Image": tare.image, "HostConfig": {"Mounts": [asked]}})
    assert answer.status == status and text in answer.message
    assert sorted((tared.data_root / "snapshots").iterdir()) == before


def test_into_a_running_container_and_out_of_it(tare: Engine, assets: str) -> None:
    """`update --mount-add`, `--mount-rm`; what is taken away is held no longer."""
    name = tare.start("--network", "none")
    tare.tare_cli("update", "--mount-add", f"type=image,src={assets},dst=/x,image-subpath=data", name)
    assert tare.docker("exec", name, "cat", "/x/one").out == "one\n"
    assert tare.inspect(name)["Mounts"][0]["Type"] == "image"
    tare.docker("restart", "-t", "0", name)
    assert tare.docker("exec", name, "cat", "/x/one").out == "one\n"
    tare.tare_cli("update", "--mount-rm", "/x", name)
    assert tare.docker("exec", name, "ls", "/x").out == "" and tare.inspect(name)["Mounts"] == []
    assert tare.docker("rmi", assets).code == 0


STEPS = ("engine.images.held", "engine.mounts.recorded", "engine.mounts.attached", "engine.mounts.detached")


def test_over_restarts_of_the_engine(daemon: Tared) -> None:
    """kill -9 at each step of create, add and remove: word and kernel agree, and nothing is left in the end."""
    daemon.make_armable()
    engine = daemon.start().engine
    engine.prepare()
    import_data(engine)
    ask = asker(daemon)
    ask("DELETE", "/tare/trash")
    body = {
        "Image": engine.image,
        "Cmd": ["sleep", "1000"],
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [{"Type": "image", "Source": "assets", "Target": "/x"}],
        },
    }
    for step in STEPS:
        daemon.arm(f"{step}:kill")
        with contextlib.suppress(OSError, EOFError):
            ask("POST", "/containers/create", body, name="first")
            ask("POST", "/containers/first/start")
            add = {"Type": "image", "Source": "assets", "Target": "/y", "ImageOptions": {"Subpath": "data"}}
            ask("POST", "/containers/first/update", {"MountAdd": [add]})
            ask("POST", "/containers/first/update", {"MountRemove": ["/y"]})
        daemon.wait_dead()
        daemon.arm("")
        daemon.start()
        found = ask("GET", "/containers/first/json")
        snapshots = [path.name for path in (daemon.data_root / "snapshots").glob("[0-9a-f]*")]
        if found.status == 404:
            assert snapshots == []
            continue
        places = {mount["Destination"] for mount in found.json["Mounts"]}
        assert len(snapshots) == 1 + len(places)
        for place in places:
            assert engine.docker("exec", "first", "ls", place).out
        assert ("/y/one" in engine.docker("exec", "first", "find", "/y", check=False).out) == ("/y" in places)
        fsck = ask("GET", "/tare/fsck").body
        assert b'"Finding"' not in fsck, fsck
        ask("DELETE", "/containers/first", force=1, trash=0)
        assert not list((daemon.data_root / "snapshots").glob("[0-9a-f]*"))


def test_it_waits_in_the_trash_and_comes_back(tared: Tared, tare: Engine, assets: str) -> None:
    """With the container; emptied, nothing is held."""
    ask = asker(tared)
    name = started(tare, f"type=image,src={assets},dst=/x")
    container = tare.inspect(name)["Id"]
    tare.docker("rm", "-f", name)
    tare.docker("rmi", "-f", assets)
    assert ask("POST", f"/tare/trash/{container}/restore").status < 300
    tare.docker("start", name)
    assert tare.docker("exec", name, "cat", "/x/data/two").out == "new\n"
    ask("DELETE", f"/containers/{name}", force=1, trash=0)
    assert not list((tared.data_root / "snapshots").glob(f"{container}*"))


def test_it_does_not_travel(tared: Tared, tare: Engine, assets: str) -> None:
    """A container with one can't be moved as it is, and is told why; forced, it goes without the image's files."""
    body = {"Image": tare.image, "HostConfig": {"Mounts": [{"Type": "image", "Source": assets, "Target": "/x"}]}}
    name = tare.create(body).json["Id"]
    found = asker(tared)("GET", f"/containers/{name}/departure")
    assert {"Kind": "host", "About": f"/x shows image {assets}"} in found.json["Obstacles"], found
