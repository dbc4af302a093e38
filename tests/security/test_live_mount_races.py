"""Mounts added and taken away while the container changes the way there: never on the host, never the engine's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engine import Engine

ROUNDS = 12
LIMIT_S = 8.0


def tree(path: Path) -> list[tuple[str, bytes]]:
    """Everything below a directory."""
    return sorted((str(p.relative_to(path)), p.read_bytes() if p.is_file() else b"") for p in path.rglob("*"))


def places(tare: Engine, container: str) -> list[str]:
    """Where the kernel has mounts for a container."""
    pid = tare.inspect(container)["State"]["Pid"]
    return [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").splitlines()]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host that must stay as it is."""
    made = tmp_path / "outside"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "key").write_text("hunter2")
    before = tree(made)
    yield made
    assert tree(made) == before, "changed on the host"
    assert str(made) not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_target_that_is_swapped_with_links(tare: Engine, outside: Path, tmp_path: Path, kind: str) -> None:
    """CVE-2021-30465's kind: a way that changes between a directory and links out of the root and into /proc."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "mark").write_text("mark")
    what = source if kind == "directory" else source / "mark"
    script = (
        "mkdir -p /place; ln -sfn ../../../../../../../..$1 /trap; ln -sfn /proc/self /proc-trap; "
        "while :; do mv -T /place /kept; mv -T /trap /place; mv -T /place /trap; "
        "mv -T /proc-trap /place; mv -T /place /proc-trap; mv -T /kept /place; done"
    )
    box = tare.start("--net", "none", command=["sh", "-c", script, "sh", str(outside)])
    own, end, done = set(places(tare, box)), time.monotonic() + LIMIT_S, 0
    for turn in range(ROUNDS):
        target = f"/place/deep{turn}/target"
        mount = {"Type": "bind", "Source": str(what), "Target": target}
        answer = tare.api.request("POST", f"/containers/{box}/update", {"MountAdd": [mount]}, check=False)
        done += answer.status == 200
        answer = tare.api.request("POST", f"/containers/{box}/update", {"MountRemove": [target]}, check=False)
        assert answer.status in (200, 404, 409), answer
        left = set(places(tare, box))
        assert own <= left, "one of the engine's own was taken away"
        assert not [place for place in left - own if place.startswith(("/proc", "/sys"))]
        if done and time.monotonic() > end:
            break
    assert done, "the race was never won by the engine"


def test_place_that_leads_to_a_mask(tare: Engine, tmp_path: Path) -> None:
    """A container that moves the directory in which a mount lies and links another into its place keeps its masks."""
    box = tare.start("--net", "none")
    mount = {"Type": "bind", "Source": str(tmp_path), "Target": "/data/firmware"}
    assert tare.api.request("POST", f"/containers/{box}/update", {"MountAdd": [mount]}).status == 200
    tare.docker("exec", box, "sh", "-c", "mv /data /moved; ln -s /sys /data")
    before = places(tare, box)
    answer = tare.api.request("POST", f"/containers/{box}/update", {"MountRemove": ["/data/firmware"]}, check=False)
    assert answer.status == 409 and "leads to /sys/firmware now" in answer.message
    assert places(tare, box) == before
    tare.docker("exec", box, "sh", "-c", "rm /data; ln -s /moved /data")
    assert tare.api.request("POST", f"/containers/{box}/update", {"MountRemove": ["/data/firmware"]}).status == 200
    assert "/moved/firmware" not in places(tare, box)


def test_place_that_leads_to_another_mount(tare: Engine, tmp_path: Path) -> None:
    """Nor is one of the user's mounts taken for another, and no mount lands where a link leads to a file of /proc."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    flags = [flag for name in ("one", "two") for flag in ("-v", f"{tmp_path}/{name}:/{name}/m")]
    box = tare.start("--net", "none", *flags)
    tare.docker("exec", box, "sh", "-c", "mv /one /away; ln -s /two /one; ln -s /proc/sys /three")
    answer = tare.api.request("POST", f"/containers/{box}/update", {"MountRemove": ["/one/m"]}, check=False)
    assert answer.status == 409 and "leads to /two/m now" in answer.message
    for target in ("/three/kernel", "/three/kernel/hostname"):
        mount = {"Type": "bind", "Source": str(tmp_path), "Target": target}
        answer = tare.api.request("POST", f"/containers/{box}/update", {"MountAdd": [mount]}, check=False)
        assert answer.status == 400, answer


def test_nothing_of_the_container_is_loaded(tare: Engine, outside: Path) -> None:
    """CVE-2019-14271: files of the container that look like modules or libraries of the engine's are never run."""
    box = tare.start("--net", "none")
    script = (
        "for d in /usr/lib/python3.11 /usr/lib/python3/dist-packages /lib /usr/lib; do mkdir -p $d/encodings; "
        'for m in stat errno posixpath encodings/idna struct codecs; do echo \'open("/loaded","w")\' > $d/$m.py; done; '
        "echo x > $d/libnss_files.so.2; done; ln -s $1 /way"
    )
    tare.docker("exec", box, "sh", "-c", script, "sh", str(outside))
    for target in ("/way/new", "/plain", "/bin/sh/x"):
        mount = {"Type": "tmpfs", "Target": target}
        tare.api.request("POST", f"/containers/{box}/update", {"MountAdd": [mount]}, check=False)
    assert tare.docker("exec", box, "sh", "-c", "ls /loaded", check=False).code == 1
    assert not Path("/loaded").exists()


@pytest.mark.parametrize("letter", ["\r", "\u2028", "\x85", "\x0b"])
def test_names_that_break_lines_elsewhere(tare: Engine, tmp_path: Path, letter: str) -> None:
    """The kernel's list of mounts has a line for each; what else some take for a line's end is a letter of a name."""
    box = tare.start("--net", "none")
    path = f"/containers/{box}/update"
    mounts = [{"Type": "bind", "Source": str(tmp_path), "Target": target} for target in ("/way/to", "/other")]
    assert tare.api.request("POST", path, {"MountAdd": mounts[:1]}).status == 200
    tare.docker("exec", box, "mv", "/way", f"/a{letter}b")
    assert tare.api.request("POST", path, {"MountAdd": mounts[1:]}, check=False).status == 200
    assert tare.api.request("POST", path, {"MountRemove": ["/other"]}, check=False).status == 200
