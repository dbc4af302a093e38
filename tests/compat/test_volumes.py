"""Volumes through the API and the official client, on both engines."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engine import Engine

ANONYMOUS = 64
OLD_FIELD = r"invalid mount config for type \2: field \1 must not be specified"  # Docker 20.10's words


@pytest.fixture
def engine(any_engine: Engine) -> Iterator[Engine]:
    """Both engines; the test's containers and all volumes are removed after it."""
    before = {volume["Name"] for volume in listed(any_engine)}
    yield any_engine
    any_engine.clean()
    for volume in listed(any_engine):
        if volume["Name"] not in before:
            any_engine.api.request("DELETE", f"/volumes/{volume['Name']}", check=False)


def listed(engine: Engine, **filters: list[str]) -> list[dict[str, Any]]:
    """GET /volumes."""
    found: list[dict[str, Any]] = engine.api.request("GET", "/volumes", query={"filters": filters}).json["Volumes"]
    return found


def names(engine: Engine, **filters: list[str]) -> set[str]:
    """The names of the volumes that pass the filters."""
    return {volume["Name"] for volume in listed(engine, **filters)}


def mounts(engine: Engine, container: str) -> dict[str, dict[str, Any]]:
    """A container's Mounts by destination."""
    return {mount["Destination"]: mount for mount in engine.inspect(container)["Mounts"]}


def create(engine: Engine, **body: Any) -> Any:
    """POST /volumes/create."""
    answer = engine.api.request("POST", "/volumes/create", body)
    assert answer.status == 201, answer
    return answer.json


def with_files(engine: Engine) -> str:
    """An image with files, an empty directory of its own owner, and a volume at /data."""
    home, empty = tarfile.TarInfo("data"), tarfile.TarInfo("empty")
    home.type = empty.type = tarfile.DIRTYPE
    home.mode, empty.mode = 0o755, 0o1777
    empty.uid = empty.gid = 1000
    extra: Any = {"data": home, "data/file": b"image", "data/link": "file", "empty": empty}
    made: str = engine.hostile_image(extra, ["VOLUME /data", 'CMD ["sh"]'])
    return made


def test_create_and_inspect(engine: Engine) -> None:
    """A volume has a name, labels, a mount point on the host; creating it again changes nothing."""
    name = engine.unique("v")
    made = create(engine, Name=name, Labels={"a": "b"})
    assert (made["Name"], made["Driver"], made["Scope"], made["Labels"]) == (name, "local", "local", {"a": "b"})
    assert made["Options"] is None and made["Mountpoint"].endswith(f"/volumes/{name}/_data")
    assert Path(made["Mountpoint"]).is_dir()
    assert create(engine, Name=name, Labels={"c": "d"}) == made
    assert engine.api.request("GET", f"/volumes/{name}").json == made
    assert json.loads(engine.docker("volume", "inspect", name).out) == [made]


def test_what_was_not_given_is_null(engine: Engine) -> None:
    """Labels and Options are shown as the client sent them: null, or empty."""
    made = create(engine, Name=engine.unique("v"))
    assert made["Labels"] is None and made["Options"] is None
    made = create(engine, Name=engine.unique("v"), Labels={}, DriverOpts={})
    assert made["Labels"] == {} and made["Options"] == {}


def test_create_without_a_name(engine: Engine) -> None:
    """The engine chooses 64 hexadecimal digits."""
    made = create(engine)
    assert len(made["Name"]) == ANONYMOUS and int(made["Name"], 16) >= 0


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (
            {"Name": "../x"},
            400,
            'create ../x: "../x" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]"'
            " are allowed. If you intended to pass a host directory, use absolute path",
        ),
        (
            {"Name": "a"},
            400,
            "create a: volume name is too short, names should be at least two alphanumeric characters",
        ),
        ({"Name": "v3", "DriverOpts": {"foo": "1"}}, 400, 'create v3: invalid option: "foo"'),
        ({"Name": "v3", "DriverOpts": {"type": "tmpfs"}}, 400, 'create v3: missing required option: "device"'),
        ({"Name": "v3", "DriverOpts": {"o": "bind"}}, 400, 'create v3: missing required option: "device"'),
        ({"Name": "v3", "DriverOpts": {"device": "/x"}}, 400, 'create v3: missing required option: "type"'),
        ({"Name": "v3", "DriverOpts": {"size": "1m"}}, 400, "create v3: quota size requested but no quota support"),
    ],
)
def test_wrong_creations(engine: Engine, body: dict[str, Any], status: int, text: str) -> None:
    """Docker's status and text; nothing is made."""
    before = names(engine)
    answer = engine.api.request("POST", "/volumes/create", body, check=False)
    assert answer.status == status
    assert answer.message == text or answer.message.startswith(f"{text}: ")  # Tare says what there is no quota on
    assert names(engine) == before


