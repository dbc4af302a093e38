"""The daemon itself: sockets and their modes, configuration, shutdown, what it leaves, what it logs."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.deadline import wait_until
from support.engine import clean_environment, run
from support.processes import is_alive, marked
from support.tared import Tared


def tared_once(daemon: Tared, *args: str, timeout: float = 15) -> subprocess.CompletedProcess[str]:
    """Runs the daemon's command to its end."""
    argv = [sys.executable, "-m", "tare.daemon.main", *args]
    environment = clean_environment({"TARE_TEST_MARK": daemon.mark})
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=environment)


def roots(daemon: Tared) -> list[str]:
    """The flags that name the daemon's roots."""
    return ["--data-root", str(daemon.data_root), "--exec-root", str(daemon.exec_root), "--bridge", "none"]


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_cve_2014_3499_modes(daemon: Tared) -> None:
    """CVE-2014-3499, CVE-2021-41091, CVE-2024-25621: the socket is 0660, also with umask 0; nobody else gets into the
    data root, and no file of a container can be reached by other users."""
    before = os.umask(0)
    try:
        daemon.start()
    finally:
        os.umask(before)
    daemon.engine.prepare()
    assert mode(daemon.socket) == 0o660 and daemon.socket.stat().st_uid == 0
    assert mode(daemon.data_root) & 0o007 == 0
    container = daemon.engine.start()
    for path in daemon.exec_root.rglob("*"):
        if path.is_socket():
            assert mode(path) & 0o007 == 0 or mode(path.parent) & 0o001 == 0, path
    for path in (daemon.data_root, daemon.data_root / "snapshots", daemon.exec_root / "containers"):
        assert run([sys.executable, "-c", LOOK, str(path)]).out == ""
    daemon.engine.docker("rm", "-f", container)


def test_the_engine_takes_as_many_descriptors_as_it_may(daemon: Tared) -> None:
    """A low soft limit, as shells have it, bounds containers but not the engine, which has a port's and a client's to
    hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, hard))
    try:
        daemon.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert daemon.process is not None
    own = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    assert re.search(rf"^Max open files +{hard} +{hard} ", own, re.MULTILINE)
    daemon.engine.prepare()
    assert daemon.engine.docker("run", "--rm", daemon.engine.image, "sh", "-c", "ulimit -n").out == "700\n"


LOOK = """
import os, sys
os.setgid(65534)
os.setuid(65534)
try:
    os.listdir(sys.argv[1])
    print("seen")
except OSError:
    pass
"""


def test_data_root_made_with_an_open_umask_is_closed(daemon: Tared) -> None:
    """A data root that was open before is closed at start."""
    daemon.data_root.mkdir(mode=0o777)
    daemon.data_root.chmod(0o777)
    daemon.start()
    assert mode(daemon.data_root) & 0o007 == 0


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "10.255.255.1:2375"])
def test_cve_2025_9074_tcp_needs_tls(daemon: Tared, address: str) -> None:
    """CVE-2025-9074: a TCP listener that isn't on loopback is refused without TLS, and says why."""
    done = tared_once(daemon, *roots(daemon), "-H", f"tcp://{address}")
    assert done.returncode != 0 and "TLS" in done.stderr.upper(), done.stderr


def free_port() -> int:
    """A TCP port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_cve_2025_9074_api_is_not_reached_from_a_container(daemon: Tared) -> None:
    """CVE-2025-9074, CVE-2020-15257: a loopback TCP listener works for the host, and from a container neither it nor
    an abstract socket of the engine's is reached; with --network host there is no abstract socket either."""
    port = free_port()
    daemon.args = ["-H", f"tcp://127.0.0.1:{port}"]
    daemon.start()
    engine = daemon.engine
    engine.prepare()
    argv = [engine.client_program, "-H", f"tcp://127.0.0.1:{port}", "version", "-f", "{{.Server.Os}}"]
    assert run(argv).out == "linux\n"
    gateway = daemon.bip.split("/")[0]
    script = (
        f"for a in {gateway} 127.0.0.1; do printf 'GET /_ping HTTP/1.0\\r\\n\\r\\n' | nc -w 1 $a {port}; done; echo end"
    )
    assert engine.docker("run", "--rm", engine.image, "sh", "-c", script).out == "end\n"
    sockets = engine.docker("run", "--rm", "--network", "host", engine.image, "cat", "/proc/net/unix").out
    assert not [line for line in sockets.splitlines() if re.search(r" @\S*(tare|" + daemon.mark + ")", line)]


