"""Engines under other roots than Debian 12's: what is made on one runs on the other. With TARE_ROOTS=all.

Each test is run with an engine under Debian 13's root, under one that is laid out as RPM's distributions are, and under
one whose C library is musl (root_makers.py tells what these are). The first run compiles Python for musl, which
takes five minutes or so; it is kept in TARE_ROOT_CACHE.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from foreign_roots import RootedEngine
from root_makers import PYTHONS, fetch_wheels, make_root

from support.deadline import wait_until
from support.engine import Engine

pytestmark = [
    pytest.mark.skipif(os.environ.get("TARE_ROOTS") != "all", reason="other roots need TARE_ROOTS=all"),
    pytest.mark.timeout(1800),
]
KINDS = ("trixie", "lib64", "musl")


def started(kind: str) -> Iterator[RootedEngine]:
    """A root of that kind with an engine in it."""
    needed = ["mmdebstrap", *(["gcc", "make", "dpkg-deb", "tclsh"] if kind == "musl" else [])]
    if missing := [program for program in needed if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    directory = Path(tempfile.mkdtemp(prefix="tare-roots-", dir="/var/tmp"))
    made: RootedEngine | None = None
    try:
        made = RootedEngine(make_root(kind, directory), f"ttr{secrets.token_hex(3)}")
        made.engine.prepare()
        yield made
    finally:
        if made is not None:
            made.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def debian() -> Iterator[Engine]:
    """The engine under Debian 12."""
    for made in started("bookworm"):
        yield made.engine


@pytest.fixture(scope="module", params=KINDS)
def rooted(request: pytest.FixtureRequest) -> Iterator[RootedEngine]:
    """One under another root."""
    yield from started(request.param)


@pytest.fixture
def other(rooted: RootedEngine) -> Iterator[Engine]:
    """Its engine; afterwards without containers."""
    yield rooted.engine
    rooted.engine.clean()


@pytest.fixture
def home(debian: Engine) -> Iterator[Engine]:
    """Debian 12's engine; afterwards without containers, volumes and networks."""
    yield debian
    debian.clean()
    debian.docker("volume", "prune", "-af")
    debian.docker("network", "prune", "-f")


# ── what they are ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_root_is_what_it_says(rooted: RootedEngine, other: Engine) -> None:
    """Name, Python, C library, and where its parts are."""
    kind = rooted.root.path.name
    names = {"trixie": "Debian GNU/Linux 13 (trixie)", "lib64": "Root with lib64", "musl": "Root with musl"}
    assert other.api.request("GET", "/info").json["OperatingSystem"] == names[kind]
    details = json.dumps(other.api.request("GET", "/version").json)
    assert f"{PYTHONS[kind]}." in details
    assert rooted.process is not None
    maps = Path(f"/proc/{rooted.process.pid}/maps").read_text()
    assert ("/ld-musl-" in maps, "libc.so.6" in maps) == (kind == "musl", kind != "musl")
    assert ("/usr/lib64/python3." in maps, "/x86_64-linux-gnu/" in maps) == (kind == "lib64", kind == "trixie")
    assert (rooted.root.path / "var/lib/dpkg").exists() == (kind == "trixie")
    assert (rooted.root.path / "bin").is_symlink() == (kind != "musl")


def test_errors_have_one_text_everywhere(rooted: RootedEngine, other: Engine) -> None:
    """What the C library of this root calls otherwise is told as elsewhere."""
    program = (
        "import errno, json, os; from tare.errors import system_text as text;"
        "print(json.dumps({n: text(n) for n in errno.errorcode if os.strerror(n) != 'No error information'}))"
    )
    told = json.loads(rooted.root.run("python3", "-c", program))
    assert {int(number): text for number, text in told.items() if text != os.strerror(int(number))} == {}
    flags = ("-d", "-p", "8086:80")
    with socket_in(rooted, 8086):
        refused = other.docker("run", *flags, other.image, "true", check=False)
    assert ": bind: address already in use" in refused.err


