"""Volumes and roots of containers outlive the daemon (tests/daemon/test_faults.py has the sweep over all steps)."""

from __future__ import annotations

import http.client
import os
import signal
from pathlib import Path

import pytest

from support.deadline import wait_until
from support.tared import Tared

OPTIONS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}


def test_running_containers_keep_their_volumes(daemon: Tared) -> None:
    """kill -9 of the daemon: mounts and content stay, the next daemon knows who uses what, and cleans up at the end."""
    daemon.start()
    daemon.engine.prepare()
    engine = daemon.engine
    engine.api.request("POST", "/volumes/create", {"Name": "memory", "DriverOpts": OPTIONS})
    container = engine.start("--net", "none", "-v", "memory:/m", "-v", "disk:/d", "-v", "/anon")
    engine.docker("exec", container, "sh", "-c", "echo here > /m/f; echo here > /d/f")
    daemon.kill9()
    daemon.start()
    assert engine.docker("exec", container, "cat", "/m/f", "/d/f").out == "here\nhere\n"
    other = engine.start("--net", "none", "--volumes-from", container)
    assert engine.docker("exec", other, "cat", "/m/f").out == "here\n"
    for name in ("memory", "disk"):
        assert engine.api.request("DELETE", f"/volumes/{name}", check=False).status == 409
    pid = engine.inspect(container)["State"]["Pid"]
    daemon.kill9()
    os.kill(pid, signal.SIGKILL)
    daemon.start()
    wait_until(lambda: not engine.inspect(container)["State"]["Running"], "its end is known")
    assert engine.docker("exec", other, "cat", "/m/f").out == "here\n"
    engine.docker("rm", "-f", "-v", other, container)
    assert str(daemon.data_root) not in Path("/proc/self/mounts").read_text(errors="surrogateescape")
    left = {volume["Name"] for volume in engine.api.request("GET", "/volumes").json["Volumes"]}
    assert left == {"memory", "disk"}
    assert engine.run("--net", "none", "-v", "disk:/d", "@", "cat", "/d/f").out == "here\n"


def test_one_that_removes_itself_starts_after_a_crash(daemon: Tared) -> None:
    """Killed while a `--rm` container starts, whose root isn't synced: the next daemon starts it all the same."""
    daemon.start()
    daemon.engine.prepare()
    container = daemon.engine.create({"Cmd": ["true"], "HostConfig": {"AutoRemove": True}}).json["Id"]
    daemon.restart(env={"TARE_FAULT": "engine.start.launched:kill"})
    with pytest.raises((OSError, EOFError, http.client.HTTPException)):
        daemon.engine.api.request("POST", f"/containers/{container}/start")
    daemon.wait_dead()
    wait_until(lambda: "tare: monitor" not in " ".join(daemon.processes().values()), "it has ended")
    daemon.start()
    assert daemon.engine.api.request("POST", f"/containers/{container}/start").status == 204
    wait_until(lambda: not daemon.engine.containers(), "it has removed itself")
