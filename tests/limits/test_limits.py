"""Limits do what they promise, measured where the kernel counts: memory, processes, CPU time; on both engines."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.deadline import wait_until
from support.engine import Engine


def cgroup_file(pid: int, controller: str, *names: str) -> Path:
    """A file of the cgroup that a process is in, by its name in version 1 or in version 2."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            folder = Path("/sys/fs/cgroup") / (controllers if "," in controllers else controller) / path.lstrip("/")
        elif controllers == "" and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            folder = Path("/sys/fs/cgroup") / path.lstrip("/")
        else:
            continue
        for name in names:
            if (folder / name).exists():
                return folder / name
    raise AssertionError(f"no {names} for process {pid}")


def test_memory_hog_is_killed(engine: Engine) -> None:
    """A program that takes more than --memory is killed, OOMKilled is true, the code is 137, and an event tells it."""
    since = f"{time.time():.9f}"
    flags = ["--memory", "24m", "--memory-swap", "24m"]
    container = engine.start(flags=flags, command=["tail", "/dev/zero"])
    assert engine.exit_code(container) == 137
    state = engine.inspect(container)["State"]
    assert state["OOMKilled"] is True and state["ExitCode"] == 137
    span = ["--since", since, "--until", f"{time.time() + 0.1:.9f}", "--filter", f"container={container}"]
    assert "oom" in engine.docker("events", *span, "--format", "{{.Action}}").out.split()


def test_memory_hog_among_others(engine: Engine) -> None:
    """When a child is killed for memory the container goes on."""
    script = "tail /dev/zero; echo code $?; sleep 1000"
    container = engine.start(flags=["--memory", "24m", "--memory-swap", "24m"], command=["sh", "-c", script])
    wait_until(lambda: "code 137" in engine.logs(container), "the child was killed", 20)
    assert engine.inspect(container)["State"]["Running"]


def test_memory_within_the_limit(engine: Engine) -> None:
    """A program that stays below its limit isn't killed, and OOMKilled is false."""
    container = engine.start(flags=["--memory", "64m"], command=["sh", "-c", "head -c 5m /dev/zero | wc -c"])
    assert engine.exit_code(container) == 0
    assert engine.inspect(container)["State"]["OOMKilled"] is False


def test_memory_limit_is_the_kernels(engine: Engine) -> None:
    """The number given is in the cgroup, and memory and swap together are twice as much by default."""
    container = engine.start(flags=["--memory", "33m", "--memory-reservation", "20m"])
    pid = engine.inspect(container)["State"]["Pid"]
    limit = cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max").read_text().strip()
    soft = cgroup_file(pid, "memory", "memory.soft_limit_in_bytes", "memory.low").read_text().strip()
    assert (limit, soft) == (str(33 << 20), str(20 << 20))


# The inner shell ends when its fork fails; what it started stays, and exec needs no fork.
FORK_BOMB = "sh -c 'while :; do sleep 1000 & done'; exec sleep 1000"


def test_fork_bomb_is_stopped(engine: Engine) -> None:
    """--pids-limit holds the number of processes down; fork fails inside, the host and the container live."""
    container = engine.start(flags=["--pids-limit", "20"], command=["sh", "-c", FORK_BOMB])
    pid = engine.inspect(container)["State"]["Pid"]
    current = cgroup_file(pid, "pids", "pids.current")
    wait_until(lambda: "can't fork" in engine.logs(container), "fork fails", 20)
    assert int(current.read_text()) <= 20
    assert cgroup_file(pid, "pids", "pids.max").read_text().strip() == "20"
    engine.docker("rm", "-f", container)
    wait_until(lambda: not current.exists(), "all its processes are gone")


def cpu_seconds(pid: int) -> float:
    """CPU time that the cgroup of a process has used."""
    file = cgroup_file(pid, "cpuacct", "cpuacct.usage", "cpu.stat")
    text = file.read_text()
    if "usage_usec" in text:
        return int(text.split("usage_usec ")[1].split()[0]) / 1e6
    return int(text) / 1e9