@contextmanager
def socket_in(rooted: RootedEngine, port: int) -> Iterator[None]:
    """Someone who listens on that port where the engine is."""
    script = "import socket; s = socket.create_server(('', int(__import__('sys').argv[1]))); print(flush=True); input()"
    argv = [*rooted.engine.enter, sys.executable, "-c", script, str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        yield


def test_the_locked_libraries_install_by_their_digests(tmp_path: Path) -> None:
    """For musl on both machines and each Python; pip refuses what the lock has no digest of."""
    for python in ("3.11", "3.12", "3.13", "3.14"):
        for machine in ("x86_64", "aarch64"):
            target = tmp_path / f"{python}-{machine}"
            fetch_wheels(python, [f"musllinux_1_2_{machine}"], target)
            found = sorted(path.name.split("-")[0] for path in target.glob("*.whl"))
            assert found == ["dnslib", "httptools", "msgspec", "urllib3", "zlib_ng", "zstandard"]
            assert len(list(target.glob("*-musllinux_*"))) == 4


# ── containers there ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_containers_run_and_are_asked(other: Engine) -> None:
    """Exit codes, streams, a terminal, users of the image, exec, cp, top, stats, logs, events."""
    ended = other.docker(
        "run", "--rm", "-i", other.image, "sh", "-c", "cat; echo e >&2; exit 7", input="in", check=False
    )
    assert (ended.code, ended.out, ended.err) == (7, "in", "e\n")
    with other.terminal("run", "--rm", "-it", other.image, "sh", "-c", "stty size; read x; exit $x") as terminal:
        terminal.expect(b"24 80")
        terminal.send(b"9\n")
        assert terminal.wait() == 9
    other.start("--name", "one", "-u", "web", "--init", command=("sh", "-c", "echo one; echo two >&2; sleep 1000"))
    assert other.docker("exec", "one", "id").out.startswith(
        "uid=101(web) gid=102(web) groups=6(disk),29(audio),102(web)"
    )
    assert (
        other.docker("exec", "-u", "root", "-e", "A=b", "-w", "/tmp", "one", "sh", "-c", "echo $A; pwd").out
        == "b\n/tmp\n"
    )
    assert other.docker("exec", "one", "sh", "-c", "exit 3", check=False).code == 3
    other.docker(
        "cp", "-", "one:/tmp", input=subprocess.run(["tar", "-cC", "/etc", "hosts"], capture_output=True).stdout
    )
    assert other.docker("exec", "one", "cat", "/tmp/hosts").out == Path("/etc/hosts").read_text()
    assert "sleep 1000" in other.docker("top", "one").out
    assert "one" in other.docker("stats", "--no-stream", "one").out
    assert sorted(other.logs("one").split()) == ["one", "two"]
    assert "A /tmp/hosts" in other.docker("diff", "one").out
    other.docker("pause", "one")
    other.docker("unpause", "one")
    other.docker("stop", "-t", "5", "one")
    assert other.inspect("one")["State"]["ExitCode"] == 143
    events = other.docker("events", "--since", "1m", "--until", f"{time.time() + 0.5}", "--filter", "container=one").out
    assert [
        word for word in ("create", "start", "exec_start", "pause", "die") if f"container {word}" not in events
    ] == []
    other.docker("commit", "one", "made:2")
    assert other.docker("run", "--rm", "made:2", "cat", "/tmp/hosts").out == Path("/etc/hosts").read_text()


def test_no_signal_is_ignored_inside(other: Engine) -> None:
    """Neither what Python nor what the C library of this root keeps to itself: 34 is musl's, too."""
    status = other.run("@", "cat", "/proc/self/status").out
    found = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("Sig"))
    assert (found["SigIgn"], found["SigBlk"]) == ("0" * 16, "0" * 16)


