"""One more process in a running container."""

from __future__ import annotations

import os

import msgspec
import pytest
from bundles import Machine, changed

from tare.oci.runtime_spec import Capabilities, ConsoleSize, IDMapping, LinuxNamespace, Rlimit, User
from tare.runtime.create import StartFailed
from tare.runtime.enter import build_exec_plan, enter_container, read_start_ticks


def test_an_execd_process_is_in_the_container_with_the_same_rights(machine: Machine) -> None:
    """Same namespaces, cgroup, capabilities, filter; CVE-2022-29162: no inheritable capabilities."""
    spec = machine.spec("sleep", "1000")
    with machine.running(spec) as running:
        fields = (
            "grep -E '^(Cap|Seccomp:|Groups)' /proc/self/status /proc/1/status | sed 's/.*status://' | sort | uniq -c"
        )
        code, output = machine.execute(
            running, spec, "sh", "-c", f"{fields}; cmp /proc/self/cgroup /proc/1/cgroup; hostname; pwd"
        )
        assert code == 0
        lines = output.splitlines()
        assert all(line.split()[0] == "2" for line in lines[:-2]), output
        assert lines[-2:] == ["box", "/"]
        for name in ("ipc", "mnt", "net", "pid", "uts"):
            inside = machine.execute(running, spec, "readlink", f"/proc/self/ns/{name}")[1]
            assert inside.strip() == os.readlink(f"/proc/{running.pid}/ns/{name}")


@pytest.mark.parametrize(
    ("command", "cwd", "code", "text"),
    [
        ("nope", "/", 127, 'exec: "nope": executable file not found in $PATH'),
        ("/etc/passwd", "/", 126, 'exec: "/etc/passwd": permission denied'),
        ("id", "/missing", 127, 'chdir to cwd ("/missing") set in config.json failed: no such file or directory'),
    ],
)
def test_failures_of_exec_are_told_as_docker_tells_them(
    machine: Machine, command: str, cwd: str, code: int, text: str
) -> None:
    """And the container goes on."""
    spec = machine.spec("sleep", "1000")
    with machine.running(spec) as running:
        with pytest.raises(StartFailed) as caught:
            machine.execute(running, spec, command, cwd=cwd)
        assert (caught.value.exit_code, str(caught.value)) == (code, f"unable to start container process: {text}")
        assert machine.execute(running, spec, "true")[0] == 0


def test_exec_refuses_descriptors_as_working_directory_and_has_three(machine: Machine) -> None:
    """CVE-2024-21626, for exec."""
    spec = machine.spec("sleep", "1000")
    with machine.running(spec) as running:
        for number in (3, 5, 7, 9, 11):
            with pytest.raises(StartFailed, match="chdir to cwd"):
                machine.execute(running, spec, "pwd", cwd=f"/proc/self/fd/{number}")
        assert "/proc/self/fd/4" not in machine.execute(running, spec, "sh", "-c", "echo /proc/self/fd/*")[1]


def test_exec_can_have_another_user_and_other_rights(machine: Machine) -> None:
    """`docker exec --user`, by name and by number."""
    spec = machine.spec("sleep", "1000")
    with machine.running(spec) as running:
        assert machine.execute(running, spec, "id", user="web")[1].startswith(
            "uid=101(web) gid=102(web) groups=6(disk),29"
        )
        code, output = machine.execute(
            running, spec, "grep", "Cap", "/proc/self/status", user=None, capabilities=Capabilities()
        )
        assert code == 0 and set(output.split()[1::2]) == {"0" * 16}


def test_exec_has_a_terminal_of_the_container(machine: Machine) -> None:
    """A second pty of the same devpts; the console stays what it was."""
    spec = machine.spec("sleep", "1000")
    with machine.running(spec) as running:
        code, output = machine.execute(
            running,
            spec,
            "sh",
            "-c",
            "tty; stty size; echo x > /dev/tty",
            terminal=True,
            console_size=ConsoleSize(10, 20),
        )
        assert (code, output.split()) == (0, ["/dev/pts/0", "10", "20", "x"])


def test_exec_does_not_enter_another_process_with_the_same_pid(machine: Machine) -> None:
    """The start time tells a reused pid."""
    spec = machine.spec("sleep", "1000")
    with machine.running(spec) as running:
        assert spec.process is not None
        ticks = read_start_ticks(running.pid)
        process = msgspec.structs.replace(spec.process, args=("true",), user=User())
        plan = build_exec_plan(process, container_pid=running.pid, spec=spec, start_ticks=ticks + 1)
        with pytest.raises(StartFailed, match="no such process"):
            enter_container(plan)
    with pytest.raises(StartFailed, match="no such process"):
        enter_container(plan)


def test_exec_joins_a_user_namespace(machine: Machine) -> None:
    """Root of an exec is the container's root, not the host's; its terminal works too."""
    mapping = (IDMapping(0, 200000, 65536),)
    kinds = ("user", "mount", "network", "uts", "pid", "ipc")
    machine.directory.chmod(0o755)
    spec = changed(
        machine.spec("sleep", "1000"),
        linux={
            "uid_mappings": mapping,
            "gid_mappings": mapping,
            "namespaces": tuple(LinuxNamespace(name) for name in kinds),  # type: ignore[arg-type]
        },
        process={"rlimits": (Rlimit("RLIMIT_NOFILE", 333, 333),)},
    )
    with machine.running(spec) as running:
        script = "id -u; cat /proc/self/uid_map; ulimit -n; touch /tmp/mine; hostname"
        code, output = machine.execute(running, spec, "sh", "-c", script, user="0")
        assert (code, output.split()) == (0, ["0", "0", "200000", "65536", "333", "box"])
        assert (machine.rootfs / "tmp/mine").stat().st_uid == 200000
        assert machine.execute(running, spec, "tty", terminal=True) == (0, "/dev/pts/0\r\n")