def test_driver_that_is_not_there(tare: Engine) -> None:
    """Docker's text, without its half minute of looking for the plugin."""
    answer = tare.api.request("POST", "/volumes/create", {"Name": "v9", "Driver": "foo"}, check=False)
    assert answer.status == 404
    assert answer.message == 'create v9: error looking up volume plugin foo: plugin "foo" not found'
    answer = tare.create({"HostConfig": {"VolumeDriver": "foo", "Binds": ["v10:/x"]}})
    assert answer.message == 'create v10: error looking up volume plugin foo: plugin "foo" not found'


def test_unknown_volume(engine: Engine) -> None:
    """404 for inspect and remove; removal by force is content."""
    for method in ("GET", "DELETE"):
        answer = engine.api.request(method, "/volumes/nope", check=False)
        assert (answer.status, answer.message) == (404, "get nope: no such volume")
    assert engine.api.request("DELETE", "/volumes/nope", query={"force": "1"}).status == 204


def test_update_is_for_cluster_volumes(tare: Engine) -> None:
    """503, as Docker outside a swarm."""
    assert tare.api.request("PUT", "/volumes/any", {}, query={"version": "1"}, check=False).status == 503


def test_list_filters(engine: Engine) -> None:
    """name (a pattern), label, driver, dangling; an unknown one is refused."""
    one, two = engine.unique("one"), engine.unique("two")
    create(engine, Name=one, Labels={"kind": "x"})
    create(engine, Name=two)
    engine.docker("create", "-v", f"{two}:/x", engine.image, "true")
    assert names(engine, name=[one[:-1]]) == {one} and names(engine, name=["nomatch"]) == set()
    assert names(engine, label=["kind"]) == names(engine, label=["kind=x"]) == {one}
    assert names(engine, label=["kind=y"]) == set() and {one, two} <= names(engine, driver=["local"])
    assert one in names(engine, dangling=["true"]) and two not in names(engine, dangling=["true"])
    assert two in names(engine, dangling=["false"]) and one not in names(engine, dangling=["false"])
    for wrong in ({"foo": ["x"]}, {"dangling": ["x"]}):
        answer = engine.api.request("GET", "/volumes", query={"filters": wrong}, check=False)
        assert answer.status == 400 and answer.message.lower().startswith("invalid filter")


def test_a_named_volume_outlives_its_containers(engine: Engine) -> None:
    """What one container writes, the next one reads; the host finds it, too."""
    name = engine.unique("v")
    engine.run("-v", f"{name}:/store", "@", "sh", "-c", "echo kept > /store/file")
    assert engine.run("-v", f"{name}:/store:ro", "@", "cat", "/store/file").out == "kept\n"
    mountpoint = engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", name).out.strip()
    assert (Path(mountpoint) / "file").read_text() == "kept\n"
    refused = engine.run("-v", f"{name}:/store:ro", "@", "touch", "/store/new", check=False)
    assert "Read-only file system" in refused.err and not (Path(mountpoint) / "new").exists()


def test_inspect_shows_mounts(engine: Engine) -> None:
    """Type, name, source, driver, mode and access of each kind of volume."""
    one, two = engine.unique("v"), engine.unique("v")
    flags = [
        "-v",
        f"{one}:/one:ro,nocopy",
        "-v",
        "/anon",
        "--mount",
        f"type=volume,src={two},dst=/two,volume-label=a=b",
    ]
    container = engine.docker("create", *flags, engine.image, "true").out.strip()
    found = mounts(engine, container)
    assert set(found) == {"/one", "/anon", "/two"}
    assert {mount["Type"] for mount in found.values()} == {"volume"}
    assert {mount["Driver"] for mount in found.values()} == {"local"}
    assert (found["/one"]["Name"], found["/one"]["Mode"], found["/one"]["RW"]) == (one, "ro,nocopy", False)
    assert (found["/two"]["Name"], found["/two"]["Mode"], found["/two"]["RW"]) == (two, "z", True)
    assert len(found["/anon"]["Name"]) == ANONYMOUS and found["/anon"]["Mode"] == ""
    assert all(mount["Source"].endswith(f"/{mount['Name']}/_data") for mount in found.values())
    assert all(mount["Propagation"] == "" for mount in found.values())
    assert engine.inspect(container)["Config"]["Volumes"] == {"/anon": {}}
    assert engine.api.request("GET", f"/volumes/{two}").json["Labels"] == {"a": "b"}


