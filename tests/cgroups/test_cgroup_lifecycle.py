"""One suite for every implementation of Cgroup, on the real kernel."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cgroup_child import Child
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tare import faults
from tare.errors import InvalidArgument, KernelError
from tare.kernel import cgroupfs
from tare.kernel.libc import fork_into_cgroup
from tare.oci.runtime_spec import LinuxDeviceCgroup, LinuxResources
from tare.runtime.cgroups import Cgroup, Hierarchies, Hierarchy, detect_hierarchies, open_cgroup

MakeCgroup = Callable[[], Cgroup]


def paths_of(cgroup: Cgroup, parent: str) -> list[str]:
    """Every directory below any hierarchy that is ours."""
    found = detect_hierarchies()
    bases = [hierarchy.base for hierarchy in (*found.v1, *([found.v2] if found.v2 else []))]
    return [
        directory for base in bases for directory in cgroupfs.descendants(base + parent) if os.path.isdir(directory)
    ]


def test_create_and_remove_are_idempotent(make_cgroup: MakeCgroup, parent: str) -> None:
    """Twice made is made, twice removed is removed, and nothing of the cgroup itself is left."""
    cgroup = make_cgroup()
    assert not cgroup.exists()
    cgroup.create()
    cgroup.create()
    assert cgroup.exists()
    cgroup.remove()
    cgroup.remove()
    assert not cgroup.exists()
    assert all(path.endswith(parent) for path in paths_of(cgroup, parent))


def test_remove_if_empty_spares_a_parent_in_use(cgroup: Cgroup, parent: str) -> None:
    """The shared parent goes when the last engine's last container has gone, and not before."""
    shared = open_cgroup(parent)
    shared.remove_if_empty()
    assert cgroup.exists()
    cgroup.remove()
    shared.remove_if_empty()
    assert not shared.exists()


def test_create_bears_another_engine_that_removes_the_parent(make_cgroup: MakeCgroup, parent: str) -> None:
    """While another process removes the shared parent whenever it is empty, every create succeeds, and is complete."""
    shared = open_cgroup(parent)

    def remove_on() -> None:
        while True:
            shared.remove_if_empty()

    other = Child(None, remove_on)
    try:
        for _ in range(30):
            cgroup = make_cgroup()
            cgroup.create()
            inside = Child(cgroup)
            assert inside.result() == "None"
            inside.stop()
            cgroup.remove()
    finally:
        other.stop()


