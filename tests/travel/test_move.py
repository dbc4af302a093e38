"""`tare move`: a container goes to another engine with all that is its own, and is whole at exactly one of the two."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from relays import Relay

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared

CHANGES = "echo mine > /mine; rm /etc/group; rm -rf /root; mkdir /root; echo x > /root/new; ln /mine /two"


def made(near: Engine, *flags: str, script: str = "echo said; sleep 1000") -> str:
    """A running container with a log, files and hard links of its own, something removed, a directory made anew."""
    name = near.unique()
    command = ("sh", "-c", f"test -e /mine || {{ {CHANGES}; }}; {script}")
    near.docker("run", "-d", "--stop-signal", "KILL", "--name", name, *flags, near.image, *command)
    wait_until(lambda: "said" in near.logs(name), "it has begun")
    return name


def names(engine: Engine) -> list[str]:
    return [one["Names"][0][1:] for one in engine.api.request("GET", "/containers/json?all=1").json]


def test_all_that_is_its_own_goes_along(near: Engine, far: Engine, way: Relay) -> None:
    """Files, what it removed, settings, labels, name, id, network with alias, volumes, log; there it runs."""
    network, volume = near.unique("net"), near.unique("vol")
    near.docker("network", "create", "--label", "net=1", network)
    name = made(
        near,
        *("--network", network, "--network-alias", "db", "-v", f"{volume}:/data", "-v", "/anon", "--label", "a=b"),
        *("--memory", "64m", "-e", "WORD=x y", "--restart", "on-failure:3", "--hostname", "box"),
        script="touch /data/.wh.odd /anon/f; mkdir -m 750 -p /data/d; chown 7:8 /data/d; echo said; sleep 1000",
    )
    before = near.inspect(name)
    changed = sorted(near.docker("diff", name).out.splitlines())
    done = near.tare_cli("move", "--stop", name, way.address, timeout=60)
    assert f"{name} ({before['Id'][:12]}) runs there" in done.out and f"network {network}" in done.out
    assert names(near) == [] and names(far) == [name]
    after = far.inspect(name)
    for key in ("Id", "Name", "Created", "Path", "Args", "Image", "RestartCount"):
        assert after[key] == before[key], key
    assert after["Config"] == before["Config"]
    assert {**after["HostConfig"], "LogConfig": 0} == {**before["HostConfig"], "LogConfig": 0}
    assert after["State"]["Status"] == "running"
    assert sorted(far.docker("diff", name).out.splitlines()) == changed
    look = "cat /mine /two; ls /root; stat -c '%a %u:%g' /data/d; ls -A /data /anon"
    shown = far.docker("exec", name, "sh", "-c", look).out
    assert shown == "mine\nmine\nnew\n750 7:8\n/anon:\nf\n\n/data:\n.wh.odd\nd\n"
    assert far.logs(name).splitlines() == ["said", "said"]
    assert after["NetworkSettings"]["Networks"][network]["Aliases"][0] == "db"
    assert far.api.request("GET", f"/networks/{network}").json["Labels"] == {"net": "1"}
    assert name in [one["Name"] for one in near.api.request("GET", "/tare/trash").json]
    near.docker("network", "rm", network)


def test_a_stopped_one_stays_stopped_and_comes_back(near: Engine, far: Engine) -> None:
    """There and back again, each time with what it wrote; the second way costs no image."""
    name = made(near, script="echo $(cat /count)x > /count; echo said")
    near.exit_code(name)
    near.tare_cli("move", name, f"unix://{far.socket}")
    assert far.inspect(name)["State"]["Status"] == "exited"
    assert far.docker("start", "-a", name).out == "said\n"
    far.tare_cli("move", name, f"unix://{near.socket}")
    assert (names(near), names(far)) == ([name], [])
    assert "xx\n" in near.docker("cp", f"{name}:/count", "-").out
    assert near.docker("start", "-a", name).out == "said\n"


def test_a_running_one_is_not_stopped_unasked(near: Engine, far: Engine) -> None:
    """It says which flags do; what can't arrive isn't stopped at all; --pause takes it as it stands."""
    name = made(near)
    refused = near.tare_cli("move", name, f"unix://{far.socket}", check=False)
    assert refused.code == 1 and "--stop" in refused.err
    assert near.inspect(name)["State"]["Status"] == "running"
    far.docker("load", input=near.api.request("GET", f"/images/{near.image}/get").body)
    far.docker("create", "--name", name, near.image)
    assert "already in use" in near.tare_cli("move", "--pause", name, f"unix://{far.socket}", check=False).err
    assert near.inspect(name)["State"]["Status"] == "running"
    far.docker("rm", name)
    near.tare_cli("move", "--pause", name, f"unix://{far.socket}")
    assert (names(near), far.inspect(name)["State"]["Status"]) == ([], "running")


def test_what_is_tied_to_the_host_is_named(near: Engine, far: Engine, tmp_path: Path) -> None:
    """Bind mounts, devices, links and shared namespaces are listed; it stays untouched. Binds can be forced."""
    other = near.start()
    flags = ("-v", f"{tmp_path}:/host", "--device", "/dev/null:/dev/nothing", "--pid", f"container:{other}")
    name = made(near, *flags)
    refused = near.tare_cli("move", "--stop", name, f"unix://{far.socket}", check=False)
    for word in (f"/host is {tmp_path} of the host", "device /dev/null", "pid namespace", "--force-binds --force-host"):
        assert word in refused.err
    assert near.inspect(name)["State"]["Status"] == "running"
    bound = made(near, "-v", f"{tmp_path}:/host")
    near.tare_cli("move", "--stop", "--force-binds", bound, f"unix://{far.socket}")
    assert far.inspect(bound)["Mounts"][0]["Source"] == str(tmp_path)


def test_a_copy_leaves_the_source_running(near: Engine, far: Engine) -> None:
    """The copy has an id, a name and a host name of its own, and the same files; volumes can stay behind."""
    volume = near.unique("vol")
    name = made(near, "-v", f"{volume}:/data", script="echo said; echo 1 > /data/f; sleep 1000")
    near.tare_cli("move", "--copy", "--name", "twin", "--no-volumes", name, f"unix://{far.socket}")
    assert near.inspect(name)["State"]["Status"] == "running"
    there = far.inspect("twin")
    assert there["Id"] != near.inspect(name)["Id"] and there["Config"]["Hostname"] == there["Id"][:12]
    assert far.docker("exec", "twin", "sh", "-c", "cat /mine; ls /data").out.startswith("mine\n")
    near.docker("unpause", name, check=False)


def test_volumes_are_not_overwritten(near: Engine, far: Engine) -> None:
    """One of the same name over there is in the way, unless it is to be used."""
    volume = near.unique("vol")
    name = made(near, "-v", f"{volume}:/data", script="echo here > /data/new; echo said; sleep 1000")
    far.docker("volume", "create", volume)
    refused = near.tare_cli("move", "--stop", name, f"unix://{far.socket}", check=False)
    assert f"volume {volume} is here already" in refused.err
    assert near.inspect(name)["State"]["Status"] == "running"
    near.tare_cli("move", "--stop", "--no-volumes", name, f"unix://{far.socket}")
    assert names(far) == [name]


def test_a_cut_is_taken_up(near: Engine, far: Engine, way: Relay) -> None:
    """Whatever step the connection breaks at, the container is whole here, and a repeat carries it over."""
    name = made(near, "-v", "/data", script="head -c 3000000 /dev/urandom > /data/f; echo said; sleep 1000")
    far.docker("load", input=near.api.request("GET", f"/images/{near.image}/get").body)
    for after in (500, 2000, 3000, 1_500_000):
        way.cut_after = way.sent + after
        assert near.tare_cli("move", "--stop", name, way.address, check=False).code == 1
        assert (names(near), names(far)) == ([name], [])
        assert near.docker("cp", f"{name}:/mine", "-").code == 0
    assert "is being moved" in near.docker("start", name, check=False).err
    way.cut_after = None
    assert near.tare_cli("move", "--abort", name, way.address).out == f"{name} stays: running\n"
    assert near.docker("exec", name, "cat", "/mine").out == "mine\n"
    assert far.api.request("GET", f"/tare/arrivals/{name}", check=False).status == 404
    near.tare_cli("move", "--stop", name, way.address)
    assert (names(near), far.inspect(name)["State"]["Status"]) == ([], "running")


def test_a_policy_that_is_none_is_refused(near: Engine, far: Engine) -> None:
    """What create refuses doesn't arrive either."""
    name = near.start()
    description = near.api.request("GET", f"/containers/{name}/departure").json["Description"]
    description["host"]["egress"] = "some"
    answer = far.api.request("POST", "/tare/arrivals", description, check=False)
    assert (answer.status, answer.json["message"][:21]) == (400, "invalid egress policy")