def test_init_forwards_every_signal(other: Engine) -> None:
    """Also the real-time ones, which the C libraries number differently."""
    script = "".join(f"trap 'echo {number}' {number}; " for number in (10, 34, 35, 36, 40, 64))
    other.start("--init", "--name", "init", command=("sh", "-c", script + "echo up; while :; do sleep 0.1; done"))
    wait_until(lambda: "up" in other.logs("init"), "it is up")
    for number in (10, 35, 36, 40, 64, 34):
        other.docker("kill", "-s", str(number), "init")
        wait_until(lambda told=f"{number}": told in other.logs("init").split(), f"signal {number} came through")


def test_limits_hold(other: Engine) -> None:
    """Memory, processes, processors, files; a container that goes over says so."""
    flags = (
        "--memory",
        "32m",
        "--memory-swap",
        "32m",
        "--pids-limit",
        "20",
        "--cpus",
        "0.5",
        "--ulimit",
        "nofile=77:99",
    )
    other.start("--name", "tight", *flags)
    assert other.docker("exec", "tight", "sh", "-c", "ulimit -n").out == "77\n"
    files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max"
    assert other.docker("exec", "tight", "sh", "-c", files).out == f"{32 << 20}\n"
    fork = ("sh", "-c", "for i in $(seq 40); do sleep 100 & done")
    assert "can't fork" in other.docker("run", "--rm", *flags, other.image, *fork, check=False).err
    other.docker("run", "--name", "eats", *flags[:4], other.image, "tail", "/dev/zero", check=False)
    assert other.inspect("eats")["State"]["OOMKilled"] is True
    assert "memory" in other.tare_cli("why", "eats").out
    other.docker("update", "--memory", "48m", "--memory-swap", "48m", "tight")
    assert other.docker("exec", "tight", "sh", "-c", files).out == f"{48 << 20}\n"


