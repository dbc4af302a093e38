"""The Python library, both faces on both engines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import tare
from support.engine import Engine
from tare.sdk.errors import InvalidArgument, UnsafeArchive
from tare.sdk.records import Health


def test_run_gives_output_and_exit_code(client: Any, box: str, engine: Engine) -> None:
    """run returns what was printed, apart by stream, and the code; nothing is left of the container."""
    result = client.run(box, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.exit_code, result.output, result.errors, result.ok) == (3, "out\n", "err\n", False)
    assert client.run(box, "echo 'two words'").output == "two words\n"
    assert engine.containers() == []


def test_run_carries_input_both_ways_at_once(client: Any, box: str) -> None:
    """3 MiB through `cat` neither lock up nor change."""
    data = os.urandom(3 << 20)
    assert client.run(box, ["cat"], input=data).stdout == data
    assert client.run(box, "head -c 3", input=data).stdout == data[:3]


def test_check_raises_what_the_command_said(client: Any, box: str) -> None:
    """check=True makes an exit code other than 0 an error that has the result."""
    with pytest.raises(tare.CommandFailed, match="ended with exit code 4: broken") as caught:
        client.run(box, ["sh", "-c", "echo broken >&2; exit 4"], check=True)
    assert caught.value.result.exit_code == 4


def test_run_that_takes_too_long_is_removed(client: Any, box: str, engine: Engine) -> None:
    """After timeout_s run raises TimeoutError, and the container is gone."""
    with pytest.raises(TimeoutError):
        client.run(box, "sleep 1000", timeout_s=0.5)
    assert engine.containers() == []


def test_a_throwaway_container_goes_with_its_block(client: Any, box: str, engine: Engine) -> None:
    """The container runs inside `with` and is removed at its end, also by an error, also if it was removed inside."""
    with (
        pytest.raises(ZeroDivisionError),
        client.container(box, "sleep 1000", ports={80: 0, "53/udp": ("127.0.0.1", 0)}, labels={"a": "b"}) as c,
    ):
        details = c.inspect()
        assert (details.state, details.running, details.labels["a"]) == ("running", True, "b")
        assert c.host_port(80) > 0
        assert c.host_port("53/udp") > 0
        with pytest.raises(LookupError):
            c.host_port(81)
        _ = 1 / 0
    assert engine.containers() == []
    with client.container(box, "sleep 1000") as c:
        c.remove(force=True)
    with pytest.raises(tare.ApiError), client.container(box, "/nosuch"):
        pass
    assert engine.containers() == []


def test_exec(client: Any, box: str) -> None:
    """exec gives output and code, takes input, environment, user, directory and a terminal."""
    with client.container(box, "sleep 1000") as c:
        result = c.exec(["sh", "-c", "cat; echo err >&2; exit 5"], input="in")
        assert (result.exit_code, result.output, result.errors) == (5, "in", "err\n")
        command = ["sh", "-c", "echo $A $(id -u) $(pwd)"]
        assert c.exec(command, environment={"A": "x"}, user="7", working_dir="/tmp").output == "x 7 /tmp\n"
        assert c.exec(["sh", "-c", "test -t 1 && echo tty"], tty=True).output == "tty\r\n"
        with pytest.raises(tare.CommandFailed):
            c.exec("false", check=True)
        with pytest.raises(TimeoutError):
            c.exec("sleep 1000", timeout_s=0.3)


def test_a_conversation_with_a_process(client: Any, box: str) -> None:
    """open_exec talks line by line, ends the input alone, and has the code at the end."""
    with client.container(box, "sleep 1000") as c, c.open_exec(["sh", "-c", "cat; exit 9"]) as talk:
        for line in ("one\n", "two\n"):
            talk.send(line)
            assert next(talk).text == line
        talk.end_input()
        assert list(talk) == []
        assert talk.exit_code() == 9


def test_attach_talks_to_the_first_process(client: Any, box: str) -> None:
    """attach before start sees everything from the first byte."""
    c = client.containers.create(box, "cat", stdin_open=True, extra_config={"StdinOnce": True})
    with c, c.attach() as talk:
        c.start()
        talk.send("hello\n")
        assert next(talk).text == "hello\n"
        talk.end_input()
        assert talk.exit_code() == 0


def test_logs_and_waiting_for_a_line(client: Any, box: str) -> None:
    """logs has what was printed, stream_logs keeps streams apart, wait_log ends at the line or with the container."""
    with client.container(box, ["sh", "-c", "echo first; echo second >&2; read x; echo bye"], stdin_open=True) as c:
        assert [c.wait_log(pattern, timeout_s=20) for pattern in ("^fir", "^sec")] == ["first", "second"]
        assert c.logs(stderr=False) == "first\n"
        assert c.logs(tail=5, stdout=False) == "second\n"
        with pytest.raises(TimeoutError):
            c.wait_log("never", timeout_s=0.3)
        with c.attach() as talk:
            talk.send("\n")
            assert c.wait(timeout_s=20) == 0
        with c.stream_logs() as chunks:
            assert sorted((chunk.stream, chunk.text) for chunk in chunks) == [
                ("stderr", "second\n"),
                ("stdout", "bye\n"),
                ("stdout", "first\n"),
            ]
        with pytest.raises(tare.ContainerEnded):
            c.wait_log("never", timeout_s=20)


def test_a_container_with_a_terminal(client: Any, box: str) -> None:
    """With tty=True everything is one stream, in run, logs, attach and waiting; its size can be set."""
    assert client.run(box, "sh -c 'echo out; echo err >&2'", tty=True).output == "out\r\nerr\r\n"
    with client.container(box, ["sh", "-c", "echo up; read x; stty size; exit 2"], tty=True, stdin_open=True) as c:
        assert c.wait_log("up", timeout_s=20) == "up"
        with c.attach() as talk:
            talk.resize(33, 77)
            talk.send("\n")
            assert "33 77" in "".join(chunk.text for chunk in talk)
            assert talk.exit_code() == 2
        assert c.logs().endswith("33 77\r\n")
        with c.stream_logs() as chunks:
            assert {chunk.stream for chunk in chunks} == {"stdout"}


def test_events_are_seen_from_the_moment_of_entering(client: Any, box: str, engine: Engine) -> None:
    """What happens after `with engine.events()` began is among the events."""
    name = engine.unique()
    with client.events(type="container", container=name) as events:
        with client.container(box, "sleep 1000", name=name) as c:
            pass
        seen = []
        for event in events:
            seen.append(event.action)
            assert (event.kind, event.id, event.attributes["name"]) == ("container", c.id, name)
            if event.action == "destroy":
                break
    assert seen == ["create", "start", "kill", "die", "destroy"] or seen == ["create", "start", "die", "destroy"]


def test_mounts_and_networks_of_a_running_container(client: Any, box: str, engine: Engine) -> None:
    """What Docker's engine can't: they come and go while it runs."""
    if not engine.is_tare:
        pytest.skip("Docker differs here: it changes limits only")
    with client.containers.create(box, ["sleep", "1000"]) as c:
        c.start()
        c.update(mount={"/tmp": "/there:ro"}, disconnect=["bridge"])
        found = c.inspect().raw
        assert [(m["Destination"], m["RW"]) for m in found["Mounts"]] == [("/there", False)]
        assert not found["NetworkSettings"]["Networks"]
        c.update(unmount=["/there"], connect=["bridge"])
        found = c.inspect().raw
        assert not found["Mounts"] and "bridge" in found["NetworkSettings"]["Networks"]


def test_the_life_of_a_container(client: Any, box: str, engine: Engine) -> None:
    """Each verb does what it says; starting what runs and stopping what doesn't are no errors."""
    name = engine.unique()
    with client.containers.create(box, ["sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.1; done"], name=name) as c:
        assert c.inspect().state == "created"
        c.start()
        c.start()
        c.pause()
        assert c.inspect().paused
        c.unpause()
        c.update(memory="64m", memory_swap="128m", pids_limit=50)
        assert c.inspect().raw["HostConfig"]["Memory"] == 64 << 20
        c.rename(name + "x")
        assert client.containers.get(name + "x").id == c.id
        assert [one.name for one in client.containers.list(name=name)] == [name + "x"]
        c.stop(timeout_s=20)
        c.stop()
        assert c.wait() == 6
        assert c.inspect().exit_code == 6
        assert c.inspect().finished is not None
        assert client.containers.list(name=name) == []
        assert [one.state for one in client.containers.list(all=True, name=name)] == ["exited"]