def test_socket_of_a_dead_daemon_is_replaced(daemon: Tared) -> None:
    """A socket file that a killed daemon left is no obstacle; one that answers is."""
    daemon.start()
    daemon.kill9()
    assert daemon.socket.exists()
    daemon.start()
    done = tared_once(
        daemon,
        "--data-root",
        f"{daemon.home}/d2",
        "--exec-root",
        f"{daemon.home}/r2",
        "-H",
        f"unix://{daemon.socket}",
        "--bridge",
        "none",
    )
    assert done.returncode != 0 and done.stderr.strip()
    assert daemon.engine.api.request("GET", "/_ping").status == 200


def test_configuration_file(daemon: Tared) -> None:
    """--config-file takes dockerd's names; what is in both places, or unknown, is refused by name."""
    config = daemon.home / "tared.json"
    config.write_text(json.dumps({"labels": ["color=blue"], "log-level": "debug", "default-shm-size": "8m"}))
    daemon.args = ["--config-file", str(config)]
    daemon.start()
    daemon.engine.prepare()
    assert daemon.engine.api.request("GET", "/info").json["Labels"] == ["color=blue"]
    shown = daemon.engine.docker("run", "--rm", daemon.engine.image, "df", "-k", "/dev/shm").out
    assert "8192" in shown
    daemon.terminate()
    config.write_text(json.dumps({"log-level": "debug"}))
    done = tared_once(daemon, *roots(daemon), "--config-file", str(config), "--log-level", "info", "--validate")
    assert done.returncode != 0 and "log-level" in done.stderr
    config.write_text(json.dumps({"no-such-thing": 1}))
    done = tared_once(daemon, *roots(daemon), "--config-file", str(config), "--validate")
    assert done.returncode != 0 and "no-such-thing" in done.stderr
    config.write_text("{broken")
    done = tared_once(daemon, *roots(daemon), "--config-file", str(config), "--validate")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    config.write_text("{}")
    assert tared_once(daemon, *roots(daemon), "--config-file", str(config), "--validate").returncode == 0


@pytest.mark.parametrize("flag", [["--log-level", "loud"], ["--bip", "nonsense"], ["--no-such-flag"], ["-H", "x://y"]])
def test_bad_flags(daemon: Tared, flag: list[str]) -> None:
    """A flag that is wrong ends the daemon with a sentence, no traceback, and no socket."""
    path = ["-H", f"unix://{daemon.socket}"] if flag[0] != "-H" else []
    bridge = [] if flag[0] != "--bip" else ["--bridge", daemon.mark]
    flags = [part for part in roots(daemon) if part not in ("--bridge", "none")] if bridge else roots(daemon)
    done = tared_once(daemon, *flags, *bridge, *path, *flag)
    assert done.returncode != 0 and done.stderr.strip() and "Traceback" not in done.stderr
    assert not daemon.socket.exists()


def test_sigterm_leaves_containers_running(daemon: Tared) -> None:
    """SIGTERM ends the daemon cleanly, removes socket and pid file, and leaves containers as they are."""
    daemon.start()
    daemon.engine.prepare()
    container = daemon.engine.start()
    pid = daemon.engine.inspect(container)["State"]["Pid"]
    assert daemon.pidfile.read_text().strip() == str(daemon.pid)
    assert daemon.terminate() == 0
    assert is_alive(pid) and not daemon.socket.exists() and not daemon.pidfile.exists()
    daemon.start()
    assert daemon.engine.inspect(container)["State"]["Pid"] == pid


def test_sigterm_without_live_restore_stops_containers(daemon: Tared) -> None:
    """With live restore off containers are stopped before the daemon ends."""
    daemon.args = ["--live-restore=false", "--shutdown-timeout", "1"]
    daemon.start()
    daemon.engine.prepare()
    container = daemon.engine.start()
    pid = daemon.engine.inspect(container)["State"]["Pid"]
    assert daemon.terminate() == 0
    wait_until(lambda: not is_alive(pid), "it was stopped")


def test_idle_daemon_leaves_nothing(daemon: Tared) -> None:
    """After SIGTERM with no container there is no process, mount, link or cgroup of it, and only data in its roots."""
    daemon.start()
    daemon.engine.prepare()
    daemon.engine.run("@", "true")
    daemon.terminate()
    wait_until(lambda: not marked(daemon.mark), "no process is left")
    assert daemon.mark not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    assert daemon.mark not in os.listdir("/sys/class/net")
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{daemon.mark}"))
    left = [path for path in daemon.exec_root.rglob("*") if not path.is_dir() and path.suffix != ".lock"]
    assert not left