def test_rights_and_filters_hold(other: Engine) -> None:
    """Capabilities, seccomp, no new privileges, read-only and masked paths."""
    status = other.run("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "@", "cat", "/proc/self/status").out
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    assert other.run("--read-only", "--tmpfs", "/t", "@", "sh", "-c", "echo > /t/x && ! touch /y").code == 0
    assert other.run("@", "sh", "-c", "cat /proc/timer_list | wc -c").out == "0\n"
    assert "not permitted" in other.run("@", "unshare", "-m", "true", check=False).err


def test_networks_names_and_ports(other: Engine) -> None:
    """Two on a network find each other by name; a port is published; outside names go to the host's resolvers."""
    other.docker("network", "create", "front")
    serve = ("sh", "-c", "echo here > /index.html; httpd -f -p 80 -h /")
    other.start("--name", "web", "--network", "front", "-p", "8085:80", command=serve)
    ask = ("sh", "-c", "for i in 1 2 3 4 5; do wget -qO- http://web/ && exit; sleep 0.2; done; exit 1")
    assert other.run("--network", "front", "@", *ask).out == "here\n"
    assert other.run("--network", "front", "@", "nslookup", "web", "127.0.0.11").out.count("Address") >= 2
    fetched = other.in_network("curl", "-s", "--max-time", "10", "http://127.0.0.1:8085/")
    assert fetched.out == "here\n"
    assert other.run("--network", "none", "@", "ls", "/sys/class/net").out.split() == ["lo"]
    other.docker("rm", "-f", "web")
    other.docker("network", "rm", "front")


def test_volumes_and_binds(other: Engine, rooted: RootedEngine) -> None:
    """Copied from the image, kept, shared; a directory of this root bound."""
    other.run("-v", "kept:/home", "@", "sh", "-c", "echo v > /home/f")
    assert other.run("-v", "kept:/d:ro", "@", "cat", "/d/f").out == "v\n"
    (rooted.root.path / "srv" / "given").mkdir()
    other.run("-v", "/srv/given:/d", "@", "sh", "-c", "echo b > /d/f")
    assert (rooted.root.path / "srv" / "given" / "f").read_text() == "b\n"
    other.docker("volume", "rm", "kept")


def test_health_and_restarts(other: Engine) -> None:
    """A health check is run, and who fails is started again."""
    flags = ("--health-cmd", "test -e /ok", "--health-interval", "1s", "--health-retries", "1")
    other.start("--name", "fit", *flags, command=("sh", "-c", "touch /ok; sleep 1000"))
    wait_until(lambda: other.inspect("fit")["State"]["Health"]["Status"] == "healthy", "it is healthy", 20)
    other.start("--name", "again", "--restart", "on-failure:2", command=("sh", "-c", "exit 1"))
    wait_until(lambda: other.inspect("again")["RestartCount"] == 2, "it was started again twice", 20)


def test_what_runs_outlives_a_killed_engine(rooted: RootedEngine, other: Engine) -> None:
    """kill -9 of tared: the container goes on, and the next tared knows its end."""
    other.start("--name", "on", command=("sh", "-c", "while [ ! -e /stop ]; do sleep 0.1; done; echo bye; exit 5"))
    before = other.inspect("on")["State"]["Pid"]
    rooted.kill()
    rooted.start()
    assert other.inspect("on")["State"]["Pid"] == before
    other.docker("exec", "on", "touch", "/stop")
    assert other.exit_code("on") == 5
    assert other.logs("on") == "bye\n"


# ── from one to the other ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_container_moves_there_and_back(home: Engine, other: Engine) -> None:
    """With its files, volume, network and image; each time it runs on under the other root."""
    home.docker("network", "create", "shared")
    script = "echo run >> /count; echo run >> /data/count; trap exit TERM; sleep 1000 & wait"
    flags = ("-d", "--name", "web", "--network", "shared", "-v", "shop:/data", "--memory", "64m")
    home.docker("run", *flags, home.image, "sh", "-c", script)
    home.tare_cli("move", "--stop", "web", f"unix://{other.socket}", timeout=60)
    assert other.docker("exec", "web", "cat", "/count", "/data/count").out == "run\n" * 4
    assert other.docker("exec", "web", "cat", "/proc/1/cgroup").code == 0
    home.docker("volume", "rm", "shop")
    other.tare_cli("move", "--stop", "web", f"unix://{home.socket}", timeout=60)
    assert home.docker("exec", "web", "cat", "/count", "/data/count").out == "run\n" * 6
    other.docker("volume", "rm", "shop")
    other.docker("network", "rm", "shared")


def test_archives_go_both_ways(home: Engine, other: Engine) -> None:
    """save and load, export and import, with libraries of different builds; ids stay."""
    for one, two in ((home, other), (other, home)):
        one.docker("run", "--name", "made", one.image, "sh", "-c", "echo here > /f; ln -s f /l; mknod /p p")
        one.docker("commit", "made", "made:1")
        two.docker("load", input=one.api.request("GET", "/images/made:1/get").body)
        assert two.docker("run", "--rm", "made:1", "cat", "/l").out == "here\n"
        ids = {json.loads(engine.docker("image", "inspect", "made:1").out)[0]["Id"] for engine in (one, two)}
        assert len(ids) == 1
        two.docker("import", "-", "flat", input=one.api.request("GET", "/containers/made/export").body)
        assert two.docker("run", "--rm", "flat", "sh", "-c", "cat /l; test -p /p").out == "here\n"
        for engine in (one, two):
            engine.clean()
            engine.docker("rmi", "-f", "made:1")
    for engine in (home, other):
        engine.docker("rmi", "-f", "flat")


def test_images_are_pushed_both_ways(home: Engine, other: Engine) -> None:
    """Straight from engine to engine, only the layers that are missing there."""
    for one, two in ((home, other), (other, home)):
        name = one.unique("image")
        one.docker("run", "--name", "made", one.image, "sh", "-c", "echo pushed > /f")
        one.docker("commit", "made", f"{name}:1")
        told = one.tare_cli("push", f"unix://{two.socket}:{name}:1").out
        assert ": 1 of 2 layers" in told
        assert two.docker("run", "--rm", f"{name}:1", "cat", "/f").out == "pushed\n"
        one.docker("rm", "made")
