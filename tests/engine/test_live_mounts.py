"""`tare update --mount-add --mount-rm`: the kernel, inspect and the next start agree, running or not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.processes import is_alive


@pytest.fixture
def box(tare: Engine) -> str:
    """A running container."""
    return tare.start("--net", "none")


@pytest.fixture
def volume(tare: Engine) -> Iterator[str]:
    """A name for a volume, which is removed afterwards."""
    name = tare.unique("v")
    yield name
    tare.clean()
    tare.docker("volume", "rm", "-f", name)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of the host with a file."""
    made = tmp_path / "source"
    made.mkdir()
    (made / "file").write_text("here\n")
    return made


def add(tare: Engine, container: str, mount: str, check: bool = True) -> Any:
    return tare.tare_cli("update", "--mount-add", mount, container, check=check)


def take(tare: Engine, container: str, place: str, check: bool = True) -> Any:
    return tare.tare_cli("update", "--mount-rm", place, container, check=check)


def sh(tare: Engine, container: str, script: str) -> str:
    return str(tare.docker("exec", container, "sh", "-c", script).out)


def mounted(tare: Engine, container: str) -> list[str]:
    """Places of mounts as the kernel tells them, without what every container has."""
    pid = tare.inspect(container)["State"]["Pid"]
    own = ("/proc", "/sys", "/dev", "/etc/")
    places = [
        line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").splitlines()
    ]
    return [place for place in places if place != "/" and not place.startswith(own)]


def places(tare: Engine, container: str) -> list[str]:
    """Places of mounts as inspect tells them."""
    return [mount["Destination"] for mount in tare.inspect(container)["Mounts"]]


def test_bind_of_a_running_container(tare: Engine, box: str, source: Path) -> None:
    """A directory of the host comes, is shown, stays over a restart, and goes; the process never notices."""
    pid = tare.inspect(box)["State"]["Pid"]
    add(tare, box, f"type=bind,src={source},dst=/new/place")
    assert sh(tare, box, "cat /new/place/file; echo more > /new/place/other") == "here\n"
    assert (source / "other").read_text() == "more\n"
    detail = tare.inspect(box)
    assert detail["State"]["Pid"] == pid and is_alive(pid)
    assert [(m["Type"], m["Source"], m["Destination"], m["RW"]) for m in detail["Mounts"]] == [
        ("bind", str(source), "/new/place", True)
    ]
    assert detail["HostConfig"]["Mounts"] == [{"Type": "bind", "Source": str(source), "Target": "/new/place"}]
    tare.docker("restart", "-t", "0", box)
    assert sh(tare, box, "cat /new/place/file") == "here\n"
    take(tare, box, "/new/place")
    assert mounted(tare, box) == places(tare, box) == []
    assert not tare.inspect(box)["HostConfig"].get("Mounts")
    assert sh(tare, box, "ls /new/place") == ""
    tare.docker("restart", "-t", "0", box)
    assert mounted(tare, box) == []


def test_file_read_only(tare: Engine, box: str, source: Path) -> None:
    """A single file, read-only, where the container has none."""
    add(tare, box, f"type=bind,src={source}/file,dst=/conf/file,readonly")
    assert sh(tare, box, "cat /conf/file; echo x > /conf/file || true") == "here\n"
    assert tare.inspect(box)["Mounts"][0]["RW"] is False
    take(tare, box, "/conf/file")
    assert sh(tare, box, "cat /conf/file; echo x > /conf/file") == ""


def test_volume_is_filled_and_counted(tare: Engine, box: str, volume: str) -> None:
    """An empty volume takes over what the container has at the place; while it is there, `volume rm` is refused."""
    sh(tare, box, "mkdir /stuff; echo own > /stuff/file")
    add(tare, box, f"type=volume,src={volume},dst=/stuff")
    assert sh(tare, box, "cat /stuff/file; echo new > /stuff/file") == "own\n"
    refused = tare.docker("volume", "rm", volume, check=False)
    assert refused.code == 1 and "volume is in use" in refused.err
    take(tare, box, "/stuff")
    assert sh(tare, box, "cat /stuff/file") == "own\n"
    other = tare.start("--net", "none", "-v", f"{volume}:/v:ro")
    assert sh(tare, other, "cat /v/file") == "new\n"
    tare.docker("rm", "-f", other)
    tare.docker("volume", "rm", volume)