def test_prune_leaves_one_that_is_being_moved(near: Engine, far: Engine) -> None:
    """It is held still for its way, not stopped for good; one that has gone comes back from the trash as any other."""
    name = made(near)
    container = near.inspect(name)["Id"]
    near.api.request("POST", f"/containers/{name}/departure?how=stop")
    assert container not in (near.api.request("POST", "/containers/prune").json["ContainersDeleted"] or [])
    near.tare_cli("move", "--stop", name, f"unix://{far.socket}")
    assert names(near) == []
    near.tare_cli("trash", "restore", name)
    near.docker("start", name)
    assert near.inspect(name)["State"]["Running"]


def test_what_was_given_up_goes_at_the_next_start(daemon: Tared) -> None:
    """An arrival that was only begun, one that was being deleted, layers that came a day ago and nobody sent again."""
    daemon.start()
    daemon.terminate()
    arriving = daemon.data_root / "arriving"
    (arriving / ("a" * 64) / "parts").mkdir(parents=True)
    (arriving / ".trash" / "b.1.0" / "parts").mkdir(parents=True)
    state = daemon.data_root / "tare.db"
    holder = "received:1:sha256:" + "c" * 64
    with contextlib.closing(sqlite3.connect(state)) as db:
        db.execute("INSERT INTO layer_roots (holder, diff_ids, originals) VALUES (?, '', '')", (holder,))
        db.commit()
    daemon.start()
    assert list(arriving.iterdir()) == []
    with contextlib.closing(sqlite3.connect(state)) as db:
        assert db.execute("SELECT holder FROM layer_roots WHERE holder = ?", (holder,)).fetchall() == []


def test_a_real_dockerd_is_told_apart(near: Engine, docker_engine: Engine) -> None:
    """Containers go from Tare to Tare only; nothing is stopped for nothing."""
    name = made(near)
    refused = near.tare_cli("move", "--stop", name, f"unix://{docker_engine.socket}", check=False)
    assert "is not Tare's" in refused.err and near.inspect(name)["State"]["Status"] == "running"


@pytest.mark.parametrize(
    "change",
    [{"id": "../../etc"}, {"name": "a/b"}, {"format": 9}, {"layers": 3}, {"networks": [{"name": "nowhere"}]}],
    ids=["id", "name", "format", "layers", "network"],
)
def test_descriptions_are_checked(near: Engine, far: Engine, change: dict[str, Any]) -> None:
    """Wrong ids, names, formats, shapes and networks are refused, and parts that nobody announced."""
    name = near.start()
    description = near.api.request("GET", f"/containers/{name}/departure").json["Description"]
    answer = far.api.request("POST", "/tare/arrivals", {**description, **change}, check=False)
    assert answer.status in (400, 404, 501), json.dumps(answer.json)
    assert far.api.request("PUT", f"/tare/arrivals/{description['id']}/part?name=upper", b"", check=False).status == 404
