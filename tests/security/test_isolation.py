"""What a default container can see and do of the host: nothing; looked at from inside, on both engines."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engine import Engine
from support.syscall_program import IS_POSSIBLE, call, call_i386

DEFAULT_CAPABILITIES = 0x00000000A80425FB
MASKED_FILES = ("/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats")
MASKED_FOLDERS = ("/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware")
NEWER_MASKED = ("/proc/interrupts", "/sys/devices/virtual/powercap")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@pytest.fixture(scope="module")
def inside(any_engine: Engine) -> Iterator[str]:
    """One default container, looked at by many tests."""
    yield any_engine.start(flags=["--hostname", "inside"])
    any_engine.clean()


def sh(engine: Engine, container: str, script: str, *flags: str) -> str:
    """What a script prints inside; its exit code doesn't count."""
    result = engine.docker("exec", *flags, container, "sh", "-c", script, check=False)
    return result.out + result.err


def status(engine: Engine, container: str, field: str, pid: str = "1") -> str:
    """A field of /proc/<pid>/status."""
    return sh(engine, container, f"grep ^{field}: /proc/{pid}/status | cut -f2").strip()


def test_no_process_of_the_host(any_engine: Engine, inside: str) -> None:
    """Only the container's own processes are in /proc; pid 1 is the program."""
    pids = sh(any_engine, inside, "ls /proc | grep -c '^[0-9]'; tr '\\0' ' ' < /proc/1/cmdline").splitlines()
    assert int(pids[0]) <= 4 and pids[1].strip() == "sleep 1000"


def test_no_link_of_the_host(any_engine: Engine, inside: str) -> None:
    """Only lo and eth0 exist; the container's eth0 isn't the host's."""
    assert sh(any_engine, inside, "ls /sys/class/net").split() == ["eth0", "lo"]
    host = Path("/sys/class/net/eth0/address")
    if host.exists():
        assert sh(any_engine, inside, "cat /sys/class/net/eth0/address").strip() != host.read_text().strip()