def test_sigint_and_second_signal(daemon: Tared) -> None:
    """SIGINT ends it as SIGTERM does, quickly, also while a client follows events."""
    daemon.start()
    with daemon.engine.api.opened("GET", "/events") as answer:
        assert answer.status == 200
        assert daemon.process is not None
        daemon.process.send_signal(2)
        assert daemon.wait_dead(10) == 0


def test_daemon_forks_nothing_itself(daemon: Tared) -> None:
    """The daemon's only child is the launcher; containers hang below monitors; the launcher has one thread."""
    daemon.start()
    daemon.engine.prepare()
    daemon.engine.start()
    launchers = daemon.launchers()
    assert len(launchers) == 1
    assert len(os.listdir(f"/proc/{launchers[0]}/task")) == 1
    for pid in daemon.processes():
        if pid != daemon.pid:
            assert len(os.listdir(f"/proc/{pid}/task")) == 1, "a monitor has threads"


def test_launcher_that_dies_is_replaced_or_told(daemon: Tared) -> None:
    """After kill -9 of the launcher alone the daemon starts containers again, or ends so that it can be restarted."""
    daemon.start()
    daemon.engine.prepare()
    running = daemon.engine.start()
    os.kill(daemon.launchers()[0], 9)

    def works() -> bool:
        assert daemon.process is not None
        if daemon.process.poll() is not None:
            daemon.start()
        return daemon.engine.docker("run", "--rm", daemon.engine.image, "true", check=False).code == 0

    wait_until(works, "containers start again", 20)
    assert daemon.engine.inspect(running)["State"]["Running"]


def test_cve_2019_13509_log_has_no_secrets(daemon: Tared) -> None:
    """CVE-2019-13509: at debug level the log holds neither environment values nor authorisation headers."""
    daemon.args = ["--log-level", "debug"]
    daemon.start()
    engine = daemon.engine
    engine.prepare()
    engine.docker("run", "--rm", "-e", "PASSWORD=hunter2secret", engine.image, "true")
    container = engine.start()
    engine.docker("exec", "-e", "TOKEN=hunter2secret", container, "true")
    headers = {"X-Registry-Auth": "aHVudGVyMnNlY3JldA=="}
    engine.api.request("POST", "/images/create", query={"fromImage": "x"}, headers=headers, check=False)
    text = daemon.log.read_text()
    assert "hunter2secret" not in text and "aHVudGVyMnNlY3JldA" not in text


def test_cve_2022_23471_resize_flood(daemon: Tared) -> None:
    """CVE-2022-23471: two thousand resizes of a terminal that nobody reads don't pile up in memory."""
    daemon.start()
    engine = daemon.engine
    engine.prepare()
    container = engine.start(flags=["-t"])
    path = f"/containers/{container}/resize"
    engine.api.request("POST", path, query={"h": 24, "w": 80})
    before = resident_kib(daemon.pid)
    for number in range(2000):
        engine.api.request("POST", path, query={"h": 20 + number % 7, "w": 80}, check=False)
    assert resident_kib(daemon.pid) - before < 8192


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def test_cve_2020_13401_bridge_ignores_router_advertisements(daemon: Tared) -> None:
    """CVE-2020-13401, CVE-2024-32473: the bridge accepts no router advertisement; eth0 inside has no IPv6 address."""
    daemon.start()
    engine = daemon.engine
    engine.prepare()
    container = engine.start()
    assert Path(f"/proc/sys/net/ipv6/conf/{daemon.mark}/accept_ra").read_text().strip() == "0"
    assert engine.docker("exec", container, "cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6").out.strip() == "1"
    assert "inet6" not in engine.docker("exec", container, "ip", "addr", "show", "eth0").out


@pytest.mark.parametrize("name", ["../x", "..%2f..%2fetc", "a%00b", "%2e%2e", "x" * 300, "..", "."])
def test_ids_are_no_paths(tared: Tared, name: str) -> None:
    """moby-4f84bcb967, CVE-2014-9358: an id or name of dots, slashes or NUL is unknown or refused, never a path."""
    api = tared.engine.api
    for verb, path in (("GET", "/containers/{}/json"), ("GET", "/images/{}/json"), ("GET", "/exec/{}/json")):
        answer = api.request(verb, path.format(name), check=False)
        assert answer.status in (301, 400, 404, 405), (path, answer)
    answer = api.request("DELETE", f"/containers/{name}", check=False)
    assert answer.status in (301, 400, 404, 405)
    assert tared.data_root.exists()