def test_an_image_volume_is_filled_and_removed(engine: Engine) -> None:
    """VOLUME: an anonymous volume with the image's files, which --rm takes along."""
    image, before = with_files(engine), names(engine)
    shown = engine.docker("run", "--rm", image, "sh", "-c", "cat /data/link; grep -c ' /data ' /proc/mounts").out
    assert shown == "image1\n" and names(engine) == before
    container = engine.docker("create", image, "true").out.strip()
    assert engine.inspect(container)["Config"]["Volumes"] == {"/data": {}}
    anonymous = mounts(engine, container)["/data"]["Name"]
    engine.docker("rm", container)
    assert anonymous in names(engine), "without -v it stays"


def test_copy_up(engine: Engine) -> None:
    """An empty volume gets the image's files and the directory's owner and mode; one with files, or nocopy, doesn't."""
    image, name, other = with_files(engine), engine.unique("v"), engine.unique("v")

    def look(volume: str, place: str = "/data") -> str:
        said: str = engine.docker("run", "--rm", "-v", f"{volume}:{place}", image, "sh", "-c", f"ls {place}").out
        return said

    assert look(name) == "file\nlink\n"
    engine.docker("run", "--rm", "-v", f"{name}:/data", image, "sh", "-c", "rm /data/file; echo mine > /data/link2")
    assert look(name) == "link\nlink2\n"
    assert look(f"{other}", "/empty") == ""
    script = "stat -c %u:%g:%a /empty"
    assert engine.docker("run", "--rm", "-v", f"{other}:/empty", image, "sh", "-c", script).out == "1000:1000:1777\n"
    third = engine.unique("v")
    shown = engine.docker("run", "--rm", "-v", f"{third}:/data:nocopy", image, "ls", "/data").out
    assert shown == "" and look(third) == "file\nlink\n", "the next one without nocopy finds it still empty"


def test_a_volume_at_etc_does_not_hide_hosts(engine: Engine) -> None:
    """A volume may lie above the files that the engine mounts."""
    name = engine.unique("v")
    shown = engine.run("-v", f"{name}:/etc", "@", "sh", "-c", "cat /etc/hosts /etc/hostname /etc/passwd").out
    assert "localhost" in shown and "root:" in shown


def test_rm_v_takes_anonymous_volumes(engine: Engine) -> None:
    """rm -v: anonymous ones that nobody else has; named ones stay."""
    name = engine.unique("v")
    first = engine.docker("create", "-v", "/anon", "-v", f"{name}:/named", engine.image, "true").out.strip()
    anonymous = mounts(engine, first)["/anon"]["Name"]
    second = engine.docker("create", "--volumes-from", first, engine.image, "true").out.strip()
    engine.docker("rm", "-v", first)
    assert {anonymous, name} <= names(engine), "the second one has it"
    engine.docker("rm", "-v", second)
    assert anonymous not in names(engine) and name in names(engine)


