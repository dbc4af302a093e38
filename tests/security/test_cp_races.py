"""Copies against containers that cheat: swapped links, hostile archives, programs in the way; the host is safe."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.engine import Engine

RACE_S = 2.0


def tar_of(*entries: tuple[str, str, bytes]) -> bytes:
    """A tar of (name, kind, content or link target)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, kind, data in entries:
            entry = tarfile.TarInfo(name)
            entry.type = {"file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}[kind]
            if kind == "file":
                entry.size = len(data)
            else:
                entry.linkname = data.decode()
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


@contextmanager
def swapping(tare: Engine, outside: Path) -> Iterator[str]:
    """A container in which /job/target is a directory and a link to a path of the host by turns, as fast as it can."""
    script = (
        "mkdir -p /job/target /job/real; echo inside > /job/target/file; echo ready;"
        f"ln -s {outside} /job/link;"
        "while :; do mv /job/target /job/aside; mv -T /job/link /job/target;"
        "mv -T /job/target /job/link; mv /job/aside /job/target; done"
    )
    container = tare.start(command=("sh", "-c", script))
    tare.docker("exec", container, "sh", "-c", "until [ -d /job/real ]; do :; done")
    yield container
    tare.docker("kill", container)


def test_CVE_2018_15664_link_swapped_while_copying(tare: Engine, tmp_path: Path) -> None:
    """While a container swaps a directory with a link to a host's, no copy reads or writes the host's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret of the host\n")
    upload = tar_of(("planted", "file", b"planted\n"))
    tries = 0
    with swapping(tare, outside) as container:
        path = f"/containers/{container}/archive"
        end = time.monotonic() + RACE_S
        while tries < 4 or time.monotonic() < end:
            for asked in ("/job/target/file", "/job/target/", "/job/target/."):
                answer = tare.api.request("GET", path, query={"path": asked}, check=False)
                assert b"secret of the host" not in answer.body
            tare.api.request("PUT", path, upload, query={"path": "/job/target"}, check=False)
            nested = tar_of(("target/planted", "file", b"planted\n"))
            tare.api.request("PUT", path, nested, query={"path": "/job"}, check=False)
            tries += 1
    assert sorted(os.listdir(outside)) == ["file"]
    assert (outside / "file").read_text() == "secret of the host\n"


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_CVE_2021_41089_links_to_the_host_stay_inside(tare: Engine, tmp_path: Path, state: str) -> None:
    """Absolute and climbing links in a container lead to paths of the container, for reading and for writing."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret\n")
    climbing = "../" * 20 + str(outside)
    script = (
        f"ln -s {outside} /abs; ln -s {climbing} /up; mkdir -p /d; ln -s {outside} /d/in; ln -s /proc/self/root /magic"
    )
    container = tare.start(command=("sh", "-c", f"{script}; touch /ready; exec sleep 1000"))
    tare.docker("exec", container, "sh", "-c", "until [ -e /ready ]; do :; done")
    if state == "stopped":
        tare.docker("kill", container)
        tare.exit_code(container)
    path = f"/containers/{container}/archive"
    for asked in ("/abs/file", "/up/file", "/abs/", "/up/.", "/../../.." + str(outside) + "/file"):
        assert tare.api.request("GET", path, query={"path": asked}).status == 404, asked
    for asked in ("/abs", "/up"):
        answer = tare.api.request("PUT", path, tar_of(("planted", "file", b"x")), query={"path": asked})
        assert answer.status == 404
    body = tar_of(("d/in/planted", "file", b"x"), ("up/planted", "file", b"x"))
    assert tare.api.request("PUT", path, body, query={"path": "/"}).status == 200
    assert sorted(os.listdir(outside)) == ["file"]
    assert tare.api.request("GET", path, query={"path": f"{outside}/planted"}).status == 200
    answer = tare.api.request("GET", path, query={"path": "/magic/etc/passwd"})
    assert answer.status in (400, 404)