def test_no_mount_of_the_host(any_engine: Engine, inside: str) -> None:
    """The container's mount table has its root, the usual kernel file systems and three files, and no host path."""
    lines = sh(any_engine, inside, "cat /proc/self/mounts").splitlines()
    points = [line.split()[1] for line in lines]
    assert points[0] == "/" and lines[0].split()[2] == "overlay"
    usual = ("/proc", "/dev", "/sys", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts")
    assert all(point == "/" or point.startswith(usual) for point in points)
    assert not {"/run", "/tmp", "/home", "/boot", "/var"} & set(points)


def test_own_host_name(any_engine: Engine, inside: str) -> None:
    """The host's name is nowhere; it can't be changed without a capability."""
    assert (
        sh(any_engine, inside, "hostname; cat /proc/sys/kernel/hostname; cat /etc/hostname").split() == ["inside"] * 3
    )
    name = socket.gethostname()
    assert "not permitted" in sh(any_engine, inside, "hostname other") and socket.gethostname() == name


@pytest.mark.parametrize("kind", ["mnt", "net", "uts", "ipc", "pid"])
def test_own_namespaces(any_engine: Engine, inside: str, kind: str) -> None:
    """Each namespace is another than the host's."""
    assert sh(any_engine, inside, f"readlink /proc/1/ns/{kind}").strip() != os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.parametrize("pid", ["1", "self"])
def test_capabilities_and_filters(any_engine: Engine, inside: str, pid: str) -> None:
    """CVE-2022-24769, CVE-2022-29162: inheritable and ambient sets are empty, for pid 1 and for exec; the rest is
    Docker's fourteen; the seccomp filter is on; no new privileges come only when asked for."""
    assert int(status(any_engine, inside, "CapInh", pid), 16) == 0
    assert int(status(any_engine, inside, "CapAmb", pid), 16) == 0
    for field in ("CapBnd", "CapPrm", "CapEff"):
        assert int(status(any_engine, inside, field, pid), 16) == DEFAULT_CAPABILITIES
    assert status(any_engine, inside, "Seccomp", pid) == "2"
    assert status(any_engine, inside, "NoNewPrivs", pid) == "0"


def test_user_has_no_capability(any_engine: Engine, inside: str) -> None:
    """A process of another user has an empty effective set, by run and by exec."""
    shown = sh(any_engine, inside, "grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status | cut -f2", "-u", "web").split()
    assert [int(word, 16) for word in shown] == [0, 0, 0, 0]
    run = ["run", "--rm", "--user", "web", any_engine.image, "grep", "CapEff", "/proc/self/status"]
    assert int(any_engine.docker(*run).out.split()[1], 16) == 0


def test_no_descriptor_above_2(any_engine: Engine, inside: str) -> None:
    """CVE-2024-21626, CVE-2015-3627: pid 1 and an exec'd program hold descriptors 0 to 2 only."""
    assert sh(any_engine, inside, "ls /proc/1/fd").split() == ["0", "1", "2"]
    # ls itself opens the folder as 3
    look = ["ls", "/proc/self/fd"]
    assert any_engine.docker("exec", inside, *look).out.split() == ["0", "1", "2", "3"]
    for flags in (["-t"], ["-i"], ["--init"]):
        assert any_engine.docker("run", "--rm", *flags, any_engine.image, *look).out.split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize("path", READ_ONLY)
def test_read_only_paths(any_engine: Engine, inside: str, path: str) -> None:
    """CVE-2015-3630: each read-only path is there and can't be written."""
    line = sh(any_engine, inside, f"grep ' {path} ' /proc/mounts").split()
    if not Path(path).exists():
        pytest.skip(f"Docker differs here: the kernel has no {path}")
    assert line and "ro" in line[3].split(",")


def test_kernel_settings_cannot_be_written(any_engine: Engine, inside: str) -> None:
    """/proc/sys, /proc/sysrq-trigger and /sys refuse a write by the container's root."""
    for path in (
        "/proc/sys/kernel/domainname",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/mm/ksm/run",
    ):
        said = sh(any_engine, inside, f"echo x > {path}")
        assert "Read-only file system" in said or "nonexistent directory" in said, said


def test_masked_files_are_empty(any_engine: Engine, inside: str) -> None:
    """CVE-2018-10892 and kin: masked files read as empty, masked folders hold nothing and are read-only."""
    for path in MASKED_FILES:
        assert sh(any_engine, inside, f"test ! -e {path} || wc -c < {path}").strip() in ("", "0"), path
    for path in MASKED_FOLDERS:
        assert sh(any_engine, inside, f"test ! -e {path} || ls -A {path}").strip() == "", path
        assert "made" not in sh(any_engine, inside, f"test -e {path} && touch {path}/x 2>/dev/null && echo made")


def test_newer_masked_paths(tare: Engine) -> None:
    """GHSA-6fw5-f8r9-fgfm, GHSA-jq35-85cj-fj4p: interrupts, thermal throttling and power figures are masked."""
    container = tare.start()
    assert sh(tare, container, "wc -c < /proc/interrupts").strip() == "0"
    assert (
        sh(tare, container, "test ! -e /sys/devices/virtual/powercap || ls -A /sys/devices/virtual/powercap").strip()
        == ""
    )
    assert sh(tare, container, "cat /sys/devices/system/cpu/cpu*/thermal_throttle/* 2>/dev/null").strip() == ""
    paths = tare.inspect(container)["HostConfig"]["MaskedPaths"]
    assert set(MASKED_FOLDERS) | set(NEWER_MASKED) | {"/proc/kcore"} <= set(paths)


def test_inspect_tells_masked_and_read_only_paths(any_engine: Engine, inside: str) -> None:
    """inspect lists what is masked and what is read-only."""
    host = any_engine.inspect(inside)["HostConfig"]
    assert set(READ_ONLY) <= set(host["ReadonlyPaths"])
    assert {"/proc/kcore", "/proc/acpi", "/sys/firmware"} <= set(host["MaskedPaths"])


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("mount", "mkdir -p /m && mount -t tmpfs none /m"),
        ("bind", "mkdir -p /m && mount -o bind /etc /m"),
        ("remount", "mount -o remount,rw /proc/sys"),
        ("umount", "umount /proc/sys"),
        ("unshare user", "unshare -U true"),
        ("unshare mount", "unshare -m true"),
        ("CVE-2022-0492", "unshare -UrmC sh -c 'mount -t cgroup -o memory none /mnt'"),
        ("nsenter", "nsenter -t 1 -m -u true"),
        ("module", "echo > /tmp/m.ko; insmod /tmp/m.ko"),
        ("chroot to proc", "chroot /proc/1/root/../../../../../../nonexistent true"),
        ("swap", "swapon /etc/passwd"),
        ("syslog", "dmesg"),
        ("reboot", "reboot -f"),
        ("raw memory", "dd if=/dev/mem of=/dev/null bs=1 count=1"),
        ("link down", "ip link set lo down"),
        ("route", "ip route add 1.2.3.0/24 dev lo"),
    ],
)
def test_refused_inside(any_engine: Engine, inside: str, name: str, script: str) -> None:
    """The container's root may not do this."""
    result = any_engine.docker("exec", inside, "sh", "-c", script, check=False)
    assert result.code != 0, result
    assert any_engine.inspect(inside)["State"]["Running"]