def throttled(pid: int) -> int:
    """How often the cgroup was throttled."""
    text = cgroup_file(pid, "cpu", "cpu.stat").read_text()
    return int(text.split("nr_throttled ")[1].split()[0])


SPIN = ["sh", "-c", "while :; do :; done"]


def test_a_tenth_of_a_core(engine: Engine) -> None:
    """--cpus 0.1 is a tenth of a core for a busy loop: it never gets more, and is throttled when it had that much."""
    container = engine.start(flags=["--cpus", "0.1"], command=SPIN)
    pid = engine.inspect(container)["State"]["Pid"]
    wait_until(lambda: throttled(pid) >= 2, "it is throttled")
    began, count, used = time.monotonic(), throttled(pid), cpu_seconds(pid)  # the clock first: a pause counts for us
    wait_until(lambda: throttled(pid) >= count + 15, "15 periods went by", 30)
    had = cpu_seconds(pid) - used
    share = had / (time.monotonic() - began)
    assert share < 0.125, share
    assert had > 13 * 0.01 * 0.9, had  # what it had in each period before it was throttled
    quota = cgroup_file(pid, "cpu", "cpu.cfs_quota_us", "cpu.max").read_text().split()
    assert quota[0] == "10000"


def test_live_update(engine: Engine) -> None:
    """update changes what the kernel holds for a running program: the loop slows down, more processes may start."""
    container = engine.start(flags=["--pids-limit", "10"], command=SPIN)
    pid = engine.inspect(container)["State"]["Pid"]
    assert throttled(pid) == 0
    engine.docker("update", "--cpus", "0.1", "--pids-limit", "30", "--memory", "64m", "--memory-swap", "64m", container)
    wait_until(lambda: throttled(pid) >= 2, "it is throttled now")
    assert cgroup_file(pid, "pids", "pids.max").read_text().strip() == "30"
    assert cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max").read_text().strip() == str(64 << 20)
    assert engine.inspect(container)["State"]["Pid"] == pid


def test_cpu_shares_and_set(engine: Engine) -> None:
    """--cpu-shares and --cpuset-cpus are the kernel's."""
    container = engine.start(flags=["--cpu-shares", "512", "--cpuset-cpus", "0"])
    assert "Cpus_allowed_list:\t0\n" in engine.docker("exec", container, "cat", "/proc/self/status").out
    pid = engine.inspect(container)["State"]["Pid"]
    shares = cgroup_file(pid, "cpu", "cpu.shares", "cpu.weight").read_text().strip()
    assert shares in ("512", "20", "59")


def test_limits_hold_for_exec(engine: Engine) -> None:
    """An exec'd program is within the container's limits."""
    container = engine.start(flags=["--memory", "24m", "--memory-swap", "24m", "--pids-limit", "15"])
    assert engine.docker("exec", container, "tail", "/dev/zero", check=False).code == 137
    forked = engine.docker("exec", container, "sh", "-c", "while :; do sleep 1000 & done", check=False)
    assert "can't fork" in forked.err
    assert engine.inspect(container)["State"]["Running"]


@pytest.mark.parametrize("value", ["5m", "-1m", "x"])
def test_bad_limits(engine: Engine, value: str) -> None:
    """A memory limit that can't be is refused, by the client or the engine."""
    assert engine.docker("run", "--rm", "--memory", value, engine.image, "true", check=False).code == 125


def test_real_time_share(engine: Engine) -> None:
    """--cpu-rt-period and --cpu-rt-runtime are kept where the kernel has real-time groups, and refused where not."""
    body = {"HostConfig": {"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 500}}
    made = engine.create(body)
    if not Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        assert made.status == 400 and "CPU real-time" in made.message
        return
    host = engine.inspect(made.json["Id"])["HostConfig"]
    assert (host["CpuRealtimePeriod"], host["CpuRealtimeRuntime"]) == (1000, 500)
    wrong = engine.create({"HostConfig": {"CpuRealtimePeriod": 500, "CpuRealtimeRuntime": 1000}})
    assert wrong.status in (400, 500)  # a real dockerd before 23 takes it for its own error
    assert wrong.message.endswith("cpu real-time runtime cannot be higher than cpu real-time period")
