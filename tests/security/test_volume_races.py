"""Containers that share a volume and change it meanwhile: the host is never mounted on, written to or read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engine import Engine

ROUNDS = 12
LIMIT_S = 12.0


@pytest.fixture
def volume(tare: Engine) -> Iterator[str]:
    """A named volume, removed afterwards."""
    name = tare.unique("v")
    yield name
    tare.clean()
    tare.docker("volume", "rm", "-f", name)


def tree(path: Path) -> list[tuple[str, bytes]]:
    """Everything below a directory."""
    return sorted((str(p.relative_to(path)), p.read_bytes() if p.is_file() else b"") for p in path.rglob("*"))


def swapper(tare: Engine, volume: str, outside: Path) -> str:
    """A container that changes `place` between a directory and a link to the host's directory, for ever."""
    script = (
        "mkdir -p /v/place/sub; echo inside > /v/place/sub/key; ln -sfn ../../../../../../../../../..$1 /v/trap; "
        "while :; do mv -T /v/place /v/kept; mv -T /v/trap /v/place; mv -T /v/place /v/trap; mv -T /v/kept /v/place; "
        "done"
    )
    flags = ["--net", "none", "-v", f"{volume}:/v"]
    return tare.start(flags=flags, command=["sh", "-c", script, "sh", str(outside)])


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_cve_2021_30465_mount_target_in_a_shared_volume(tare: Engine, volume: str, tmp_path: Path, kind: str) -> None:
    """CVE-2021-30465, CVE-2024-45310: a target that another container swaps with a link is mounted and made inside."""
    outside, source = tmp_path / "outside", tmp_path / "source"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub" / "key").write_text("hunter2")
    source.mkdir()
    (source / "mark").write_text("mark")
    what = source if kind == "directory" else source / "mark"
    before, end, started = tree(outside), time.monotonic() + LIMIT_S, 0
    swapper(tare, volume, outside)
    while started < ROUNDS and (started < 3 or time.monotonic() < end):
        started += 1
        flags = ["--net", "none", "-v", f"{volume}:/v", "-v", f"{what}:/v/place/deep{started}/target"]
        tare.run(*flags, "@", "sh", "-c", "cat /v/place/sub/key; ls /v/trap/ /v/place/", check=False)
        assert tree(outside) == before, "made on the host"
        assert str(outside) not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")


def test_subpath_that_is_swapped(tare: Engine, volume: str, tmp_path: Path) -> None:
    """CVE-2024-23651's kind: a subpath never shows the host's files, whatever link it is at the moment."""
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub" / "key").write_text("hunter2")
    swapper(tare, volume, outside)
    mount = f"type=volume,src={volume},dst=/s,volume-subpath=place/sub"
    seen, end = set(), time.monotonic() + LIMIT_S
    for _ in range(ROUNDS):
        said = tare.run("--net", "none", "--mount", mount, "@", "cat", "/s/key", check=False)
        seen.add(said.out)
        assert "hunter2" not in said.out + said.err
        if time.monotonic() > end:
            break
    assert seen <= {"", "inside\n"}


def test_copy_up_while_the_volume_changes(tare: Engine, volume: str, tmp_path: Path) -> None:
    """Copy-up writes into the volume's own directory only, whatever links a running container makes in it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    script = "while :; do for n in passwd group hosts; do ln -s $1/$n /v/$n; done; rm -f /v/*; done"
    flags = ["--net", "none", "-v", f"{volume}:/v"]
    tare.start(flags=flags, command=["sh", "-c", script, "sh", str(outside)])
    for _ in range(6):
        created = tare.create({"Cmd": ["true"], "HostConfig": {"Binds": [f"{volume}:/etc"]}})
        assert created.status == 201
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc", "/proc/self", "/proc/sys/kernel", "/x/../proc", "//proc//1"])
def test_cve_2019_19921_volume_at_proc(tare: Engine, volume: str, place: str) -> None:
    """CVE-2019-19921, CVE-2019-16884: no kind of mount may lie on or below /proc."""
    for host in (
        {"Binds": [f"{volume}:{place}"]},
        {"Mounts": [{"Type": "volume", "Source": volume, "Target": place}]},
        {"Tmpfs": {place: ""}},
    ):
        answer = tare.create({"Cmd": ["true"], "HostConfig": host})
        assert answer.status == 400 and "it is inside /proc" in answer.message
    assert tare.create({"Cmd": ["true"], "Volumes": {place: {}}}).status == 400


def test_cve_2019_16884_image_leads_a_volume_to_proc(tare: Engine, volume: str) -> None:
    """A link in the image that leads the mount target into /proc is refused at start."""
    image = tare.hostile_image({"way": "/proc/self", "sys2": "/proc/sys"}, ['CMD ["sh"]'])
    for place in ("/way/attr", "/sys2/kernel"):
        result = tare.docker("run", "--rm", "--net", "none", "-v", f"{volume}:{place}", image, "true", check=False)
        assert result.code != 0 and "inside /proc" in result.err


def test_symlinked_target_stays_inside(tare: Engine, volume: str, tmp_path: Path) -> None:
    """GHSA-vp62-88p7-qqf5: a target that is a link to a host path is made and mounted inside the container's root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    image = tare.hostile_image({"way": str(outside), "up": f"../../../../../..{outside}"}, ['CMD ["sh"]'])
    for place in ("/way/new", "/up/new"):
        flags = ["--rm", "--net", "none", "-v", f"{volume}:{place}"]
        assert tare.docker("run", *flags, image, "sh", "-c", f"echo x > {place}/file; cat {place}/file").out == "x\n"
    assert list(outside.iterdir()) == []