def test_hostile_archives_are_refused(tare: Engine) -> None:
    """Names and hard links that climb out, and writes into interfaces of the kernel, are refused."""
    container = tare.start("--privileged")
    path = f"/containers/{container}/archive"
    for body in (
        tar_of(("../../evil", "file", b"x")),
        tar_of(("a", "hard", b"../../../etc/passwd")),
        tar_of(("proc/sys/kernel/core_pattern", "file", b"|/evil")),
        tar_of(("sys/fs/cgroup/evil/x", "file", b"x")),
        tar_of(("link", "link", b"/proc/sys/kernel"), ("link/core_pattern", "file", b"|/evil")),
        b"no archive at all" * 100,
    ):
        answer = tare.api.request("PUT", path, body, query={"path": "/"})
        assert answer.status in (400, 403), answer
    assert b"evil" not in Path("/proc/sys/kernel/core_pattern").read_bytes()
    assert tare.api.request("PUT", path, tar_of(("x", "file", b"x")), query={"path": "/proc/sys"}).status == 404
    assert tare.api.request("GET", path, query={"path": "/proc/version"}).status == 404


def test_CVE_2019_14271_nothing_of_the_container_runs(tare: Engine) -> None:
    """Programs and libraries of the image by names that engines used to run (tar, xz, gzip, NSS) stay unused."""
    trap = b"#!/bin/sh\necho trapped > /trapped\n"
    names = [
        f"{place}/{name}" for place in ("bin", "usr/bin", "sbin") for name in ("tar", "xz", "unpigz", "docker-tar")
    ]
    libraries = ["lib/libnss_files.so.2", "lib/x86_64-linux-gnu/libnss_files.so.2"]
    image = tare.hostile_image(dict.fromkeys((*names, *libraries), trap))
    container = tare.docker("run", "-d", image, "sleep", "1000").out.strip()
    path = f"/containers/{container}/archive"
    import lzma

    body = lzma.compress(tar_of(("x", "file", b"x")))
    assert tare.api.request("PUT", path, body, query={"path": "/", "copyUIDGID": "1"}).status == 200
    assert tare.api.request("GET", path, query={"path": "/bin"}).status == 200
    assert tare.api.request("HEAD", path, query={"path": "/trapped"}).status == 404
    tare.docker("rm", "-f", container)
    tare.docker("rmi", image)


def test_mounts_of_a_container_survive_a_copy_over_them(tare: Engine, tmp_path: Path) -> None:
    """A file or directory that something is mounted on can't be replaced, and nothing below it is deleted."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "keep").write_text("keep\n")
    (tmp_path / "file").write_text("mounted\n")
    container = tare.start("-v", f"{tmp_path}/dir:/over/dir", "-v", f"{tmp_path}/file:/single")
    path = f"/containers/{container}/archive"
    for name in ("single", "over", "etc/hosts"):
        answer = tare.api.request("PUT", path, tar_of((name, "file", b"x")), query={"path": "/"})
        assert (answer.status, "device or resource busy" in answer.message) == (400, True)
    assert (tmp_path / "dir" / "keep").exists()
    assert tare.docker("exec", container, "cat", "/single", "/over/dir/keep").out == "mounted\nkeep\n"


def test_a_client_that_vanishes_costs_nothing(tare: Engine, tared: object) -> None:
    """Half an upload, and a download that nobody reads, leave no descriptor and no lock behind."""
    import socket

    from support.deadline import wait_until
    from support.tared import Tared

    assert isinstance(tared, Tared)
    container = tare.create({"Cmd": ["true"]}).json["Id"]
    count = lambda: len(os.listdir(f"/proc/{tared.pid}/fd"))  # noqa: E731
    before = count()
    for head in (
        f"PUT /containers/{container}/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
        f"GET /containers/{container}/archive?path=/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tare.socket))
            client.sendall(head.encode() + tar_of(("x", "file", b"y" * 4096))[:2000])
    wait_until(lambda: count() <= before, "descriptors are closed")
    tare.docker("start", container)
    assert tare.exit_code(container) == 0