def test_anonymous_volume_and_subpath(tare: Engine, box: str, volume: str) -> None:
    """A volume without a name goes with `rm -v`; a subpath shows just that part."""
    add(tare, box, f"type=volume,src={volume},dst=/all")
    sh(tare, box, "mkdir /all/part; echo part > /all/part/file")
    add(tare, box, f"type=volume,src={volume},dst=/some,volume-subpath=part")
    add(tare, box, "type=volume,dst=/anonymous")
    assert sh(tare, box, "cat /some/file; touch /anonymous/x") == "part\n"
    name = next(m["Name"] for m in tare.inspect(box)["Mounts"] if m["Destination"] == "/anonymous")
    assert len(name) == 64
    tare.docker("rm", "-f", "-v", box)
    left = tare.docker("volume", "ls", "-q").out.split()
    assert volume in left and name not in left


def test_tmpfs(tare: Engine, box: str) -> None:
    """A tmpfs of a size and mode; one of `run --tmpfs` can be taken away as well."""
    add(tare, box, "type=tmpfs,dst=/memory,tmpfs-size=1m,tmpfs-mode=1770")
    assert sh(tare, box, "stat -c %a /memory; df -k /memory | tail -1").split()[:3] == ["1770", "tmpfs", "1024"]
    take(tare, box, "/memory")
    other = tare.start("--net", "none", "--tmpfs", "/t", "-v", "/anon")
    for place in ("/t", "/anon"):
        take(tare, other, place)
    assert mounted(tare, other) == [] and tare.inspect(other)["HostConfig"].get("Tmpfs") in (None, {})
    tare.docker("restart", "-t", "0", other)
    assert mounted(tare, other) == []
    tare.docker("rm", "-f", "-v", other)
    tare.docker("volume", "prune", "-f")


def test_read_only_root(tare: Engine, source: Path) -> None:
    """Where the root is read-only the place is made all the same, as at a start, and the root stays read-only."""
    box = tare.start("--net", "none", "--read-only")
    add(tare, box, f"type=bind,src={source},dst=/a/b/c")
    add(tare, box, f"type=bind,src={source}/file,dst=/a/file")
    add(tare, box, "type=tmpfs,dst=/t/x")
    assert sh(
        tare, box, "cat /a/b/c/file /a/file; stat -c %a /t/x; touch /x /a/x /t/y 2>/dev/null || touch /t/x/y"
    ) == ("here\nhere\n1777\n")
    locked = tare.start("--net", "none", "-v", f"{source}:/ro:ro")
    refused = add(tare, locked, "type=tmpfs,dst=/ro/inside", check=False)
    assert refused.code == 1 and "read-only file system" in refused.err.lower()
    assert [path.name for path in source.iterdir()] == ["file"]


def test_propagation(tare: Engine, box: str, tmp_path: Path) -> None:
    """A slave bind sees what the host mounts below later; what lies below goes with it, and the host's own stays."""
    host = tmp_path / "host"
    (host / "sub").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host], check=True)
    try:
        subprocess.run(["mount", "--make-shared", host], check=True)
        (host / "sub").mkdir()
        add(tare, box, f"type=bind,src={host},dst=/h,bind-propagation=rslave")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host / "sub"], check=True)
        (host / "sub" / "late").touch()
        assert sh(tare, box, "ls /h/sub") == "late\n"
        take(tare, box, "/h")
        assert mounted(tare, box) == [] and (host / "sub" / "late").exists()
        add(tare, box, f"type=bind,src={host},dst=/h")
        assert sh(tare, box, "ls /h/sub") == "late\n"
        tare.docker("exec", "-d", "-w", "/h", box, "sleep", "1000")
        refused = take(tare, box, "/h", check=False)
        assert refused.code == 1 and "in use by a process" in refused.err
        assert sh(tare, box, "ls /h/sub") == "late\n", "what lay below is back"
    finally:
        tare.docker("rm", "-f", box)
        subprocess.run(["umount", "-R", host], check=True)


def test_busy(tare: Engine, box: str, source: Path) -> None:
    """A mount that a process uses stays, and the error says so; once it is free it goes."""
    add(tare, box, f"type=bind,src={source},dst=/data")
    sh(tare, box, "cd /data; (exec sleep 1000) & echo $! > /pid")
    refused = take(tare, box, "/data", check=False)
    assert refused.code == 1 and "the mount at /data is in use by a process of the container" in refused.err
    assert places(tare, box) == ["/data"]
    sh(tare, box, "kill -9 $(cat /pid)")
    wait_until(lambda: take(tare, box, "/data", check=False).code == 0, "it can be taken away")
    assert mounted(tare, box) == []