def test_errors_are_told_apart(client: Any, box: str, engine: Engine) -> None:
    """What isn't there, what is taken, what is wrong: a class for each, with status and the engine's own words."""
    with pytest.raises(tare.NotFound, match="No such container: nosuch") as caught:
        client.containers.get("nosuch")
    assert caught.value.status == 404
    with client.containers.create(box, name=engine.unique()) as c:
        name = c.inspect().name
        with pytest.raises(tare.Conflict, match="already in use"):
            client.containers.create(box, name=name)
    with pytest.raises(InvalidArgument):
        client.containers.create(box, name="/not/a/name")
    with pytest.raises(TypeError, match="nonsense"):
        client.containers.create(box, nonsense=1)
    with pytest.raises(tare.NotFound, match="nosuchimage"):
        client.run("localhost:1/nosuchimage", "true")


def test_what_a_container_uses(client: Any, box: str) -> None:
    """stats and top have figures of the container."""
    with client.container(box, "sleep 1000", memory="64m") as c:
        stats = c.stats()
        assert stats.memory_limit_bytes == 64 << 20
        assert 0 < stats.memory_percent < 100
        assert stats.processes == 1
        assert [line["CMD"] for line in c.top()] == ["sleep 1000"]
        with c.stream_stats() as several:
            assert next(several).cpu_total_ns <= next(several).cpu_total_ns