def test_volumes_from(engine: Engine) -> None:
    """All mounts of another container, running or not, read-only if asked; its own win."""
    name, place = engine.unique("v"), engine.unique("v")
    owner = engine.docker("create", "-v", f"{name}:/a", "-v", "/b", "-v", f"{place}:/c:ro", engine.image).out.strip()
    user = engine.docker("create", "--volumes-from", f"{owner}:ro", "-v", "/b", engine.image, "true").out.strip()
    theirs, own = mounts(engine, owner), mounts(engine, user)
    assert set(own) == {"/a", "/b", "/c"}
    assert own["/a"]["Name"] == name and not own["/a"]["RW"] and own["/a"]["Mode"] == ""
    third = engine.docker("create", "--volumes-from", owner, engine.image, "true").out.strip()
    again = mounts(engine, third)
    assert again["/a"]["RW"] and not again["/c"]["RW"] and again["/b"]["Name"] == theirs["/b"]["Name"]


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ({"VolumesFrom": ["nope"]}, "No such container: nope"),
        ({"VolumesFrom": [""]}, "volumes-from specification cannot be an empty string"),
        ({"Binds": ["vv1:/x", "vv2:/x"]}, "Duplicate mount point: /x"),
        ({"Binds": ["vv1:/x"], "Tmpfs": {"/x": ""}}, "Duplicate mount point: /x"),
        (
            {"Mounts": [{"Type": "volume", "Source": "vv1", "Target": "x"}]},
            "invalid mount config for type \"volume\": invalid mount path: 'x' mount path must be absolute",
        ),
        (
            {"Mounts": [{"Type": "volume", "Source": "vv1"}]},
            'invalid mount config for type "volume": field Target must not be empty',
        ),
        (
            {"Mounts": [{"Type": "volume", "Target": "/x", "ReadOnly": True}]},
            'invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes',
        ),
        (
            {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/x", "BindOptions": {"Propagation": "shared"}}]},
            'BindOptions must not be specified on mount type "volume"',
        ),
        (
            {"Mounts": [{"Type": "bind", "Source": "/tmp", "Target": "/x", "VolumeOptions": {"NoCopy": True}}]},
            'VolumeOptions must not be specified on mount type "bind"',
        ),
    ],
)
def test_wrong_mounts(engine: Engine, host: dict[str, Any], text: str) -> None:
    """Docker's text, 400, and no container and no anonymous volume is left."""
    before = {name for name in names(engine) if len(name) == ANONYMOUS}
    answer = engine.create({"Cmd": ["true"], "HostConfig": host})
    if engine.release == 20:
        text = re.sub(r'(\w+Options) must not be specified on mount type ("\w+")', OLD_FIELD, text)
    assert (answer.status, answer.message) == (400, text)
    assert {name for name in names(engine) if len(name) == ANONYMOUS} == before


@pytest.mark.parametrize(
    ("bind", "text"),
    [
        ("vv1:x", "invalid mount config for type \"volume\": invalid mount path: 'x' mount path must be absolute"),
        ("vv1:/", "invalid mount config for type \"volume\": invalid specification: destination can't be '/'"),
        ("vv1:/x:rshared", 'invalid mount config for type "volume": field BindOptions must not be specified'),
        ("/tmp:/x:nocopy", 'invalid mount config for type "bind": field VolumeOptions must not be specified'),
        ("vv1", "invalid mount config for type \"volume\": invalid mount path: 'vv1' mount path must be absolute"),
    ],
)
def test_wrong_binds(engine: Engine, bind: str, text: str) -> None:
    """Docker's text (its status was 500 until 23)."""
    answer = engine.create({"Cmd": ["true"], "HostConfig": {"Binds": [bind]}})
    assert answer.message == f"invalid volume specification: '{bind}': {text}"
    assert answer.status == 400 or not engine.is_tare


def test_propagation_of_what_shares_nothing(engine: Engine, tmp_path: Path) -> None:
    """A bind that is to share later mounts is refused if its source's mount doesn't, instead of never seeing any."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        for kind, what in (("rshared", "a shared"), ("slave", "a shared or slave")):
            subprocess.run(["mount", "--make-private", tmp_path], check=True)
            run = ["run", "--rm", "--net", "none", "-v", f"{tmp_path}:/x:{kind}", engine.image, "true"]
            refused = engine.docker(*run, check=False)
            assert refused.code == 125
            assert f"path {tmp_path} is mounted on {tmp_path} but it is not {what} mount" in refused.err
            subprocess.run(["mount", "--make-shared", tmp_path], check=True)
            engine.docker(*run)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_file_over_a_directory_and_the_other_way_round(engine: Engine, tmp_path: Path) -> None:
    """The refusal says what is wrong."""
    (tmp_path / "file").touch()
    for bind in (f"{tmp_path}/file:/etc", f"{tmp_path}:/etc/passwd"):
        refused = engine.docker("run", "--rm", "--net", "none", "-v", bind, engine.image, "true", check=False)
        assert refused.code in (125, 127)
        assert "not a directory: " in refused.err
        assert "Are you trying to mount a directory onto a file (or vice-versa)?" in refused.err


def test_a_volume_over_a_file(engine: Engine) -> None:
    """VOLUME at what is a file in the image is refused."""
    answer = engine.create({"Cmd": ["true"], "Volumes": {"/etc/passwd": {}}})
    assert answer.status in (400, 500)
    assert answer.message.startswith("cannot mount volume over existing file, file exists ")


def test_a_volume_in_use_stays(engine: Engine) -> None:
    """409 with the containers' ids, by force, too; and while none runs."""
    name = engine.unique("v")
    container = engine.docker("create", "-v", f"{name}:/x", engine.image, "true").out.strip()
    for query in ({}, {"force": "1"}):
        answer = engine.api.request("DELETE", f"/volumes/{name}", query=query, check=False)
        assert (answer.status, answer.message) == (409, f"remove {name}: volume is in use - [{container}]")
    engine.docker("rm", container)
    assert engine.docker("volume", "rm", name).out == f"{name}\n" and name not in names(engine)


