"""What a container sees and may do, with Docker's default settings."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from bundles import CAPABILITIES, MASKED, Machine, changed, with_mounts

from tare.kernel.capabilities import NUMBERS
from tare.kernel.libc import syscall
from tare.kernel.process import default_signal
from tare.oci.runtime_spec import (
    Capabilities,
    IDMapping,
    LinuxDeviceCgroup,
    LinuxNamespace,
    LinuxResources,
    LinuxTimeOffset,
    LinuxTimeOffsets,
    Mount,
    User,
)
from tare.runtime.create import StartFailed

DEFAULT_BITS = f"{sum(1 << NUMBERS[name] for name in CAPABILITIES):016x}"


def status_fields(output: str) -> dict[str, str]:
    """The lines of /proc/self/status."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in output.splitlines())}


def test_a_container_has_its_own_names_and_sees_no_host_process(machine: Machine) -> None:
    """Hostname, processes, links and IPC are the container's own."""
    code, output = machine.run(
        machine.shell("hostname; echo $$; ls /proc | grep -c '^[0-9]'; ls /sys/class/net; ls /dev/mqueue")
    )
    assert code == 0
    lines = output.split()
    assert lines[:2] == ["box", "1"]
    assert int(lines[2]) <= 4  # sh, ls, grep
    assert lines[3:] == ["lo"]


def test_only_the_containers_mounts_are_in_its_mount_table(machine: Machine) -> None:
    """No mount of the host is left, not even detached ones."""
    _, output = machine.run(machine.spec("cat", "/proc/self/mountinfo"))
    roots = [line.split()[4] for line in output.splitlines()]
    assert roots[0] == "/"
    assert all(root == "/" or root.startswith(("/proc", "/dev", "/sys")) for root in roots)


@pytest.mark.parametrize(
    "attempt",
    [
        "echo x > /proc/sys/kernel/hostname",
        "echo b > /proc/sysrq-trigger",
        "mount -t tmpfs x /tmp",
        "mount -o remount,rw /sys",
        "umount /proc/sys",
        "insmod /bin/busybox",
        "mknod /tmp/vda b 254 0 && head -c 1 /tmp/vda",
        "head -c 1 /proc/kcore | grep .",
        "cat /proc/keys | grep .",
        "ls /sys/firmware | grep .",
        "mkdir /sys/fs/cgroup/memory/x",
        "mkdir /sys/fs/cgroup/x",
        "chmod 0 /proc/keys",
        "unshare -Ur true",
        "date -s 2000-01-01; [ $(date +%Y) = 2000 ]",
        "ip link add dummy0 type dummy",
    ],
)
def test_a_default_container_may_not(machine: Machine, attempt: str) -> None:
    """Each of these fails inside a container with Docker's defaults."""
    code, output = machine.run(changed(machine.shell(attempt), linux={"resources": deny_devices()}))
    assert code != 0, output


def deny_devices() -> LinuxResources:
    """Docker's device rules, in short."""
    return LinuxResources(devices=(LinuxDeviceCgroup(allow=False, access="rwm"),))


def test_masked_paths_are_empty(machine: Machine) -> None:
    """Each masked path that exists reads as nothing."""
    tests = "; ".join(f"[ ! -e {p} ] || {{ [ -d {p} ] && ls -A {p} || cat {p}; }}" for p in MASKED)
    assert machine.run(machine.shell(tests)) == (0, "")