def test_files_in_and_out(client: Any, box: str, tmp_path: Path) -> None:
    """Contents, modes and trees go into a container and come out the same."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(os.urandom(1 << 20))
    with client.container(box, "sleep 1000") as c:
        c.files.write("/tmp/note", "hello\n", mode=0o640)
        assert c.exec("stat -c %a /tmp/note").output == "640\n"
        assert c.files.read("/tmp/note") == b"hello\n"
        info = c.files.info("/tmp/note")
        assert (info.name, info.size_bytes, info.mode, info.is_directory) == ("note", 6, 0o640, False)
        c.files.put(tree, "/tmp/copy")
        back = c.files.get("/tmp/copy", tmp_path)
        assert back == tmp_path / "copy"
        assert (back / "sub" / "file").read_bytes() == (tree / "sub" / "file").read_bytes()
        with pytest.raises(tare.NotFound):
            c.files.read("/nosuch")
        with pytest.raises(IsADirectoryError):
            c.files.read("/tmp")
        assert ("/tmp/note", "added") in [(change.path, change.kind) for change in c.changes()]


def test_a_container_cannot_make_get_write_elsewhere(client: Any, box: str, tmp_path: Path) -> None:
    """A tree from a container that has links out of it is refused, not followed."""
    with client.container(box, ["sh", "-c", "mkdir /t && ln -s /etc /t/out && sleep 1000"]) as c:
        while not c.exec("test -L /t/out").ok:
            pass
        with pytest.raises(UnsafeArchive, match="link"):
            c.files.get("/t", tmp_path)


def test_images(client: Any, box: str, engine: Engine, tmp_path: Path) -> None:
    """An image is tagged, found, saved, removed and loaded again; a container becomes one."""
    name = f"{engine.unique('image')}:v1"
    client.images.tag(box, name)
    assert name in client.images.get(name).tags
    assert [name in image.tags for image in client.images.list(reference=name)] == [True]
    assert client.images.history(name)
    client.images.save(name, tmp_path / "image.tar")
    assert f"{name}" in client.images.remove(name)
    with pytest.raises(tare.NotFound):
        client.images.get(name)
    assert client.images.load(tmp_path / "image.tar") == [name]
    client.images.remove(name)
    with client.container(box, ["sh", "-c", "echo kept > /kept; sleep 1000"]) as c:
        while not c.exec("test -s /kept").ok:
            pass
        made = c.commit(f"{engine.unique('image')}:v2", message="a test")
    try:
        assert client.run(made, "cat /kept").output == "kept\n"
    finally:
        client.images.remove(made, force=True)


def test_volumes(client: Any, box: str, engine: Engine) -> None:
    """A volume keeps what one container wrote for the next."""
    made = client.volumes.create(engine.unique("volume"), labels={"a": "b"})
    try:
        assert made.labels == {"a": "b"}
        client.run(box, ["sh", "-c", "echo kept > /v/file"], volumes={made.name: "/v"}, check=True)
        assert client.run(box, "cat /v/file", volumes=[f"{made.name}:/v:ro"]).output == "kept\n"
        assert [one.name for one in client.volumes.list(name=made.name)] == [made.name]
    finally:
        client.volumes.remove(made.name)
    with pytest.raises(tare.NotFound):
        client.volumes.get(made.name)


def test_trash(client: Any, box: str, engine: Engine) -> None:
    """What was removed is listed, comes back under its name or another, or goes for good."""
    if not engine.is_tare:
        pytest.skip("Docker differs here: it has no trash")
    name = client.volumes.create(engine.unique("volume")).name
    client.volumes.remove(name)
    (waiting,) = [entry for entry in client.trash.list("volume") if entry.name == name]
    assert waiting.kind == "volume" and waiting.removed < waiting.until
    assert client.trash.restore(name, f"{name}-2", kind="volume") == f"{name}-2"
    client.volumes.remove(f"{name}-2")
    assert len(client.trash.empty(f"{name}-2").removed) == 1
    with pytest.raises(tare.NotFound):
        client.trash.restore(name)


def test_waiting_for_health(client: Any, box: str) -> None:
    """wait_healthy returns when the check has passed, and tells what can never be."""
    health = Health("test -e /ok", interval_s=0.1, retries=1000)
    with client.container(box, ["sh", "-c", "sleep 0.5; touch /ok; sleep 1000"], health=health) as c:
        c.wait_healthy(timeout_s=30)
        assert c.inspect().health == "healthy"
    with client.container(box, "sleep 1000") as c, pytest.raises(ValueError, match="no health check"):
        c.wait_healthy()


def test_options_arrive(client: Any, box: str) -> None:
    """Options in Python's form reach the container."""
    script = (
        "echo $A; hostname; id -u; pwd; grep -c ' /scratch tmpfs' /proc/mounts; ulimit -n; cat /etc/hosts; touch /x"
    )
    result = client.run(
        box,
        ["sh", "-c", script],
        environment={"A": "x"},
        hostname="me",
        user="5",
        working_dir="/tmp",
        tmpfs={"/scratch": "size=1m"},
        ulimits={"nofile": (100, 200)},
        extra_hosts={"elsewhere": "1.2.3.4"},
        read_only=True,
        cap_drop=["ALL"],
        init=False,
    )
    lines = result.output.splitlines()
    assert lines[:6] == ["x", "me", "5", "/tmp", "1", "100"]
    assert "1.2.3.4\telsewhere" in lines
    assert "Read-only" in result.errors