def test_prune(engine: Engine) -> None:
    """By label; those that containers have stay; the bytes are counted."""
    name, kept, used = engine.unique("v"), engine.unique("v"), engine.unique("v")
    label = engine.unique("label")
    for volume in (name, used):
        create(engine, Name=volume, Labels={label: "yes"})
    create(engine, Name=kept, Labels={label: "no"})
    engine.docker("create", "-v", f"{used}:/x", engine.image, "true")
    engine.run("-v", f"{name}:/x", "@", "sh", "-c", "head -c 5000 /dev/zero > /x/file")
    filters: dict[str, list[str]] = {"label": [f"{label}=yes"], **({"all": ["true"]} if engine.release > 20 else {})}
    answer = engine.api.request("POST", "/volumes/prune", query={"filters": filters, "trash": "0"})
    assert answer.json == {"VolumesDeleted": [name], "SpaceReclaimed": 5000}
    assert {kept, used} <= names(engine)
    answer = engine.api.request("POST", "/volumes/prune", query={"filters": {"name": ["x"]}}, check=False)
    assert answer.status == 400 and answer.message.lower() == "invalid filter 'name'"


def test_prune_takes_only_anonymous_volumes(tare: Engine) -> None:
    """Since 1.42 named volumes stay unless all are asked for; older clients get the old meaning."""
    name, anonymous = tare.unique("v"), create(tare)["Name"]
    create(tare, Name=name)
    removed = tare.api.request("POST", "/volumes/prune").json["VolumesDeleted"]
    assert anonymous in removed and name not in removed
    assert name in tare.api.request("POST", "/v1.41/volumes/prune").json["VolumesDeleted"]


def test_events(engine: Engine) -> None:
    """create, mount, unmount, destroy, with driver, container, destination and access."""
    name, since = engine.unique("v"), f"{time.time():.6f}"
    container = engine.docker("create", "-v", f"{name}:/x:ro", engine.image, "true").out.strip()
    engine.docker("start", container)
    engine.exit_code(container)
    engine.docker("rm", container)
    engine.docker("volume", "rm", name)
    flags = ["--since", since, "--until", f"{time.time() + 0.001:.6f}", "--filter", f"volume={name}"]
    said = engine.docker("events", "--format", "{{json .}}", *flags).out
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["Action"] for event in events] == ["create", "mount", "unmount", "destroy"]
    assert events[0]["Actor"] == {"ID": name, "Attributes": {"driver": "local"}}
    assert events[1]["Actor"]["Attributes"] == {
        "container": container, "destination": "/x", "driver": "local", "propagation": "", "read/write": "false",
    }  # fmt: skip
    assert events[2]["Actor"]["Attributes"] == {"container": container, "driver": "local"}


def test_containers_by_volume(engine: Engine) -> None:
    """ps --filter volume= takes a name or a destination."""
    name = engine.unique("v")
    container = engine.docker("create", "-v", f"{name}:/somewhere", engine.image, "true").out.strip()
    for wanted in (name, "/somewhere"):
        assert engine.docker("ps", "-aq", "--no-trunc", "--filter", f"volume={wanted}").out.split() == [container]
    assert engine.docker("ps", "-a", "--filter", f"volume={name}", "--format", "{{.Mounts}}").out.strip() == name


def test_a_bound_directory_as_volume(engine: Engine, tmp_path: Path) -> None:
    """`type=none,o=bind`: the host's directory, filled from the image when it is empty; Options are shown."""
    options = {"type": "none", "o": "bind", "device": str(tmp_path)}
    name = engine.unique("v")
    assert create(engine, Name=name, DriverOpts=options)["Options"] == options
    image = with_files(engine)
    engine.docker("run", "--rm", "-v", f"{name}:/data", image, "sh", "-c", "cat /data/file > /data/copy")
    assert (tmp_path / "file").read_text() == "image" and (tmp_path / "copy").read_text() == "image"
    engine.docker("volume", "rm", name)
    assert (tmp_path / "copy").exists(), "the directory itself isn't the volume's"


