"""Failures and crashes at each named point: nothing is left, or `delete --force` clears it away; a repeat works."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bundles import Machine, changed

from tare import faults
from tare.oci.runtime_spec import format_spec
from tare.runtime.cgroups import open_cgroup
from tare.runtime.create import StartFailed, create_container
from tare.runtime.plan import build_plan

POINTS = ("runtime.init.started", "runtime.cgroup.create", "runtime.state.write")


def call(machine: Machine, *words: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TARE_FAULT": fault}
    command = [sys.executable, "-m", "tare.runtime.command", "--root", str(machine.directory / "state"), *words]
    errors = machine.directory / "errors"
    with open(errors, "w") as file:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, timeout=20
        )
    return subprocess.CompletedProcess(command, done.returncode, "", errors.read_text())


def processes_of(machine: Machine) -> list[int]:
    """Processes whose root is the test's, or that are in its cgroup."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if machine.id in Path(f"/proc/{name}/cgroup").read_text():
                    found.append(int(name))
            except OSError:
                continue
    return found


def wait_no_processes(machine: Machine) -> None:
    end = time.monotonic() + 60
    while processes_of(machine):
        assert time.monotonic() < end, "processes left"


@pytest.fixture
def bundle(machine: Machine) -> str:
    path = machine.directory / "bundle"
    path.mkdir()
    (path / "config.json").write_bytes(format_spec(machine.spec("sleep", "1000")))
    return str(path)


@pytest.mark.parametrize("point", POINTS)
def test_a_create_that_fails_leaves_nothing(machine: Machine, bundle: str, point: str) -> None:
    """And succeeds when it is repeated."""
    assert call(machine, "create", "-b", bundle, machine.id, fault=point).returncode != 0
    wait_no_processes(machine)
    assert not open_cgroup(machine.cgroup).exists()
    assert list((machine.directory / "state").iterdir()) == []
    assert call(machine, "create", "-b", bundle, machine.id).returncode == 0
    assert call(machine, "delete", machine.id).returncode == 0


@pytest.mark.parametrize("point", POINTS)
def test_a_create_that_is_killed_is_cleared_away_by_force(machine: Machine, bundle: str, point: str) -> None:
    """Whatever it had made."""
    assert call(machine, "create", "-b", bundle, machine.id, fault=f"{point}:kill").returncode == -9
    assert call(machine, "delete", "--force", machine.id).returncode == 0
    wait_no_processes(machine)
    assert not open_cgroup(machine.cgroup).exists()
    assert call(machine, "create", "-b", bundle, machine.id).returncode == 0
    assert call(machine, "delete", "--force", machine.id).returncode == 0


@pytest.mark.parametrize("action", ["raise", "die"])
def test_init_may_fail_or_die_at_every_step(machine: Machine, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """The creator is told and cleans up, whichever step it was; then the same plan works."""
    spec = changed(machine.spec("true"), process={"terminal": True, "oom_score_adj": 10})
    plan = build_plan(spec, container_id=machine.id, hierarchies=machine.hierarchies)
    tags = [str(step.__struct_config__.tag) for step in (*plan.early, *plan.steps)]
    for number, tag in enumerate(tags):
        left = tags[: number + 1].count(tag)

        def point(name: str, wanted: str = f"runtime.step.{tag}") -> None:
            nonlocal left
            left -= name == wanted
            if left == 0 and name == wanted:
                if action == "die":
                    os._exit(1)  # as pid 1 it can't send itself a SIGKILL (pid_namespaces(7))
                raise faults.InjectedFault(name)

        with monkeypatch.context() as patch:
            patch.setattr(faults, "point", point)
            with pytest.raises(StartFailed, match="killed" if action == "die" else f"runtime.step.{tag}"):
                create_container(plan)
        assert not open_cgroup(machine.cgroup).exists(), tag
    created = create_container(plan)
    assert created.terminal_fd is not None
    os.close(created.terminal_fd)
    assert machine.end(created) == 0