def test_an_unprivileged_container_has_exactly_the_capabilities_asked_for(machine: Machine) -> None:
    """CVE-2022-24769: inheritable and ambient sets are empty; the others are Docker's fourteen."""
    fields = status_fields(machine.run(machine.spec("cat", "/proc/self/status"))[1])
    assert [fields["Cap" + name] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [
        "0" * 16,
        DEFAULT_BITS,
        DEFAULT_BITS,
        DEFAULT_BITS,
        "0" * 16,
    ]
    assert (fields["Seccomp"], fields["NoNewPrivs"], fields["Groups"]) == ("2", "0", "")


def test_all_five_capability_sets_are_as_the_spec_says(machine: Machine) -> None:
    """A user who isn't root gets ambient capabilities where the spec gives them."""
    bounding = ("CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW")
    pair = ("CAP_KILL", "CAP_NET_RAW")
    sets = Capabilities(bounding=bounding, effective=pair, inheritable=pair, permitted=pair, ambient=("CAP_KILL",))
    spec = changed(machine.spec("cat", "/proc/self/status"), process={"capabilities": sets, "user": User(1234, 55)})
    fields = status_fields(machine.run(spec)[1])
    bit = {name: 1 << NUMBERS[name] for name in bounding}
    assert int(fields["CapBnd"], 16) == sum(bit.values())
    assert int(fields["CapInh"], 16) == bit["CAP_KILL"] | bit["CAP_NET_RAW"]
    assert int(fields["CapAmb"], 16) == int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == bit["CAP_KILL"]
    assert fields["Uid"].split() == ["1234"] * 4 and fields["Gid"].split() == ["55"] * 4


def test_no_new_privileges_and_filter_go_together(machine: Machine) -> None:
    """With no_new_privs the filter is loaded too, and without capabilities there are none."""
    spec = changed(machine.spec("cat", "/proc/self/status"), process={"no_new_privileges": True, "capabilities": None})
    fields = status_fields(machine.run(spec)[1])
    assert (fields["NoNewPrivs"], fields["Seccomp"], fields["CapPrm"], fields["CapBnd"]) == (
        "1",
        "2",
        "0" * 16,
        "0" * 16,
    )


def test_the_program_has_three_descriptors_and_default_signals(machine: Machine) -> None:
    """CVE-2024-21626: nothing above 2; and nothing stays ignored that Python ignores, or the posix_spawn of musl."""
    leak_fd = os.open("/", os.O_RDONLY)
    os.set_inheritable(leak_fd, True)
    # SIG_IGN, and then SIG_DFL, for 34: signal.signal refuses it under musl.
    syscall("rt_sigaction", 34, (1).to_bytes(32, sys.byteorder), None, 8)
    try:
        _, output = machine.run(machine.shell("echo /proc/self/fd/*"))
        signals = machine.run(machine.spec("grep", "-E", "SigIgn|SigBlk", "/proc/self/status"))[1].split()
    finally:
        default_signal(34)
        os.close(leak_fd)
    words = output.split()
    assert words[:3] == ["/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]
    assert signals[1::2] == ["0" * 16] * 2
    # 3 is the shell's own, opened to expand the pattern.
    assert "/proc/self/fd/4" not in output


def test_a_read_only_root_keeps_its_mounts_writable(machine: Machine) -> None:
    """`--read-only`: the root can't be written, /dev/shm can."""
    spec = machine.shell("touch /x && exit 1; touch /dev/shm/x")
    assert spec.root is not None

    spec = changed(spec, root=msgspec.structs.replace(spec.root, readonly=True))
    assert machine.run(spec)[0] == 0


def test_bind_mounts_are_as_writable_as_they_say(machine: Machine, tmp_path: Path) -> None:
    """A read-only bind refuses writes, a writable one doesn't; missing targets are made; files too."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("text")
    spec = with_mounts(
        machine.shell("cat /a/b/file /etc/one; touch /a/b/x && exit 1; touch /rw/y; echo more >> /etc/one"),
        Mount("/a/b", "bind", str(volume), ("rbind", "ro")),
        Mount("/rw", "bind", str(volume), ("rbind", "rw")),
        Mount("/etc/one", "bind", str(volume / "file"), ("bind",)),
    )
    code, output = machine.run(spec)
    assert code == 0 and output.startswith("texttext")
    assert (volume / "y").exists() and (volume / "file").read_text() == "textmore\n"


def test_recursive_read_only_reaches_the_mounts_below(machine: Machine, tmp_path: Path) -> None:
    """`rro` makes submounts read-only too, `ro` only the top one."""

    volume = tmp_path / "volume"
    (volume / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tare-test", volume / "below"], check=True)
    try:
        for option, code in (("ro", 0), ("rro", 1)):
            spec = with_mounts(machine.shell("touch /v/below/x"), Mount("/v", "bind", str(volume), ("rbind", option)))
            assert machine.run(spec)[0] == code, option
    finally:
        subprocess.run(["umount", volume / "below"], check=True)


def test_a_user_namespace_maps_root(machine: Machine) -> None:
    """Root inside is nobody outside: it can't own host files, and its limits were set from outside."""
    mapping = (IDMapping(0, 200000, 65536),)
    (machine.rootfs / "tmp").chmod(0o1777)
    machine.directory.chmod(0o755)
    spec = changed(
        machine.shell(
            "id -u; cat /proc/self/uid_map; touch /tmp/mine; cat /proc/self/oom_score_adj; mount -t tmpfs x /mnt"
        ),
        process={"oom_score_adj": 77},
        linux={
            "uid_mappings": mapping,
            "gid_mappings": mapping,
            "namespaces": tuple(LinuxNamespace(n) for n in ("user", "mount", "network", "uts", "pid", "ipc")),  # type: ignore[arg-type]
        },
    )
    code, output = machine.run(spec)
    assert code != 0  # mount is still refused
    assert output.split()[:5] == ["0", "0", "200000", "65536", "77"]
    assert (machine.rootfs / "tmp/mine").stat().st_uid == 200000


@pytest.mark.parametrize("how", ["idmap", "mappings"])
def test_a_mapped_mount_keeps_its_owners(machine: Machine, tmp_path: Path, how: str) -> None:
    """An OCI spec's `idmap`, or the same ids given again: root inside is root there; without it nobody is."""
    mapping = (IDMapping(0, 200000, 65536),)
    machine.directory.chmod(0o755)
    for name in ("mapped", "plain"):
        (machine.rootfs / name).mkdir()
    (tmp_path / "secret").write_text("mine\n")
    (tmp_path / "secret").chmod(0o600)
    words = ("rbind", "idmap") if how == "idmap" else ("rbind",)
    given = {} if how == "idmap" else {"uid_mappings": mapping, "gid_mappings": mapping}
    spec = changed(
        machine.shell("cat /mapped/secret; touch /mapped/mine; cat /plain/secret; ls -n /plain | tail -1"),
        linux={
            "uid_mappings": mapping,
            "gid_mappings": mapping,
            "namespaces": tuple(LinuxNamespace(n) for n in ("user", "mount", "network", "uts", "pid", "ipc")),  # type: ignore[arg-type]
        },
    )
    mapped = Mount("/mapped", "bind", str(tmp_path), words, **given)
    code, output = machine.run(with_mounts(spec, mapped, Mount("/plain", "bind", str(tmp_path), ("rbind",))))
    assert code == 0 and output.startswith("mine\n") and output.count("mine\n") == 1 and " 65534 " in output
    assert (tmp_path / "mine").stat().st_uid == 0


def test_what_fails_in_a_user_namespace_is_said(machine: Machine, tmp_path: Path) -> None:
    """Not that there is no way back from it."""
    mapping = (IDMapping(0, 200000, 65536),)
    machine.directory.chmod(0o755)
    linux = {
        "uid_mappings": mapping,
        "gid_mappings": mapping,
        "namespaces": tuple(LinuxNamespace(n) for n in ("user", "mount", "network", "uts", "pid", "ipc")),  # type: ignore[arg-type]
    }
    spec = changed(machine.spec("true"), linux=linux)
    with pytest.raises(StartFailed, match="mkdir /missing: permission denied"):
        machine.run(with_mounts(spec, Mount("/missing", "bind", str(tmp_path), ("rbind",))))


def test_a_container_without_pid_and_network_namespace_shares_the_hosts(machine: Machine) -> None:
    """`--pid host --network host`."""
    spec = changed(
        machine.shell("readlink /proc/self/ns/pid; readlink /proc/self/ns/net"),
        linux={"namespaces": tuple(LinuxNamespace(n) for n in ("mount", "uts", "ipc"))},  # type: ignore[arg-type]
    )
    assert machine.run(spec)[1].split() == [os.readlink("/proc/self/ns/pid"), os.readlink("/proc/self/ns/net")]


def test_a_time_namespace_has_its_own_clocks(machine: Machine) -> None:
    """With the offsets of the spec; ours are left alone, also when an offset is refused."""
    if not Path("/proc/self/ns/time").exists():
        pytest.skip("the kernel has no time namespaces")
    without_other_threads(lambda: _own_clocks(machine))


def _own_clocks(machine: Machine) -> None:
    kinds = tuple(LinuxNamespace(n) for n in ("mount", "uts", "pid", "time"))  # type: ignore[arg-type]
    own = os.readlink("/proc/self/ns/time_for_children")
    day = LinuxTimeOffset(10**8)
    spec = changed(
        machine.shell("cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time"),
        linux={"namespaces": kinds, "time_offsets": LinuxTimeOffsets(boottime=day)},
    )
    uptime, namespace = machine.run(spec)[1].split()
    assert int(uptime) > 10**8 and namespace != own
    refused = LinuxTimeOffsets(boottime=LinuxTimeOffset(-(10**12)))
    with pytest.raises(StartFailed, match="timens_offsets"):
        machine.run(changed(spec, linux={"time_offsets": refused}))
    assert os.readlink("/proc/self/ns/time_for_children") == own == os.readlink("/proc/self/ns/time")
    assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")


def without_other_threads(action: Callable[[], None]) -> None:
    """Runs action in a fork: a process with threads may not move between time namespaces (setns(2), EUSERS)."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_namespaces_of_another_container_can_be_joined(machine: Machine, tmp_path: Path) -> None:
    """`--pid container:x --network container:x --ipc container:x`."""
    other = Machine(tmp_path / "other")
    with machine.running() as running:
        joined = ("pid", "network", "ipc")
        files = {"pid": "pid", "network": "net", "ipc": "ipc"}
        spec = changed(
            other.shell("for n in pid net ipc; do readlink /proc/self/ns/$n; done; ls /proc | grep -c '^1$'"),
            linux={
                "namespaces": (
                    LinuxNamespace("mount"),
                    LinuxNamespace("uts"),
                    *(LinuxNamespace(n, f"/proc/{running.pid}/ns/{files[n]}") for n in joined),  # type: ignore[arg-type]
                )
            },
        )
        expected = [os.readlink(f"/proc/{running.pid}/ns/{files[n]}") for n in joined]
        assert other.run(spec)[1].split() == [*expected, "1"]


@pytest.mark.parametrize("path", ["proc", "sys"])
def test_proc_and_sys_are_not_mounted_on_a_symlink(machine: Machine, path: str) -> None:
    """CVE-2019-19921, CVE-2023-27561, CVE-2023-28642."""
    (machine.rootfs / path).rmdir()
    (machine.rootfs / path).symlink_to("/tmp")
    with pytest.raises(StartFailed, match="must be mounted on ordinary directory"):
        machine.run(machine.spec("true"))


@pytest.mark.parametrize("target", ["/proc", "/proc/self/attr", "/proc/1/attr", "/lure"])
def test_nothing_is_mounted_over_proc(machine: Machine, tmp_path: Path, target: str) -> None:
    """CVE-2019-16884: neither by name nor through a link of the image."""
    (machine.rootfs / "lure").symlink_to("/proc/1")
    (tmp_path / "fake").mkdir()
    spec = with_mounts(machine.spec("true"), Mount(target, "bind", str(tmp_path / "fake"), ("rbind",)))
    with pytest.raises(StartFailed, match=r"cannot be mounted because it is|ordinary directory|not a directory"):
        machine.run(spec)


@pytest.mark.parametrize("relative", [False, True])
def test_a_dev_symlink_of_the_image_changes_nothing_on_the_host(
    machine: Machine, tmp_path: Path, relative: bool
) -> None:
    """CVE-2026-41579, GHSA-vp62-88p7-qqf5: targets are made inside the root, wherever links point."""
    host = tmp_path / "host"
    host.mkdir()
    (machine.rootfs / "dev").rmdir()
    (machine.rootfs / "dev").symlink_to(f"../../../../../../../../{host}" if relative else host)
    (machine.rootfs / "made").symlink_to(host / "missing")
    spec = with_mounts(machine.spec("true"), Mount("/made", "bind", str(machine.rootfs / "etc"), ("rbind",)))
    assert machine.run(spec)[0] == 0
    assert list(host.iterdir()) == []


def test_a_dev_null_of_the_image_plays_no_part_in_masks(machine: Machine) -> None:
    """CVE-2025-31133: with the image's own /dev, masks still are the null device."""
    (machine.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")

    spec = machine.shell("stat -c %t:%T /proc/keys")
    mounts = tuple(m for m in spec.mounts or () if not m.destination.startswith("/dev"))
    spec = msgspec.structs.replace(
        spec, mounts=(*mounts, Mount("/dev", "bind", str(machine.rootfs / "dev"), ("rbind",)))
    )
    assert machine.run(spec) == (0, "1:3\n")


def test_the_interpreter_can_not_be_written_from_inside(machine: Machine) -> None:
    """CVE-2019-5736: a program /proc/self/exe runs nothing of the host's that could be opened for writing."""

    # chmod, since an open for writing would fail anyway as long as somebody executes the file.
    script = "from tare.runtime.interpreter import *; protect_interpreter(); print(is_protected());"
    script += "import os; os.chmod('/proc/self/exe', 0o755)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "True\n" and "Read-only file system" in result.stderr