@pytest.mark.parametrize("place", ["/proc/kcore", "/sys/firmware", "/dev/shm", "/", "/etc/hosts", "/etc", "/nowhere"])
def test_what_is_not_the_users(tare: Engine, box: str, place: str) -> None:
    """The engine's own mounts can't be taken away, nor what isn't mounted."""
    before = tare.inspect(box)["State"]["Pid"]
    seen = Path(f"/proc/{before}/mountinfo").read_text(errors="surrogateescape")
    refused = take(tare, box, place, check=False)
    assert refused.code == 1 and refused.err, refused
    assert Path(f"/proc/{before}/mountinfo").read_text(errors="surrogateescape") == seen


def test_refusals(tare: Engine, box: str, source: Path) -> None:
    """What is there already, what would hide another mount, /proc, a source that isn't there: nothing changes."""
    add(tare, box, f"type=bind,src={source},dst=/a/b")
    seen = tare.inspect(box)["Mounts"]
    for mount, why in (
        (f"type=bind,src={source},dst=/a/b", "Duplicate mount point: /a/b"),
        ("type=tmpfs,dst=/a", "would hide the one at /a/b"),
        ("type=tmpfs,dst=/proc/sys", "it is inside /proc"),
        ("type=tmpfs,dst=/dev/shm", "something is mounted at /dev/shm already"),
        ("type=tmpfs,dst=/etc", "has /etc/resolv.conf mounted there"),
        (f"type=bind,src={source}/none,dst=/c", "bind source path does not exist"),
        (f"type=bind,src={source},dst=/bin/sh", "not a directory"),
    ):
        refused = add(tare, box, mount, check=False)
        assert refused.code == 1 and why in refused.err.lower() + refused.err, (mount, refused.err)
    add(tare, box, "type=tmpfs,dst=/a/b/sub")
    assert "lies on the one at /a/b" in take(tare, box, "/a/b", check=False).err
    take(tare, box, "/a/b/sub")
    assert tare.inspect(box)["Mounts"] == seen
    assert mounted(tare, box) == ["/a/b"]


def test_all_or_none(tare: Engine, box: str, source: Path) -> None:
    """Several changes in one update: the last one fails, so that all stays as it was."""
    add(tare, box, f"type=bind,src={source},dst=/one")
    flags = [
        "--mount-rm",
        "/one",
        "--mount-add",
        "type=tmpfs,dst=/two",
        "--mount-add",
        f"type=bind,src={source}/no,dst=/x",
    ]
    assert tare.tare_cli("update", *flags, box, check=False).code == 1
    assert places(tare, box) == mounted(tare, box) == ["/one"]
    tare.tare_cli("update", "--mount-rm", "/one", "--mount-add", f"type=bind,src={source}/file,dst=/one/f", box)
    assert mounted(tare, box) == ["/one/f"] and sh(tare, box, "cat /one/f") == "here\n"


def test_stopped_and_paused(tare: Engine, source: Path) -> None:
    """Of a stopped container only the record changes; a paused one is changed at once."""
    box = tare.create({"Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none", "Binds": ["/tmp:/tmp2"]}}).json[
        "Id"
    ]
    tare.tare_cli("update", "--mount-add", f"type=bind,src={source},dst=/late", "--mount-rm", "/tmp2", box)
    assert places(tare, box) == ["/late"] and tare.inspect(box)["HostConfig"].get("Binds") in (None, [])
    tare.docker("start", box)
    assert mounted(tare, box) == ["/late"]
    tare.docker("pause", box)
    take(tare, box, "/late")
    add(tare, box, "type=tmpfs,dst=/t")
    tare.docker("unpause", box)
    assert mounted(tare, box) == ["/t"]


def test_events(tare: Engine, box: str, volume: str) -> None:
    """A volume's coming and going are events, as at start and end."""
    events = tare.popen("events", "--format", "{{json .}}", "--filter", "type=volume", "--filter", f"volume={volume}")
    try:
        tare.tare_cli("version")
        add(tare, box, f"type=volume,src={volume},dst=/v,readonly")
        take(tare, box, "/v")
        assert events.stdout is not None
        seen = []
        while not seen or seen[-1]["Action"] != "unmount":
            seen.append(json.loads(events.stdout.readline()))
        assert [event["Action"] for event in seen][-2:] == ["mount", "unmount"]
        assert seen[-2]["Actor"]["Attributes"]["destination"] == "/v"
        assert seen[-2]["Actor"]["Attributes"]["read/write"] == "false"
    finally:
        events.kill()
        events.communicate()