def test_a_tmpfs_volume_is_shared_and_forgotten(engine: Engine) -> None:
    """Two containers see the same files with the options given; after the last one it is empty and unmounted."""
    name = engine.unique("v")
    made = create(engine, Name=name, DriverOpts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000"})
    first, second = engine.start(flags=["-v", f"{name}:/t"]), engine.start(flags=["-v", f"{name}:/t"])
    engine.docker("exec", first, "sh", "-c", "echo shared > /t/file")
    assert engine.docker("exec", second, "cat", "/t/file").out == "shared\n"
    shown = engine.docker("exec", second, "sh", "-c", "grep ' /t ' /proc/mounts; stat -c %u /t").out
    assert shown.startswith("tmpfs /t tmpfs rw") and "size=1024k" in shown and shown.endswith("1000\n")
    engine.docker("rm", "-f", first)
    assert engine.docker("exec", second, "cat", "/t/file").out == "shared\n"
    engine.docker("restart", "-t", "0", second)
    assert engine.docker("exec", second, "ls", "/t").out == ""
    engine.docker("rm", "-f", second)
    assert made["Mountpoint"] not in Path("/proc/self/mounts").read_text(errors="surrogateescape")


def test_options_that_the_kernel_refuses(engine: Engine, tmp_path: Path) -> None:
    """The container doesn't start; the error names the volume; the volume can be removed."""
    name = engine.unique("v")
    create(engine, Name=name, DriverOpts={"type": "none", "o": "bind", "device": str(tmp_path / "nothing")})
    result = engine.run("-v", f"{name}:/x", "@", "true", check=False)
    assert result.code in (125, 127) and "no such file or directory" in result.err
    engine.clean()
    engine.docker("volume", "rm", name)


def test_subpath(tare: Engine) -> None:
    """volume-subpath shows a directory or file of the volume, links followed inside it only."""
    name = tare.unique("v")
    script = "mkdir -p /v/a/b; echo deep > /v/a/b/f; ln -s /a/b /v/in; ln -s /../../../../etc /v/out"
    tare.run("-v", f"{name}:/v", "@", "sh", "-c", script)

    def show(subpath: str, *command: str, check: bool = True) -> Any:
        mount = f"type=volume,src={name},dst=/s,volume-subpath={subpath}"
        return tare.run("--mount", mount, "@", *command, check=check)

    assert show("a/b", "cat", "/s/f").out == show("in", "cat", "/s/f").out == show("a/b/f", "cat", "/s").out == "deep\n"
    assert "no such file" in show("out", "ls", "/s", check=False).err
    assert "subpath must be a relative path" in show("../x", "ls", "/s", check=False).err
    tare.docker("volume", "rm", name)


def test_nested_volumes(engine: Engine) -> None:
    """Parents are mounted before children, in whatever order they are given; what is inside stays seen."""
    outer, inner = engine.unique("v"), engine.unique("v")
    flags = ["-v", f"{inner}:/a/b", "-v", f"{outer}:/a", "--tmpfs", "/a/b/c", "--read-only"]
    script = "echo o > /a/f; echo i > /a/b/f; echo t > /a/b/c/f; cat /a/f /a/b/f /a/b/c/f"
    assert engine.run(*flags, "@", "sh", "-c", script).out == "o\ni\nt\n"
    assert engine.run("-v", f"{inner}:/x", "@", "cat", "/x/f").out == "i\n"


def test_back_from_the_trash(tare: Engine) -> None:
    """A container comes back with its anonymous volume; where that is gone for good, with an empty one."""
    container = tare.start("-v", "/anon", "--stop-timeout", "0")
    name = mounts(tare, container)["/anon"]["Name"]
    tare.docker("exec", container, "touch", "/anon/file")
    tare.docker("rm", "-f", "-v", container)
    assert name not in names(tare)
    tare.api.request("POST", f"/tare/trash/{container}/restore", check=False)
    tare.docker("start", container)
    assert tare.docker("exec", container, "ls", "/anon").out == "file\n" and name in names(tare)
    tare.docker("rm", "-f", "-v", container)
    tare.tare_cli("trash", "empty", "-f", name)
    tare.api.request("POST", f"/tare/trash/{container}/restore", check=False)
    tare.docker("start", container)
    assert tare.docker("exec", container, "ls", "/anon").out == "" and name in names(tare)
    tare.docker("rm", "-f", "-v", container)
    assert name not in names(tare)
    tare.api.request("DELETE", f"/tare/trash/{container}", check=False)
