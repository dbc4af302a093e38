"""The first process: command, user, working directory, limits, terminal, start and failure."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest
from bundles import Machine, changed, read_all

from support.busybox import PASSWD
from tare.kernel import capabilities
from tare.oci.runtime_spec import ConsoleSize, Hook, Hooks, LinuxMemory, LinuxResources, Rlimit, User
from tare.runtime.cgroups import open_cgroup
from tare.runtime.create import StartFailed


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in $PATH'),
        ("/nope", 127, 'exec: "/nope": stat /nope: no such file or directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
        ("/etc", 126, 'exec: "/etc": is a directory'),
        ("/etc/passwd/x", 126, 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory'),
        ("/garbage", 126, "exec /garbage: exec format error"),
        ("/orphan", 127, "exec /orphan: no such file or directory"),
    ],
)
def test_a_command_that_can_not_run_is_told_as_docker_tells_it(
    machine: Machine, command: str, code: int, text: str
) -> None:
    """127 for missing, 126 for not executable, with runc's words; nothing is left."""
    (machine.rootfs / "garbage").write_text("garbage")
    (machine.rootfs / "orphan").write_text("#!/nowhere/sh\n")
    for name in ("garbage", "orphan"):
        (machine.rootfs / name).chmod(0o755)
    with pytest.raises(StartFailed) as caught:
        machine.run(machine.spec(command))
    assert (caught.value.exit_code, str(caught.value)) == (code, f"unable to start container process: {text}")
    assert not open_cgroup(machine.cgroup).exists()


@pytest.mark.parametrize("number", [*range(3, 12), 20, 30])
def test_a_descriptor_is_no_working_directory(machine: Machine, number: int) -> None:
    """CVE-2024-21626."""
    with pytest.raises(StartFailed, match="chdir to cwd"):
        machine.run(changed(machine.spec("pwd"), process={"cwd": f"/proc/self/fd/{number}"}))


def test_a_link_to_a_descriptor_is_no_working_directory(machine: Machine) -> None:
    """CVE-2024-21626, through the image."""
    (machine.rootfs / "lure").symlink_to("/proc/self/fd/7")
    with pytest.raises(StartFailed, match="chdir to cwd"):
        machine.run(changed(machine.spec("pwd"), process={"cwd": "/lure"}))


def test_a_missing_working_directory_is_made(machine: Machine) -> None:
    """As runc does; an exec doesn't."""
    spec = changed(machine.spec("pwd"), process={"cwd": "/srv/../srv/app"})
    assert machine.run(spec) == (0, "/srv/app\n")


@pytest.mark.parametrize(
    ("user", "group_add", "expected"),
    [
        ("", (), "0:0:0:/root"),
        ("web", (), "101:102:6 29 102:/home"),
        ("101", (), "101:102:6 29 102:/home"),
        ("web:audio", (), "101:29:29:/home"),
        ("4321", (), "4321:0:0:/"),
        ("4321:99", ("disk", "1000"), "4321:99:6 99 1000:/"),
    ],
)
def test_users_are_resolved_inside(machine: Machine, user: str, group_add: tuple[str, ...], expected: str) -> None:
    """Docker's `--user` and `--group-add` (CVE-2022-36109: groups incl. the primary one)."""
    script = "echo $(id -u):$(id -g):$(grep Groups /proc/self/status | tr '\\t' '\\n' | tail -1 | sed 's/ *$//'):$HOME"
    assert machine.run(machine.shell(script), user=user, group_add=group_add) == (0, expected + "\n")


@pytest.mark.parametrize("user", ["4294967295", "2147483648", "99999999999999999999", "-1", "0:4294967295"])
def test_a_user_out_of_range_is_refused(machine: Machine, user: str) -> None:
    """CVE-2024-40635, CVE-2026-46680: never a name, whatever the image's passwd says."""
    (machine.rootfs / "etc/passwd").write_text(PASSWD + f"{user}:x:0:0::/:/bin/sh\n")
    with pytest.raises(StartFailed, match="uids and gids must be in range 0-2147483647"):
        machine.run(machine.spec("id"), user=user)


def test_a_number_is_never_looked_up_as_a_name(machine: Machine) -> None:
    """CVE-2016-3697."""
    (machine.rootfs / "etc/passwd").write_text("1000:x:0:0:root:/root:/bin/sh\n")
    assert machine.run(machine.spec("id", "-u"), user="1000") == (0, "1000\n")


