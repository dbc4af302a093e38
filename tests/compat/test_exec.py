"""exec: streams, identities, exit codes, and large input without loss; on both engines."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.deadline import wait_until
from support.engine import Engine
from support.rawhttp import demultiplex, read_all


@pytest.fixture(scope="module")
def running(any_engine: Engine) -> str:
    """One running container for the whole file."""
    return any_engine.start(flags=["-e", "FROM_RUN=1", "--workdir", "/home"])


@pytest.fixture
def engine(any_engine: Engine) -> Engine:
    """Both engines; the container of this file stays until its end."""
    return any_engine


@pytest.fixture(scope="module", autouse=True)
def removed(any_engine: Engine) -> object:
    """The file's container is removed at its end."""
    yield
    any_engine.clean()


def test_streams_stay_apart(engine: Engine, running: str) -> None:
    """stdout and stderr of the exec'd program arrive on the client's own."""
    result = engine.docker("exec", running, "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [(["true"], 0), (["sh", "-c", "exit 33"], 33), (["sh", "-c", "kill -9 $$"], 137), (["nope"], 127), (["/etc"], 126)],
)
def test_exit_codes(engine: Engine, running: str, command: list[str], code: int) -> None:
    """exec exits as its program did; 127 and 126 as run does."""
    wanted = {126, 127} if code == 127 and not engine.is_tare else {code}  # Docker before 25 said 126 for both
    assert engine.docker("exec", running, *command, check=False).code in wanted


def test_environment_user_and_directory(engine: Engine, running: str) -> None:
    """exec inherits the container's environment and directory; -e, -u and -w change them."""
    shown = engine.docker("exec", running, "sh", "-c", "echo $FROM_RUN $HOME; pwd; id -u").out.split()
    assert shown == ["1", "/root", "/home", "0"]
    flags = ["-e", "MORE=2", "-u", "web", "-w", "/tmp"]
    script = "echo $FROM_RUN $MORE; pwd; id -u; id -g; id -G"
    shown = engine.docker("exec", *flags, running, "sh", "-c", script).out.split()
    assert shown[:5] == ["1", "2", "/tmp", "101", "102"]
    assert set(shown[5:]) == {"102", "6", "29"}
    assert engine.docker("exec", "-u", "4242:4343", running, "id", "-g").out == "4343\n"
    assert engine.docker("exec", "-u", "ghost", running, "id", check=False).code != 0


@pytest.mark.parametrize(
    ("flags", "text"),
    [(["-w", "no/path"], "Cwd must be an absolute path"), (["-u", "ghost"], "unable to find user ghost")],
)
def test_what_can_not_be_started_has_a_code(engine: Engine, running: str, flags: list[str], text: str) -> None:
    """An exec that the engine refuses at its start has ended with 126, and does not seem to run for ever.

    Docker 28 looks for the user before it makes an exec, and takes what runc refuses for an error of its own.
    """
    result = engine.docker("exec", *flags, running, "true", check=False)
    assert result.code == 126 or (engine.name == "docker" and engine.release > 20 and result.code in (1, 128))
    assert text in result.out + result.err
    assert not engine.inspect(running)["ExecIDs"]


def test_same_namespaces(engine: Engine, running: str) -> None:
    """The exec'd program is in every namespace of the container, and not pid 1."""
    script = "for n in mnt net uts ipc pid; do a=$(readlink /proc/1/ns/$n); b=$(readlink /proc/self/ns/$n); "
    script += '[ "$a" = "$b" ] || echo $n; done; echo $$'
    shown = engine.docker("exec", running, "sh", "-c", script).out.split()
    assert len(shown) == 1 and int(shown[0]) > 1


def test_same_cgroup(engine: Engine, running: str) -> None:
    """The exec'd program is in the container's cgroups."""
    assert (
        engine.docker("exec", running, "sh", "-c", "diff /proc/1/cgroup /proc/self/cgroup && echo same").out == "same\n"
    )


def test_detached(engine: Engine, running: str) -> None:
    """exec -d returns at once and the program runs on."""
    assert engine.docker("exec", "-d", running, "sh", "-c", "echo x > /tmp/made; sleep 777").out == ""
    wait_until(lambda: engine.docker("exec", running, "cat", "/tmp/made", check=False).out == "x\n", "it ran")
    assert "sleep 777" in engine.docker("top", running).out
    engine.docker("exec", running, "sh", "-c", "kill $(pidof sleep | tr ' ' '\n' | grep -vx 1)")


def test_terminal_without_one(engine: Engine, running: str) -> None:
    """exec -t gives a terminal even when the client has none."""
    assert engine.docker("exec", "-t", running, "sh", "-c", "test -t 1 && echo yes").out == "yes\r\n"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_the_start_says_whether_frames_come(engine: Engine, running: str, terminal: bool, raw: bool) -> None:
    """Tty of the start request chooses between frames and raw bytes; Tty of the creation gives the terminal."""
    created = engine.api.request(
        "POST",
        f"/containers/{running}/exec",
        {"Cmd": ["echo", "hi"], "AttachStdout": True, "AttachStderr": True, "Tty": terminal},
    )
    _, _, sock, rest = engine.api.hijack(f"/exec/{created.json['Id']}/start", {"Detach": False, "Tty": raw})
    with sock:
        data = read_all(sock, rest)
    assert (data if raw else demultiplex(data)[1]) == (b"hi\r\n" if terminal else b"hi\n")