def test_child_joins_itself(cgroup: Cgroup) -> None:
    """After join() the process, and what it forks, is in the cgroup."""

    def fork_one() -> int:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        return pid

    child = Child(cgroup, fork_one)
    grandchild = int(child.result())
    assert cgroup.pids() == sorted([child.pid, grandchild])
    cgroup.kill(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    cgroup.remove()


def test_join_moves_all_threads(cgroup: Cgroup) -> None:
    """A process with several threads is moved whole."""

    def cgroups_of_threads() -> bool:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        cgroup.join()
        seen = {Path(f"/proc/self/task/{task}/cgroup").read_text() for task in os.listdir("/proc/self/task")}
        stop.set()
        return len(seen) == 1

    child = Child(None, cgroups_of_threads)
    assert child.result() == "True"
    assert cgroup.pids() == [child.pid]
    child.stop()


def test_attach_moves_another_process(cgroup: Cgroup) -> None:
    """The parent can put a child in."""
    child = Child(None)
    child.result()
    cgroup.attach(child.pid)
    assert cgroup.pids() == [child.pid]
    child.stop()
    with pytest.raises(KernelError) as caught:
        cgroup.attach(child.pid)
    assert caught.value.path


def test_kill_reaches_those_that_keep_forking(cgroup: Cgroup) -> None:
    """SIGKILL ends a tree of processes that replace themselves all the time."""

    def fork_on() -> None:
        for _ in range(3):
            if os.fork() == 0:
                while True:
                    if os.fork():
                        os._exit(0)

    child = Child(cgroup, fork_on)
    child.result()
    cgroup.kill(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    cgroup.remove()
    assert cgroup.pids() == []


def test_other_signals_reach_all(cgroup: Cgroup) -> None:
    """Any signal is delivered to each process."""
    children = [Child(cgroup), Child(cgroup)]
    for child in children:
        child.result()
    cgroup.kill(signal.SIGTERM)
    assert [child.wait() for child in children] == [-signal.SIGTERM] * 2


def test_freeze_and_thaw(cgroup: Cgroup) -> None:
    """A frozen process does nothing; thawed it goes on; SIGKILL ends a frozen one."""
    read_fd, write_fd = os.pipe()

    def write_forever() -> None:
        os.set_blocking(write_fd, False)
        while True:
            try:
                os.write(write_fd, b"x")
            except BlockingIOError:
                pass

    child = Child(cgroup, write_forever)
    assert os.read(read_fd, 1) == b"x"
    assert not cgroup.frozen()
    cgroup.freeze()
    assert cgroup.frozen()
    os.set_blocking(read_fd, False)
    while True:
        try:
            os.read(read_fd, 1 << 20)
        except BlockingIOError:
            break  # emptied, and nobody fills it
    os.set_blocking(read_fd, True)
    cgroup.thaw()
    assert not cgroup.frozen()
    assert os.read(read_fd, 1) == b"x"
    cgroup.freeze()
    cgroup.kill(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    os.close(read_fd)
    os.close(write_fd)


def test_remove_takes_nested_cgroups_and_waits_for_the_last_process(cgroup: Cgroup, parent: str) -> None:
    """What the container made below its cgroup goes too; a dying process is waited for."""
    child = Child(cgroup)
    child.result()
    for path in paths_of(cgroup, parent):
        if path.rpartition("/")[2].isdigit():
            os.makedirs(f"{path}/inner/innermost")
    assert cgroup.pids() == [child.pid]
    timer = threading.Timer(0.05, child.stop)
    timer.start()
    cgroup.remove()
    timer.join()
    assert not cgroup.exists()


def test_clone_fd_starts_a_child_inside(cgroup: Cgroup) -> None:
    """Where there is a descriptor, clone3(CLONE_INTO_CGROUP) with it needs no join."""
    cgroup_fd = cgroup.clone_fd()
    if cgroup_fd is None:
        return  # v1: the child joins by itself, tested above
    read_fd, write_fd = os.pipe()
    pid = fork_into_cgroup(cgroup_fd)
    if pid == 0:
        try:  # the interpreter is whole: it can start threads and processes
            thread = threading.Thread(target=os.write, args=(write_fd, subprocess.check_output(["echo", "inside"])))
            thread.start()
            thread.join()
            signal.pause()
        finally:
            os._exit(1)
    os.close(write_fd)
    assert os.read(read_fd, 100) == b"inside\n"
    os.close(read_fd)
    assert cgroup.pids() == [pid]
    cgroup.kill(signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(cgroup_fd)
    with pytest.raises(KernelError) as caught:
        fork_into_cgroup(cgroup_fd)
    assert caught.value.errno == errno.EBADF


def device(allow: bool, kind: str, major: int | None, minor: int | None, access: str = "rwm") -> LinuxDeviceCgroup:
    return LinuxDeviceCgroup(allow, kind, major, minor, access)


DENY_ALL = device(False, "a", None, None)


def tries() -> dict[str, str]:
    """Which accesses to /dev/null (1:3) and /dev/zero (1:5), and which device nodes, are possible."""
    done = {}
    for name, action in (
        ("read null", lambda: os.close(os.open("/dev/null", os.O_RDONLY))),
        ("write null", lambda: os.close(os.open("/dev/null", os.O_WRONLY))),
        ("read-write null", lambda: os.close(os.open("/dev/null", os.O_RDWR))),
        ("read zero", lambda: os.close(os.open("/dev/zero", os.O_RDONLY))),
        ("mknod null", lambda: mknod(1, 3)),
        ("mknod zero", lambda: mknod(1, 5)),
    ):
        try:
            action()
            done[name] = "yes"
        except PermissionError:
            done[name] = "no"
    return done


def mknod(major: int, minor: int) -> None:
    path = f"/dev/shm/tare-test-node-{os.getpid()}"
    os.mknod(path, 0o20600, os.makedev(major, minor))
    os.unlink(path)


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ((DENY_ALL,), ""),
        ((DENY_ALL, device(True, "c", 1, 3, "r")), "read null"),
        (
            (DENY_ALL, device(True, "c", 1, 3, "r"), device(True, "c", 1, 3, "w")),
            "read null, write null, read-write null",
        ),
        ((DENY_ALL, device(True, "c", None, None, "m")), "mknod null, mknod zero"),
        ((DENY_ALL, device(True, "c", 1, None, "r")), "read null, read zero"),
        ((DENY_ALL, device(True, "b", None, None)), ""),
        ((DENY_ALL, device(True, "a", 1, 5, "r")), "read zero"),
        ((DENY_ALL, device(True, "c", 1, 3), device(False, "c", 1, 3, "w")), "read null, mknod null"),
        ((device(False, "c", 1, 3, "w"),), "read null, read zero, mknod null, mknod zero"),
        ((DENY_ALL, device(True, "a", None, None)), ", ".join(["read null", "write null", "read-write null"])
         + ", read zero, mknod null, mknod zero"),
    ],
)  # fmt: skip
def test_device_rules(cgroup: Cgroup, rules: tuple[LinuxDeviceCgroup, ...], allowed: str) -> None:
    """The same rules allow the same accesses in v1's own controller and in v2's program."""
    cgroup.apply(LinuxResources(devices=rules))
    child = Child(cgroup, lambda: ", ".join(name for name, done in tries().items() if done == "yes"))
    assert child.result() == repr(allowed)
    child.stop()


def test_device_rules_are_replaced_as_a_whole(cgroup: Cgroup) -> None:
    """A second call's rules take the place of the first's."""
    cgroup.apply(LinuxResources(devices=(DENY_ALL,)))
    cgroup.apply(LinuxResources(devices=(DENY_ALL, device(True, "c", 1, 5, "r"))))
    child = Child(cgroup, lambda: [name for name, done in tries().items() if done == "yes"])
    assert child.result() == "['read zero']"
    child.stop()


def test_stats_of_a_new_cgroup_can_be_read(cgroup: Cgroup) -> None:
    """Whatever the controllers, stats come without an error, also after the cgroup is gone."""
    child = Child(cgroup, lambda: sum(range(1_000_000)))
    child.result()
    stats = cgroup.stats()
    assert stats.cpu.total_ns > 0
    assert cgroup.oom_kills() == 0
    child.stop()
    cgroup.remove()
    assert cgroup.stats().memory.usage == 0
    assert cgroup.oom_kills() == 0


@pytest.mark.parametrize("passage", range(1, 12))
def test_failed_create_leaves_nothing(
    make_cgroup: MakeCgroup, parent: str, passage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever mkdir fails, those made before are removed, and a second create works."""
    cgroup = make_cgroup()
    monkeypatch.setattr(faults, "_name", "cgroups.create.mkdir")
    monkeypatch.setattr(faults, "_left", passage)
    try:
        cgroup.create()
    except faults.InjectedFault:
        assert not cgroup.exists()
    monkeypatch.setattr(faults, "_name", "")
    cgroup.create()
    cgroup.remove()
    assert not cgroup.exists()


@pytest.mark.parametrize(
    "path", ["", "tare", "/", "//a", "/tare/", "/tare/..", "/tare/../x", "/a/./b", "/a\n0::/b", "/" + "a" * 256]
)
def test_bad_path_is_refused(path: str) -> None:
    """No path leads out of the hierarchy or breaks /proc/PID/cgroup's lines."""
    with pytest.raises(InvalidArgument):
        open_cgroup(path)


def test_processes_of_an_inner_v2_cgroup_are_moved_aside(parent: str) -> None:
    """An engine in a container's own v2 cgroup can pass controllers on, once what is in there has moved."""
    found = detect_hierarchies().v2
    if found is None or not found.controllers:
        pytest.skip("this machine's cgroups are version 1")
    whole = open_cgroup(parent, Hierarchies((), found))
    whole.create()
    child = Child(whole)
    child.result()
    inner = open_cgroup("/tare/c", Hierarchies((), Hierarchy(2, found.base + parent, found.controllers)))
    inner.create()
    assert set(found.controllers) <= set(Path(found.base + parent, "tare/c/cgroup.controllers").read_text().split())
    assert f"0::{parent}/tare-engine" in Path(f"/proc/{child.pid}/cgroup").read_text()
    child.stop()
    whole.remove()


DEVICE_RULES = st.lists(
    st.builds(
        device,
        st.booleans(),
        st.sampled_from(["a", "c", "c", "b"]),
        st.sampled_from([None, 1]),
        st.sampled_from([None, 3, 5]),
        st.sampled_from(["r", "w", "m", "rw", "rwm", ""]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=DEVICE_RULES, closed=st.booleans())
def test_any_device_rules_mean_the_same_in_v1_and_v2(parent: str, rules: list[LinuxDeviceCgroup], closed: bool) -> None:
    """The kernel's own device controller and our program give the same answers to every access."""
    found = detect_hierarchies()
    if found.mode != "hybrid":
        pytest.skip(f"this machine's cgroups are version {2 if found.mode == 'v2' else 1}")
    answers = []
    for hierarchies in (Hierarchies(found.v1, None), Hierarchies((), found.v2)):
        cgroup = open_cgroup(f"{parent}/same", hierarchies)
        cgroup.create()
        cgroup.apply(LinuxResources(devices=((DENY_ALL,) if closed else ()) + tuple(rules)))
        child = Child(cgroup, tries)
        answers.append(child.result())
        child.stop()
        cgroup.remove()
    assert answers[0] == answers[1]