def test_the_engine_itself(client: Any, engine: Engine) -> None:
    """version, info, ping and any other call."""
    client.ping()
    assert client.version().os == "linux"
    assert client.info().cpus == os.cpu_count()
    assert client.request("GET", "/containers/json", {"all": True}) == []
    assert client.networks.get("bridge").driver == "bridge"


def test_networks_have_keywords(client: Any, box: str, engine: Engine) -> None:
    """networks.create takes gateway, range, IPv6 and, on Tare, an egress policy; so does run."""
    own = {"egress": "allow=10.0.0.0/8"} if engine.is_tare else {}
    made = client.networks.create(
        "words-net", subnet="10.213.0.0/24", gateway="10.213.0.9", ip_range="10.213.0.128/25", ipv6=True,
        subnet6="fd00:213::/64", **own,
    )  # fmt: skip
    try:
        config = client.request("GET", f"/networks/{made.id}")
        assert [pool["Subnet"] for pool in config["IPAM"]["Config"]] == ["10.213.0.0/24", "fd00:213::/64"]
        assert config["IPAM"]["Config"][0]["Gateway"] == "10.213.0.9" and config["EnableIPv6"]
        if engine.is_tare:
            assert config["Options"] == {"tare.network.egress": "allow=10.0.0.0/8"}
            assert client.run(box, "ip route", network="words-net", egress="none").ok
    finally:
        client.networks.remove("words-net")