def test_resize_before_the_process_runs(engine: Engine, running: str) -> None:
    """A resize that comes with the start request, or before it, waits for the process."""
    created = engine.api.request(
        "POST",
        f"/containers/{running}/exec",
        {"Cmd": ["sh", "-c", "read x"], "AttachStdin": True, "AttachStdout": True, "Tty": True},
    )
    exec_id = created.json["Id"]
    with ThreadPoolExecutor(1) as pool:
        resized = pool.submit(engine.api.request, "POST", f"/exec/{exec_id}/resize", query={"h": "30", "w": "90"})
        _, _, sock, rest = engine.api.hijack(f"/exec/{exec_id}/start", {"Detach": False, "Tty": True})
        with sock:
            assert resized.result().status in (200, 201), resized.result()
            sock.sendall(b"\n")
            read_all(sock, rest)


def test_stdin_ends(engine: Engine, running: str) -> None:
    """exec -i passes stdin to its end; without -i there is none."""
    assert engine.docker("exec", "-i", running, "cat", input="abc").out == "abc"
    assert engine.docker("exec", running, "cat", input="abc").out == ""
    assert engine.docker("exec", "-i", running, "wc", "-c", input=b"\0\1\xff" * 1000).out.strip() == "3000"


def test_256_mib_through_cat(engine: Engine, running: str) -> None:
    """256 MiB piped through `exec -i cat` come out with the same digest."""
    block = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    client = engine.popen("exec", "-i", running, "cat", stderr=None)
    assert client.stdin is not None and client.stdout is not None
    writer = os.fork()
    if writer == 0:
        for _ in range(256):
            _write(client.stdin.fileno(), block)
        os._exit(0)
    client.stdin.close()
    while chunk := client.stdout.read(1 << 20):
        received.update(chunk)
    os.waitpid(writer, 0)
    assert client.wait(60) == 0
    for _ in range(256):
        sent.update(block)
    assert sent.digest() == received.digest()


def _write(fd: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]


def test_output_without_reader_is_whole(engine: Engine, running: str) -> None:
    """20 MiB that the program writes faster than anybody reads arrive whole."""
    result = engine.docker("exec", running, "dd", "if=/dev/zero", "bs=1M", "count=20")
    assert len(result.out) == 20 << 20


def test_inspect_of_an_exec(engine: Engine, running: str) -> None:
    """The API tells of an exec before, while and after it runs; the container lists the ones that run."""
    body = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Env": ["A=1"]}
    made = engine.api.request("POST", f"/containers/{running}/exec", body).json["Id"]
    shown = engine.api.request("GET", f"/exec/{made}/json").json
    assert (shown["Running"], shown["ExitCode"], shown["ContainerID"]) == (False, None, running)
    assert shown["ProcessConfig"]["entrypoint"] == "cat" and shown["ProcessConfig"]["arguments"] == []
    status, headers, sock, rest = engine.api.hijack(f"/exec/{made}/start", {"Detach": False, "Tty": False})
    assert status == 101 and headers["upgrade"] == "tcp"
    assert headers["content-type"] in ("application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream")
    wait_until(lambda: engine.api.request("GET", f"/exec/{made}/json").json["Running"], "it runs")
    assert made in engine.inspect(running)["ExecIDs"]
    sock.sendall(b"hello")
    sock.shutdown(1)
    assert demultiplex(read_all(sock, rest)) == {1: b"hello", 2: b""}
    sock.close()
    shown = wait_until(lambda: _ended(engine, made), "it has ended")
    assert shown["ExitCode"] == 0
    again = engine.api.request("POST", f"/exec/{made}/start", {"Detach": True})
    assert again.status == 409 and f"xec command {made} has already run" in again.message


def _ended(engine: Engine, made: str) -> dict[str, object]:
    shown: dict[str, object] = engine.api.request("GET", f"/exec/{made}/json").json
    return {} if shown["Running"] else shown


@pytest.mark.parametrize("engine", ["tare"], indirect=True)  # dockerd forgets execs when their container ends
def test_an_exec_that_ends_its_container_keeps_its_code(engine: Engine) -> None:
    """The exit code can be asked for although the container has ended meanwhile."""
    container = engine.start(command=["sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done"])
    made = engine.api.request("POST", f"/containers/{container}/exec", {"Cmd": ["touch", "/go"]}).json["Id"]
    engine.api.request("POST", f"/exec/{made}/start", {"Detach": True})
    engine.api.request("POST", f"/containers/{container}/wait")
    assert wait_until(lambda: _ended(engine, made), "it has ended")["ExitCode"] == 0


def test_exec_in_a_stopped_container(engine: Engine) -> None:
    """exec in a container that doesn't run is refused."""
    container = engine.docker("create", engine.image).out.strip()
    refused = engine.docker("exec", container, "true", check=False)
    assert refused.code == 1 and f"Container {container} is not running" in refused.err.replace(
        "container ", "Container "
    )
    engine.docker("rm", container)


def test_privileged_exec_keeps_inheritable_empty(engine: Engine, running: str) -> None:
    """Whatever exec is given, CapInh stays 0."""
    shown = engine.docker("exec", running, "grep", "-E", "Cap(Inh|Bnd)", "/proc/self/status").out.split()
    assert int(shown[1], 16) == 0 and int(shown[3], 16) == 0xA80425FB