@pytest.mark.parametrize("node", ["c 1 1", "b 254 0", "b 259 0", "c 1 11", "c 10 229"])
def test_device_nodes_are_of_no_use(any_engine: Engine, inside: str, node: str) -> None:
    """A device node can be made (CAP_MKNOD is among the defaults) but not opened."""
    said = sh(any_engine, inside, f"rm -f /tmp/node; mknod /tmp/node {node} && head -c 1 /tmp/node")
    assert "Operation not permitted" in said, said


def test_device_list(any_engine: Engine, inside: str) -> None:
    """/dev has the usual nodes and links and nothing of the host's."""
    names = set(sh(any_engine, inside, "ls /dev").split())
    wanted = set("null zero full random urandom tty fd stdin stdout stderr ptmx pts shm mqueue".split())
    assert wanted <= names <= wanted | {"core", "console"}
    nodes = sh(
        any_engine, inside, "stat -c '%n %t %T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty"
    )
    assert nodes.split("\n")[:3] == ["/dev/null 1 3 666", "/dev/zero 1 5 666", "/dev/full 1 7 666"]
    links = sh(any_engine, inside, "for l in fd stdin ptmx; do readlink /dev/$l; done").split()
    assert links == ["/proc/self/fd", "/proc/self/fd/0", "pts/ptmx"]


def test_cgroups_are_read_only(any_engine: Engine, inside: str) -> None:
    """CVE-2022-0492: no cgroup file can be written, no release agent set, no cgroup made."""
    for path in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup"):
        said = sh(any_engine, inside, f"test -d {path} && mkdir {path}/x")
        assert "Read-only file system" in said or not said.strip(), said
    script = "echo 1 > $(ls /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | head -1)"
    assert "Read-only" in sh(any_engine, inside, script)


EPERM, ENOSYS = 1, 38
# Calls that the default profile refuses to the container's root, with arguments that do nothing where they get through.
REFUSED_CALLS = {
    "AF_ALG (CVE-2026-31431)": (call(41, 38, 5, 0), False),
    "AF_VSOCK": (call(41, 40, 1, 0), False),
    "add_key": (call(248, 0, 0, 0, 0, 0), True),
    "keyctl": (call(250, 0, 0, 0, 0, 0), True),
    "bpf": (call(321, 0, 0, 0), True),
    "perf_event_open": (call(298, 0, 0, -1, -1, 0), True),
    "userfaultfd": (call(323, 0), True),
    "io_uring_setup": (call(425, 1, 0), False),
    "open_by_handle_at": (call(304, -1, 0, 0), True),
    "kexec_load": (call(246, 0, 0, 0, 0), True),
    "init_module": (call(175, 0, 0, 0), True),
    "mount": (call(165, 0, 0, 0, 0, 0), True),
    "open_tree": (call(428, -100, 0, 1), True),
    "move_mount": (call(429, -1, 0, -1, 0, 0), True),
    "fsopen": (call(430, 0, 0), True),
    "pivot_root": (call(155, 0, 0), True),
    "setns": (call(308, -1, 0), True),
    "unshare of a user namespace": (call(272, 0x10000000), True),
    "clone into a user namespace": (call(56, 0x10000000 | 17, 0, 0, 0, 0), True),
    "clone3 (must look absent)": (call(435, 0, 0), True),
    "personality of another kind": (call(135, 0x0040000), True),
    "iopl": (call(172, 3), True),
    "swapon": (call(167, 0, 0), True),
    "vm86 by int 0x80": (call_i386(166, 0, 0), False),
}


@pytest.mark.skipif(not IS_POSSIBLE, reason="this machine is no x86-64")
@pytest.mark.parametrize("name", REFUSED_CALLS)
def test_filtered_calls(any_engine: Engine, inside: str, name: str) -> None:
    """The profile's refusals are the kernel's: the call itself, made inside by a program of a few bytes, fails."""
    program, in_old_docker_too = REFUSED_CALLS[name]
    if not any_engine.is_tare and not in_old_docker_too:
        pytest.skip("Docker differs here: its profile of 2020 let this through")
    script = "cat > /tmp/call && chmod 755 /tmp/call && /tmp/call"
    result = any_engine.docker("exec", "-i", inside, "sh", "-c", script, input=program, check=False)
    assert result.code == (ENOSYS if "absent" in name else EPERM), result


@pytest.mark.skipif(not IS_POSSIBLE, reason="this machine is no x86-64")
def test_harmless_calls_pass(any_engine: Engine, inside: str) -> None:
    """getpid and a TCP socket, made the same way, succeed: the refusals above are not an accident."""
    script = "cat > /tmp/call && chmod 755 /tmp/call && /tmp/call"
    for program in (call(39), call(41, 2, 1, 0), call_i386(20), call_i386(102, 1, table=(2, 1, 0))):
        assert any_engine.docker("exec", "-i", inside, "sh", "-c", script, input=program, check=False).code == 0
