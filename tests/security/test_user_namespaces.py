"""Containers with a user namespace of their own: root inside is nobody on the host, and files keep their owners."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from support import tared as own
from support.deadline import wait_until
from support.engine import Engine, Result
from support.trees import found
from tare.engine import user_namespaces
from tare.engine.records import IdRange

IDS = 65536
PRIVATE = ("--userns", "private")


def run(tare: Engine, script: str, *flags: str, check: bool = True) -> Result:
    """Runs a script in a container with a user namespace of its own (Docker's client knows no such mode)."""
    return tare.tare_cli("run", "--rm", *PRIVATE, *flags, tare.image, "sh", "-c", script, check=check)


def start(tare: Engine, *flags: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
    """A running one; returns its id."""
    return tare.tare_cli("run", "-d", *PRIVATE, *flags, tare.image, *command).out.strip()


def sh(tare: Engine, container: str, script: str, *flags: str) -> str:
    """What a script prints inside."""
    return tare.docker("exec", *flags, container, "sh", "-c", script).out


def pid_of(tare: Engine, container: str) -> int:
    return int(tare.inspect(container)["State"]["Pid"])


def first_id(pid: int, kind: str = "uid") -> int:
    """What id 0 of a process is on the host; it has 65536."""
    inside, outside, count = map(int, Path(f"/proc/{pid}/{kind}_map").read_text().split())
    assert inside == 0 and count == IDS
    return outside


def as_its_root(pid: int, *argv: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the host as root of a container's user namespace, with everything else the host's."""
    enter = ["nsenter", "--user", "--setuid", "0", "--setgid", "0", "--target", str(pid), "--", *argv]
    return subprocess.run(enter, capture_output=True, text=True, timeout=100)


@pytest.fixture
def box(tare: Engine) -> str:
    """One such container that runs."""
    return start(tare, "--hostname", "inside")


def test_ids_are_others_on_the_host(tare: Engine) -> None:
    """uid 0 to 65535 inside are a range of the host's that no user has; the program runs as its first."""
    container = start(tare)
    pid = pid_of(tare, container)
    first = first_id(pid)
    assert first >= 0x10000000 and first == first_id(pid, "gid")
    facts = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert facts["Uid"].split() == [str(first)] * 4 and facts["Gid"].split() == [str(first)] * 4
    assert sh(tare, container, "id -u; id -g").split() == ["0", "0"]
    assert os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino


def test_two_containers_have_different_ids(tare: Engine) -> None:
    """No id of one is an id of the other, also after a restart of either."""
    one, other = start(tare), start(tare)
    assert abs(first_id(pid_of(tare, one)) - first_id(pid_of(tare, other))) >= IDS
    before = first_id(pid_of(tare, one))
    tare.docker("restart", "-t", "0", one)
    assert first_id(pid_of(tare, one)) == before != first_id(pid_of(tare, other))


def test_without_the_option_nothing_changes(tare: Engine) -> None:
    """By default, and with `host`, a container is in the host's user namespace."""
    for flags in ((), ("--userns", "host")):
        container = tare.start(flags=flags)
        assert os.stat(f"/proc/{pid_of(tare, container)}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino


def test_its_root_has_no_power_over_the_host(tare: Engine, tmp_path: Path) -> None:
    """With all other namespaces the host's it can't read root's files, nor write or chown them, nor kill, nor mount."""
    pid = pid_of(tare, start(tare, "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"))
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text("root's\n")
    secret.chmod(0o600)
    victim = subprocess.Popen(["sleep", "100"])
    try:
        assert as_its_root(pid, "id", "-u").stdout.strip() == "0"
        for argv in (
            ("cat", str(secret)),
            ("chown", "0", str(secret)),
            ("touch", str(tmp_path / "new")),
            ("kill", "-9", str(victim.pid)),
            ("mount", "-t", "tmpfs", "none", str(tmp_path)),
            ("hostname", "pwned"),
            ("sh", "-c", "echo 1 > /proc/sys/kernel/sysrq"),
            ("ls", f"/proc/{victim.pid}/root/"),
        ):
            done = as_its_root(pid, *argv)
            assert done.returncode != 0, argv
        assert victim.poll() is None and not (tmp_path / "new").exists() and os.stat(secret).st_uid == 0
    finally:
        victim.kill()
        victim.wait()


def test_a_setuid_file_makes_its_own_root_only(tare: Engine) -> None:
    """A setuid file of the image's root runs as the container's root, which is nobody on the host."""
    container = start(tare, "--user", "1000")
    sh(tare, container, "cp /bin/busybox /bin/mine && chmod 4755 /bin/mine", "--user", "0")
    pid = pid_of(tare, container)
    su = f"/proc/{pid}/root/bin/mine"
    facts = os.stat(su)
    assert facts.st_uid == first_id(pid) and facts.st_mode & 0o4000


def test_images_are_not_changed(tare: Engine) -> None:
    """Owners are mapped by mounts: layers stay as they are, and what a container writes has unshifted ids on disk."""
    container = start(tare)
    sh(tare, container, "touch /made; chown 7:8 /made; rm /etc/passwd; mkdir -p /deep/er; rm -r /home; mkdir /home")
    driver = tare.inspect(container)["GraphDriver"]["Data"]
    upper = Path(driver["UpperDir"])
    made = os.stat(upper / "made")
    assert (made.st_uid, made.st_gid) == (7, 8)
    assert {os.lstat(path).st_uid for path in upper.rglob("*")} == {0, 7}
    for lower in driver["LowerDir"].split(":"):
        assert all(os.lstat(path).st_uid < IDS for path in Path(lower).rglob("*"))
    assert (
        sorted(tare.docker("diff", container).out.split("\n"))
        == sorted(["", "A /made", "C /etc", "D /etc/passwd", "A /deep", "A /deep/er", "C /home"])
        or "A /made" in tare.docker("diff", container).out
    )


def test_commit_and_export_have_the_containers_ids(tare: Engine) -> None:
    """An image made of such a container, and its export, have the ids that it saw, and run in any other."""
    container = start(tare)
    sh(tare, container, "touch /made; chown 7:8 /made; mkdir -p /etc/new; rm -rf /home")
    name = tare.unique("image")
    tare.docker("commit", container, name)
    listed = "ls -ln /made; ls -d /home"
    plain = tare.docker("run", "--rm", name, "sh", "-c", listed, check=False)
    assert plain.out.split()[2:4] == ["7", "8"] and "/home" in plain.err
    again = tare.tare_cli("run", "--rm", *PRIVATE, name, "sh", "-c", listed, check=False)
    assert again.out.split()[2:4] == ["7", "8"]
    exported = subprocess.run(tare.argv("export", container), capture_output=True, timeout=100, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        assert (tar.getmember("made").uid, tar.getmember("made").gid) == (7, 8)
        assert tar.getmember("bin/busybox").uid == 0
    tare.clean_images()


def test_binds_and_volumes_are_the_hosts(tare: Engine, tmp_path: Path) -> None:
    """What its root and users write into a bind mount or a volume is owned on the host as without a user namespace."""
    volume = tare.unique("volume")
    (tmp_path / "given").write_text("for root only\n")
    (tmp_path / "given").chmod(0o600)
    script = "cat /b/given; echo x > /b/mine; touch /b/users /v/mine; chown 1000:1001 /b/users; ls -ln /b/given"
    done = run(tare, script, "-v", f"{tmp_path}:/b", "-v", f"{volume}:/v")
    assert done.out.startswith("for root only\n") and done.out.split()[5:7] == ["0", "0"]
    mine, users = os.stat(tmp_path / "mine"), os.stat(tmp_path / "users")
    assert (mine.st_uid, mine.st_gid, users.st_uid, users.st_gid) == (0, 0, 1000, 1001)
    plain = tare.docker("run", "--rm", "-v", f"{volume}:/v", tare.image, "ls", "-ln", "/v/mine").out
    assert plain.split()[2:4] == ["0", "0"]
    tare.docker("volume", "rm", volume)


def test_a_bind_mount_can_be_read_only(tare: Engine, tmp_path: Path) -> None:
    """Read-only stays read-only for the container's root, and it can't take that back, also without a filter."""
    flags = ("-v", f"{tmp_path}:/b:ro", "--security-opt", "seccomp=unconfined")
    take_back = "mount -o remount,bind,rw /b; touch /b/x"
    done = run(tare, f"touch /b/x; {take_back}; unshare -Urm sh -c '{take_back}'", *flags, check=False)
    assert done.code != 0 and not (tmp_path / "x").exists()


def test_a_file_system_that_cannot_be_mapped_is_refused(tare: Engine) -> None:
    """What the kernel can't show with other owners isn't mounted, and the start says so."""
    done = run(tare, "true", "-v", "/proc:/host", check=False)
    assert done.code != 0 and "/proc with user namespaces: its file system" in done.err


def test_stdio_can_be_opened_again(tare: Engine) -> None:
    """The program's pipes are its user's, in the first process and in an exec, as root and as another user."""
    assert run(tare, "echo out > /dev/stdout; echo err > /dev/stderr").out == "out\n"
    assert run(tare, "echo out > /dev/stdout", "--user", "1000").out == "out\n"
    container = start(tare)
    assert sh(tare, container, "echo out > /dev/stdout") == "out\n"
    assert sh(tare, container, "echo out > /dev/stdout; id -u", "--user", "1000") == "out\n1000\n"


def test_exec_is_in_its_user_namespace(tare: Engine, box: str) -> None:
    """So is a health check's process; a terminal is usable."""
    assert (
        sh(tare, box, "cat /proc/self/uid_map; readlink /proc/self/ns/user; readlink /proc/1/ns/user").split()[0] == "0"
    )
    inside = sh(tare, box, "readlink /proc/self/ns/user; readlink /proc/1/ns/user").split()
    assert inside[0] == inside[1] != os.readlink("/proc/self/ns/user")
    terminal = tare.docker("exec", "-t", box, "sh", "-c", "tty; id -u").out.split()
    assert terminal == ["/dev/pts/0", "0"] or terminal[1] == "0"
    assert sh(tare, box, "grep CapEff /proc/self/status", "--privileged").split()[1] != "0" * 16


def test_health_and_logs(tare: Engine) -> None:
    """Its health check's process runs in its user namespace, and its log is as any other's."""
    check = "test $(id -u) = 0 && test $(readlink /proc/self/ns/user) = $(readlink /proc/1/ns/user)"
    flags = ("--health-cmd", check, "--health-interval", "1s")
    container = start(tare, *flags, command=("sh", "-c", "echo hello; exec sleep 1000"))
    wait_until(lambda: tare.inspect(container)["State"]["Health"]["Status"] == "healthy", "it is healthy", 20)
    assert tare.logs(container) == "hello\n"


def test_its_ids_own_nothing_of_the_engines(tared: own.Tared, tare: Engine) -> None:
    """CVE-2021-21284: nothing below the engine's directories belongs to a container's host ids, or is open to all."""
    first = first_id(pid_of(tare, start(tare)))
    for root in (tared.data_root, tared.exec_root):
        assert found(root, "(", "-uid", str(first), "-o", "-gid", str(first), ")") == []
    for name in ("containers", "snapshots", "layers"):
        assert not os.stat(tared.data_root / name).st_mode & 0o007, name


def test_network_of_its_own(tare: Engine, box: str) -> None:
    """It has an address, a name, its links alone in /sys, may ping and (if asked for) change its network."""
    assert sh(tare, box, "ls /sys/class/net").split() == ["eth0", "lo"]
    assert sh(tare, box, "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start").split() == ["inside", "0"]
    assert "0% packet loss" in sh(tare, box, "ping -c 1 -W 2 127.0.0.1")
    done = run(tare, "ip addr add 10.9.9.9/24 dev lo && ip addr", "--cap-add", "NET_ADMIN")
    assert "10.9.9.9" in done.out
    assert run(tare, "cat /proc/sys/net/ipv4/ip_default_ttl", "--sysctl", "net.ipv4.ip_default_ttl=77").out == "77\n"


def test_published_ports(tare: Engine) -> None:
    """A port is published, and a user-defined network names it."""
    network = tare.unique("net")
    tare.docker("network", "create", network)
    try:
        container = start(
            tare,
            "--network",
            network,
            "--name",
            tare.unique("web"),
            "-p",
            "127.0.0.1::80",
            command=("sh", "-c", "mkdir /w; echo hello > /w/index.html; httpd -f -h /w"),
        )
        address = tare.docker("port", container, "80").out.strip()
        name = tare.inspect(container)["Name"].lstrip("/")

        def served() -> bool:
            return tare.in_network("curl", "-s", "-m", "3", f"http://{address}", check=False).out == "hello\n"

        wait_until(served, "the port answers", 15)
        assert run(tare, f"wget -q -O - http://{name}", "--network", network).out == "hello\n"
        tare.docker("rm", "-f", container)
    finally:
        tare.clean()
        tare.docker("network", "rm", network)


def test_networks_are_joined_while_it_runs(tare: Engine) -> None:
    """`network connect` and `disconnect` work on its namespace, which belongs to its user namespace."""
    network = tare.unique("net")
    tare.docker("network", "create", network)
    try:
        container = start(tare, "--network", "none")
        assert sh(tare, container, "ls /sys/class/net").split() == ["lo"]
        container = start(tare)
        tare.docker("network", "connect", network, container)
        assert sh(tare, container, "ls /sys/class/net").split() == ["eth0", "eth1", "lo"]
        tare.docker("network", "disconnect", network, container)
        assert sh(tare, container, "ls /sys/class/net").split() == ["eth0", "lo"]
    finally:
        tare.clean()
        tare.docker("network", "rm", network)


def test_a_part_of_a_volume(tare: Engine) -> None:
    """`volume-subpath` is mapped, too, and a new volume gets what the image has at its place."""
    volume = tare.unique("volume")
    run(tare, "mkdir /etc/sub; touch /etc/sub/mine; ls -ln /etc/passwd", "-v", f"{volume}:/etc")
    mount = f"type=volume,src={volume},dst=/v,volume-subpath=sub"
    done = run(tare, "ls -ln /v/mine; touch /v/more", "--mount", mount)
    assert done.out.split()[2:4] == ["0", "0"]
    tare.docker("volume", "rm", volume)


def test_devices_terminal_and_temporary_files(tare: Engine) -> None:
    """/dev/null and its like work, mknod doesn't; tmpfs, /dev/shm and the working directory are the container's."""
    script = (
        "echo x > /dev/null; head -c 3 /dev/zero | wc -c; mknod /n c 1 3 && echo made; touch /t/x /dev/shm/x; "
        "ls -ldn /t /work /dev/shm | awk '{print $3}'; pwd"
    )
    done = run(tare, script, "--tmpfs", "/t", "-w", "/work", check=False)
    assert done.out.split() == ["3", "0", "0", "0", "/work"]


def test_limits_and_hardening_stay(tare: Engine) -> None:
    """Memory limit, masked and read-only paths, a read-only root and --init are as without a user namespace."""
    flags = ("--memory", "64m", "--pids-limit", "50", "--read-only", "--init", "--ulimit", "nofile=99:99")
    script = "touch /x; echo 1 > /proc/sys/kernel/sysrq; wc -c < /proc/keys; ulimit -n; tr '\\0' ' ' < /proc/1/cmdline"
    done = run(tare, script, *flags, check=False)
    assert "Read-only file system" in done.err and done.out.split()[:2] == ["0", "99"] and "tare-init" in done.out


@pytest.mark.parametrize(
    "flags, text",
    [
        (
            ("--privileged",),
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace "
            "when running privileged mode",
        ),
        (("--network", "host"), "cannot share the host's network namespace when user namespaces are enabled"),
        (("--pid", "host"), "cannot share the host PID namespace when user namespaces are enabled"),
        (("--ipc", "host"), "cannot share the host's IPC namespace when user namespaces are enabled"),
        (("--network", "container:box"), "is not supported by Tare yet"),
        (("--device", "/dev/null:/dev/mine"), "is not supported by Tare yet"),
    ],
)
def test_what_cannot_be_had_with_it_is_refused(tare: Engine, flags: tuple[str, ...], text: str) -> None:
    """With Docker's words where Docker has them; nothing is created."""
    before = tare.containers()
    done = run(tare, "true", *flags, check=False)
    assert done.code == 125 and text in done.err and tare.containers() == before
    mode = tare.create({"HostConfig": {"UsernsMode": "other"}})
    assert mode.status == 400 and "invalid user namespace mode" in mode.json["message"]


def test_others_may_join_it(tare: Engine) -> None:
    """A container of the host's user namespace may share its network and its processes, but not its memory."""
    name = tare.unique("donor")
    container = start(tare, "--name", name, "--ipc", "shareable")
    flags = [word for kind in ("network", "pid") for word in (f"--{kind}", f"container:{name}")]
    done = tare.docker("run", "--rm", *flags, tare.image, "sh", "-c", "ls /sys/class/net; ps")
    assert done.out.split()[:2] == ["eth0", "lo"] and "sleep 1000" in done.out
    refused = tare.docker("run", "--rm", "--ipc", f"container:{name}", tare.image, "true", check=False)
    assert f"failed to join IPC namespace: container {container}: it has a user namespace of its own" in refused.err


def test_copies_have_the_containers_ids(tare: Engine, tmp_path: Path) -> None:
    """`cp` out of and into a running container, and into a stopped one, sees the ids that the container sees."""
    container = start(tare)
    sh(tare, container, "mkdir /d; touch /d/f; chown 7:8 /d/f; chmod 4711 /d/f")
    out = subprocess.run(tare.argv("cp", f"{container}:/d", "-"), capture_output=True, timeout=100, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert {(entry.name.rstrip("/"), entry.uid, entry.gid) for entry in tar} == {("d", 0, 0), ("d/f", 7, 8)}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, owner in (("deep/er", 0), ("deep/er/file", 1234)):
            entry = tarfile.TarInfo(name)
            entry.uid = entry.gid = owner
            entry.type = tarfile.DIRTYPE if not owner else tarfile.REGTYPE
            entry.mode = 0o755
            tar.addfile(entry)
    for _ in range(2):
        tare.docker("cp", "-", f"{container}:/tmp", input=data.getvalue())
        assert "1234     1234" in tare.docker("exec", container, "ls", "-ln", "/tmp/deep/er").out
        tare.docker("stop", "-t", "0", container)
        tare.docker("cp", "-", f"{container}:/var", input=data.getvalue())
        tare.docker("start", container)
        assert "1234     1234" in tare.docker("exec", container, "ls", "-ln", "/var/deep/er").out
    entry = tarfile.TarInfo("x")
    entry.uid = IDS
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(entry)
    refused = tare.docker("cp", "-", f"{container}:/tmp", input=data.getvalue(), check=False)
    assert refused.code != 0 and "does not exist in the container's user namespace" in refused.err


def test_mounts_added_while_it_runs(tare: Engine, tmp_path: Path) -> None:
    """They are mapped like those of the start, and go again."""
    container = start(tare)
    (tmp_path / "given").write_text("x\n")
    tare.tare_cli("update", "--mount-add", f"type=bind,src={tmp_path},dst=/new/place", container)
    tare.tare_cli("update", "--mount-add", "type=tmpfs,dst=/new/tmp", container)
    sh(tare, container, "cat /new/place/given; touch /new/place/mine /new/tmp/x")
    assert os.stat(tmp_path / "mine").st_uid == 0
    assert sh(tare, container, "ls -ln /new/place/given; ls -ldn /new").split()[2:4] == ["0", "0"]
    tare.tare_cli("update", "--mount-rm", "/new/place", container)
    tare.tare_cli("update", "--mount-rm", "/new/tmp", container)
    assert sh(tare, container, "ls /new/place /new/tmp").split() == ["/new/place:", "/new/tmp:"]


def test_file_capabilities(tare: Engine) -> None:
    """Capabilities of a file of the image count inside, and are stored as the image had them."""
    capabilities = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)  # cap_net_raw+ep, revision 2
    container = start(tare)
    sh(tare, container, "mkdir /able; cp /bin/busybox /able/grep")
    upper = Path(tare.inspect(container)["GraphDriver"]["Data"]["UpperDir"])
    tare.docker("stop", "-t", "0", container)
    os.setxattr(upper / "able/grep", "security.capability", capabilities)
    tare.docker("start", container)
    effective = sh(tare, container, "/able/grep CapEff /proc/self/status", "--user", "1000").split()[1]
    assert int(effective, 16) == 1 << 13
    assert os.getxattr(upper / "able/grep", "security.capability") == capabilities


def test_survives_a_killed_engine(daemon: own.Tared) -> None:
    """The container runs on with its ids, exec and cp work, its ids stay its own, and it ends without a trace."""
    daemon.start()
    tare = daemon.engine
    tare.prepare()
    container = start(tare)
    pid = pid_of(tare, container)
    daemon.kill9(launcher=True)
    daemon.start()
    assert pid_of(tare, container) == pid
    assert sh(tare, container, "id -u; cat /proc/self/uid_map").split()[:2] == ["0", "0"]
    assert first_id(pid_of(tare, start(tare))) != first_id(pid)
    before = first_id(pid)
    tare.docker("restart", "-t", "0", container)
    assert first_id(pid_of(tare, container)) == before
    tare.docker("cp", f"{container}:/etc/hosts", "-")


def test_a_start_that_is_cut_short(daemon: own.Tared, tmp_path: Path) -> None:
    """Wherever a process of the start fails or dies: it is said, nothing stays, and the next start works."""
    daemon.make_armable()
    daemon.start()
    tare = daemon.engine
    tare.prepare()
    volume = ("-v", f"{tmp_path}:/b")
    run(tare, "true", *volume)
    steps = ("clone", "overlay", "isolate", "attach_root", "bind", "filesystem", "pivot", "execute")
    for point in ("runtime.init.started", "runtime.cgroup.create", *(f"runtime.step.{step}" for step in steps)):
        for action in ("", ":kill"):
            daemon.arm(f"{point}{action}")
            done = run(tare, "true", *volume, check=False)
            assert done.code not in (0, None) and done.err, (point, action)
            daemon.arm("")
            assert run(tare, "id -u", *volume).out == "0\n", (point, action)
    wait_until(lambda: not tare.containers(), "all are removed", 10)


def test_a_remapped_engine(daemon: own.Tared, tmp_path: Path) -> None:
    """--userns-remap gives all containers one range but those with `--userns host`; info tells."""
    daemon.args += ["--userns-remap", "default"]
    daemon.start()
    tare = daemon.engine
    tare.prepare()
    assert "name=userns" in tare.docker("info", "-f", "{{json .SecurityOptions}}").out
    one, other = tare.start(flags=["-v", f"{tmp_path}:/b"]), tare.start()
    assert first_id(pid_of(tare, one)) == first_id(pid_of(tare, other)) > 0
    assert first_id(pid_of(tare, start(tare))) not in (0, first_id(pid_of(tare, one)))
    sh(tare, one, "touch /b/mine")
    assert os.stat(tmp_path / "mine").st_uid == 0
    joined = tare.start(flags=["--network", f"container:{one}"])
    assert sh(tare, joined, "ls /sys/class/net; id -u").split() == ["eth0", "lo", "0"]
    assert first_id(pid_of(tare, joined)) == first_id(pid_of(tare, one))
    assert "0% packet loss" in sh(tare, joined, "ping -c 1 -W 2 127.0.0.1")
    host = tare.start(flags=["--userns", "host", "--privileged"])
    foreign = tare.docker("run", "--rm", "--network", f"container:{host}", tare.image, "true", check=False)
    assert foreign.code == 125 and "it has another user namespace" in foreign.err
    assert os.stat(f"/proc/{pid_of(tare, host)}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino
    refused = tare.docker("run", "--rm", "--privileged", tare.image, "true", check=False)
    assert refused.code == 125 and "privileged mode is incompatible with user namespaces" in refused.err
    data = json.loads(tare.docker("inspect", one).out)[0]
    assert data["HostConfig"]["UsernsMode"] == ""


def test_two_remapped_engines_have_different_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """`default` is a range that the engine's id chooses, the same at each start; lines of subuid(5) are heeded."""
    lines: list[tuple[str, int, int]] = []
    monkeypatch.setattr(user_namespaces, "subordinate", lambda kind: lines)
    engines = [f"{number:064x}" for number in range(20)]
    found = [user_namespaces.remapped_range("default", engine) for engine in engines]
    assert found == [user_namespaces.remapped_range("default", engine) for engine in engines]
    firsts = {ids.uid for ids in found if ids is not None}
    assert len(firsts) == 20
    assert all(first % 65536 == 0 and 0x70000000 <= first < 0x7FFF0000 for first in firsts)
    lines.append(("somebody", min(firsts), 65536))
    other = user_namespaces.remapped_range("default", engines[[ids and ids.uid for ids in found].index(min(firsts))])
    assert other is not None and other.uid not in (min(firsts), 0)
    lines.append(("dockremap", 200000, 65536))
    assert user_namespaces.remapped_range("default", engines[0]) == IdRange(uid=200000, gid=200000)


def test_remap_to_a_user_without_ids_is_refused(daemon: own.Tared) -> None:
    """The engine doesn't start with ids that nobody gave it."""
    daemon.args += ["--userns-remap", "nobody:nogroup"]
    daemon.start(wait=False)
    assert daemon.wait_dead() != 0
    assert "subordinate ids found for nobody in /etc/subuid" in daemon.log_tail()