def test_a_missing_user_is_told_as_docker_tells_it(machine: Machine) -> None:
    """Without runc's clause in front."""
    with pytest.raises(StartFailed) as caught:
        machine.run(machine.spec("id"), user="eve")
    assert str(caught.value) == "unable to find user eve: no matching entries in passwd file"
    with pytest.raises(StartFailed, match="unable to find group crew: no matching entries in group file"):
        machine.run(machine.spec("id"), user="web:crew")


def test_a_passwd_that_is_no_small_file_is_not_read(machine: Machine) -> None:
    """CVE-2024-9676: a link stays inside, a fifo doesn't hang, size is capped."""
    passwd = machine.rootfs / "etc/passwd"
    passwd.unlink()
    passwd.symlink_to("/../../../../../../etc/shadow")
    with pytest.raises(StartFailed, match="unable to find user root"):
        machine.run(machine.spec("id"), user="root")
    passwd.unlink()
    os.mkfifo(passwd)
    with pytest.raises(StartFailed, match="not a regular file"):
        machine.run(machine.spec("id"), user="root")


def test_limits_of_the_process_are_set(machine: Machine) -> None:
    """Resource limits, oom score, umask."""
    spec = changed(
        machine.shell("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; umask"),
        process={
            "rlimits": (Rlimit("RLIMIT_NOFILE", 100, 200),),
            "oom_score_adj": 300,
            "user": User(umask=0o077),
        },
    )
    assert machine.run(spec)[1].split() == ["100", "200", "300", "0077"]


def test_a_limit_that_can_not_be_raised_is_told(machine: Machine) -> None:
    """The text names the limit; nothing is left."""
    if capabilities.capget()[0] >> capabilities.NUMBERS["CAP_SYS_RESOURCE"] & 1:
        pytest.skip("we may raise every limit (CAP_SYS_RESOURCE)")
    spec = changed(machine.spec("true"), process={"rlimits": (Rlimit("RLIMIT_NOFILE", 2**40, 2**40),)})
    with pytest.raises(StartFailed, match="error setting rlimit type 7: operation not permitted"):
        machine.run(spec)


def test_sysctls_of_own_namespaces_are_set(machine: Machine) -> None:
    """Before /proc/sys becomes read-only."""
    spec = changed(
        machine.spec("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmax"),
        linux={"sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "123456"}},
    )
    assert machine.run(spec)[1].split() == ["1", "123456"]


def test_a_terminal_is_made_inside(machine: Machine) -> None:
    """The pty is of the container's devpts, is its console and controlling terminal, and has the size asked for."""
    spec = changed(
        machine.shell("tty; stty size; ls -l /dev/console | cut -c1-10; echo back > /dev/tty; id -u > /dev/console"),
        process={"terminal": True, "console_size": ConsoleSize(33, 44), "user": User(1234)},
    )
    code, output = machine.run(spec)
    assert code == 0
    assert output.replace("\r", "").split("\n") == ["/dev/pts/0", "33 44", "crw--w----", "back", "1234", ""]


def test_output_pipes_belong_to_the_user(machine: Machine) -> None:
    """So that a program that isn't root can open /dev/stdout."""
    spec = changed(machine.shell("echo hello > /dev/stdout"), process={"user": User(1234)})
    assert machine.run(spec) == (0, "hello\n")


def test_a_held_container_waits_for_its_gate(machine: Machine) -> None:
    """OCI create and start: everything is made, but the program doesn't run before."""
    read_fd, write_fd = os.pipe()
    created = machine.start(machine.spec("echo", "started"), stdio=(0, write_fd, write_fd), hold=True)
    os.close(write_fd)
    assert created.gate is not None
    assert machine.cgroup.strip("/") in Path(f"/proc/{created.pid}/cgroup").read_text()
    assert os.readlink(f"/proc/{created.pid}/exe") == os.path.realpath("/proc/self/exe")
    created.gate.open()
    assert read_all(read_fd) == "started\n"
    assert machine.end(created) == 0


def test_a_held_container_of_a_creator_that_died_ends(machine: Machine) -> None:
    """Nobody could open its gate any more."""
    pid_read, pid_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        created = machine.start(machine.spec("sleep", "1000"), hold=True)
        os.write(pid_write, str(created.pid).encode())
        os._exit(0)
    os.close(pid_write)
    pid = int(read_all(pid_read))
    os.waitpid(helper, 0)
    try:
        pidfd = os.pidfd_open(pid)
        assert select.select([pidfd], [], [], 10)[0]
        os.close(pidfd)
    except ProcessLookupError:
        pass
    open_cgroup(machine.cgroup).remove()


def test_resources_bind_before_the_program_runs(machine: Machine) -> None:
    """The memory limit is there when the program starts."""
    hierarchy = machine.hierarchies.find("memory")
    if hierarchy is None or hierarchy.version != 1:
        pytest.skip("this machine's cgroups are version 2")
    spec = changed(
        machine.spec("cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        linux={"resources": LinuxResources(memory=LinuxMemory(limit=64 << 20))},
    )
    assert machine.run(spec) == (0, f"{64 << 20}\n")


def test_the_reaper_is_pid_one_and_passes_on_how_the_program_ended(machine: Machine) -> None:
    """`--init`: shows nothing of the host, reaps orphans, has no descriptor but three."""
    script = "cat /proc/1/comm /proc/1/cmdline | tr '\\0' ' '; kill -9 $$"
    code, output = machine.run(machine.shell(script), init=True)
    assert code == 137
    assert output.startswith("tare-init\n/sbin/tare-init -- sh -c ")
    assert str(machine.directory) not in output


def test_the_reaper_forwards_signals(machine: Machine) -> None:
    """A SIGTERM to pid 1 reaches the program, which a bare pid 1 without a handler would never see."""
    read_fd, write_fd = os.pipe()
    created = machine.start(machine.shell("echo up; exec sleep 1000"), stdio=(0, write_fd, write_fd), init=True)
    os.close(write_fd)
    assert os.read(read_fd, 10) == b"up\n"
    os.kill(created.pid, 15)
    assert machine.end(created) == 143
    os.close(read_fd)


def test_the_reaper_forwards_real_time_signals_and_bears_being_stopped(machine: Machine) -> None:
    """Also 34, which musl keeps to itself; a call that a stop ended (man 7 signal) is made again."""
    numbers = (34, 35, 64, 10)
    script = (
        "".join(f"trap 'echo {number}' {number};" for number in numbers) + "echo up; while :; do read -r -t 9; done"
    )
    read_fd, write_fd = os.pipe()
    null_fd, held_fd = os.pipe()
    created = machine.start(machine.shell(script), stdio=(null_fd, write_fd, write_fd), init=True)
    os.close(write_fd)
    assert os.read(read_fd, 10) == b"up\n"
    os.kill(created.pid, signal.SIGSTOP)
    os.kill(created.pid, signal.SIGCONT)
    for number in numbers:
        os.kill(created.pid, number)
        assert os.read(read_fd, 10) == b"%d\n" % number
    os.kill(created.pid, 15)
    assert machine.end(created) == 143
    for fd in (read_fd, null_fd, held_fd):
        os.close(fd)


def test_hooks_run_in_order_with_the_state_and_a_fixed_environment(machine: Machine) -> None:
    """CVE-2025-23266: a hook sees neither our environment nor the container's."""
    log = machine.directory / "log"
    hook = machine.directory / "hook"
    environment = "$(env | grep -v -E '^(PWD|SHLVL|_|OLDPWD)=' | tr '\\n' ,)"
    hook.write_text(f'#!/bin/sh\nread -r state\necho "$1 {environment} ${{state#*status}}" >> {log}\n')
    hook.chmod(0o755)
    (machine.rootfs / "hook").write_text("#!/bin/sh\ncat > /dev/null; echo startContainer >> /hooked\n")
    (machine.rootfs / "hook").chmod(0o755)

    def make(name: str) -> tuple[Hook, ...]:
        return (Hook(str(hook), ("hook", name), ("A=1",)),)

    hooks = Hooks(
        prestart=make("prestart"),
        create_runtime=make("createRuntime"),
        create_container=make("createContainer"),
        start_container=(Hook("/hook"),),
    )
    assert machine.run(changed(machine.spec("cat", "/hooked"), hooks=hooks)) == (0, "startContainer\n")
    lines = log.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["prestart", "createRuntime", "createContainer"]
    assert all(line.split()[1] == "A=1," and '"creating"' in line for line in lines)


def test_a_hook_that_fails_fails_the_container(machine: Machine) -> None:
    """With what it said; nothing is left."""
    hooks = Hooks(create_runtime=(Hook("/bin/sh", ("sh", "-c", "echo no luck >&2; exit 3")),))
    with pytest.raises(StartFailed, match="hook #0: exit status 3, stderr: no luck"):
        machine.run(changed(machine.spec("true"), hooks=hooks))


def test_a_hook_that_takes_too_long_is_killed(machine: Machine) -> None:
    """The specification's timeout."""
    hooks = Hooks(prestart=(Hook("/bin/sleep", ("sleep", "100"), timeout=1),))
    with pytest.raises(StartFailed, match="timed out"):
        machine.run(changed(machine.spec("true"), hooks=hooks))
