"""`tare` on both engines: exit codes, streams, terminals, signals; its words beside those of Docker's client."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadline import wait_until
from support.engine import Engine, Result, clean_environment
from support.terminal import Terminal

TARE = [sys.executable, "-c", "from tare.cli.main import main; main()"]


class Client:
    """Runs `tare` on one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.environment = clean_environment({"TARE_HOST": f"unix://{engine.socket}"})

    def argv(self, *args: str) -> list[str]:
        return [*TARE, *self.engine.with_image(args)]

    def __call__(self, *args: str, input: bytes | None = None, timeout: float = 40) -> Result:
        done = subprocess.run(
            self.argv(*args),
            env=self.environment,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def popen(self, *args: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(self.argv(*args), env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe)

    def terminal(self, *args: str, rows: int = 24, cols: int = 80) -> Terminal:
        return Terminal(self.argv(*args), rows=rows, cols=cols, env=self.environment)


@pytest.fixture
def client(engine: Engine) -> Client:
    return Client(engine)


@pytest.fixture
def box(engine: Engine) -> Iterator[str]:
    """A running container."""
    name = engine.unique("box")
    engine.start("--name", name)
    yield name


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["true"], 0),
        (["/nope"], 127),
        (["nope"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_run_ends_with_the_containers_code(client: Client, command: list[str], code: int) -> None:
    """run returns the command's code, 127 if there is no such command, 126 if it can't be executed."""
    done = client("run", "--rm", "@", *command)
    assert done.code == code
    if code in (126, 127):
        assert done.err.startswith("tare: Error response from daemon: ")
        assert done.err.endswith("\n\nRun 'tare run --help' for more information\n")


def test_a_killed_container_is_128_and_the_signal(client: Client) -> None:
    """The code of a container that a signal killed is 128+n, for run and for wait."""
    name = client.engine.unique("kill")
    process = client.popen("run", "--name", name, "@", "sh", "-c", "echo ready; sleep 1000")
    assert process.stdout is not None
    process.stdout.readline()
    assert client("kill", name).out == f"{name}\n"
    process.communicate(timeout=100)
    assert process.returncode == 137
    assert client("wait", name).out == "137\n"
    client("rm", name)


def test_run_with_an_unknown_image(client: Client) -> None:
    """A missing image is looked for in a registry; if that fails, the code is 125."""
    done = client("run", "--rm", "localhost:1/nosuch/thing")
    assert done.code == 125
    assert done.err.startswith(
        "Unable to find image 'localhost:1/nosuch/thing:latest' locally\ntare: Error response from"
    )


def test_streams_stay_apart(client: Client) -> None:
    """Without a terminal, stdout and stderr of the container are those of the command."""
    done = client("run", "--rm", "@", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")


def test_run_reads_standard_input_to_its_end(client: Client) -> None:
    """run -i passes input on, and its end too."""
    done = client("run", "--rm", "-i", "@", "sh", "-c", "cat; echo end", input=b"some\n")
    assert (done.code, done.out) == (0, "some\nend\n")


def test_256_megabytes_through_exec(client: Client, box: str, tmp_path: Path) -> None:
    """exec -i is safe for binary data of any amount, and memory stays flat."""
    source = tmp_path / "data"
    block = os.urandom(1 << 20)
    digest = hashlib.sha256()
    with source.open("wb") as file:
        for number in range(256):
            piece = bytes([number]) + block[1:]
            digest.update(piece)
            file.write(piece)
    found = hashlib.sha256()
    with source.open("rb") as file:
        process = subprocess.Popen(
            client.argv("exec", "-i", box, "cat"),
            env=client.environment,
            stdin=file,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        with process.stdout as stdout:
            peak_kib = 0
            while piece := stdout.read(1 << 20):
                found.update(piece)
                peak_kib = max(peak_kib, peak_memory_kib(process.pid))
        assert process.wait(60) == 0
    assert found.digest() == digest.digest()
    assert 0 < peak_kib < 64 << 10


def peak_memory_kib(pid: int) -> int:
    """A process's VmHWM (proc(5)); 0 once it has ended. (ru_maxrss would begin with our own.)"""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def test_exec_that_stops_reading(client: Client, box: str) -> None:
    """A command that ends before its input does ends exec with its code."""
    done = client("exec", "-i", box, "sh", "-c", "head -c 5; exit 4", input=b"x" * (8 << 20))
    assert (done.code, done.out) == (4, "xxxxx")


def test_a_terminal_of_the_right_size(client: Client) -> None:
    """run -it gives a pty of the window's size, follows its changes, sends ctrl-c as a key, and returns the code."""
    with client.terminal("run", "--rm", "-it", "@", "sh", rows=33, cols=99) as screen:
        screen.expect(b"# ")
        screen.send(b"stty size\r")
        screen.expect(b"33 99")
        screen.resize(44, 111)
        screen.expect(b"44 111", nudge=lambda: screen.send(b"stty size\r"))
        screen.send(b"sleep 1000\r")
        screen.expect(b"a2", nudge=lambda: screen.send(b"\x03echo a$((1+1))\r"))
        screen.send(b"exit 5\r")
        assert screen.wait() == 5


def test_detaching_and_coming_back(client: Client) -> None:
    """ctrl-p ctrl-q leaves the container running; attach comes back; start -ai starts it again."""
    name = client.engine.unique("detach")
    with client.terminal("run", "-it", "--name", name, "@", "sh") as screen:
        screen.expect(b"# ")
        screen.send(b"\x10\x11")
        assert screen.wait() == 0
    assert client("inspect", "-f", "{{.State.Running}}", name).out == "true\n"
    with client.terminal("attach", name) as screen:
        screen.expect(b"a2", nudge=lambda: screen.send(b"echo a$((1+1))\r"))
        screen.send(b"\x10\x11")
        assert screen.wait() == 1
    with client.terminal("attach", "--detach-keys", "ctrl-a", name) as screen:
        screen.expect(b"# ", nudge=lambda: screen.send(b"\r"))
        screen.send(b"exit 6\r")
        assert screen.wait() == 6
    with client.terminal("start", "-ai", name) as screen:
        screen.expect(b"# ")
        screen.send(b"exit 7\r")
        assert screen.wait() == 7
    assert client("rm", name).out == f"{name}\n"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_when_killed(client: Client, end: signal.Signals) -> None:
    """A signal that ends the client leaves the terminal as it was."""
    name = client.engine.unique("killed")
    shell = f"before=$(stty -g); {' '.join(map(_quoted, client.argv('run', '--name', name, '-it', '@', 'sh')))}; "
    shell += 'echo "code $?"; test "$before" = "$(stty -g)" && echo same'
    with Terminal(["bash", "-c", shell], env=client.environment) as screen:
        screen.expect(b"# ")
        found = subprocess.run(["pgrep", "-P", str(screen.process.pid)], capture_output=True, text=True, check=True)
        os.kill(int(found.stdout.split()[0]), end)
        screen.expect(b"code %d" % (128 + end))
        screen.expect(b"same")
        screen.wait()
    client("rm", "-f", name)


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def test_signals_are_passed_on(client: Client) -> None:
    """Without a terminal a signal to the client reaches the container's process."""
    script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    process = client.popen("run", "--rm", "@", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=100)
    assert (process.returncode, out) == (9, b"got\n")


def test_the_reader_that_goes_away(client: Client, box: str) -> None:
    """A closed pipe ends the client by SIGPIPE, quietly, as it ends any command."""
    process = client.popen("exec", box, "yes")
    assert process.stdout is not None and process.stderr is not None and process.stdin is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == -signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()
    process.stdin.close()


def test_import_commit_export(client: Client, tmp_path: Path) -> None:
    """A tar becomes an image, a container of it another, and its file system a tar again."""
    first, second = (f"{client.engine.unique('img')}/x" for _ in range(2))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "hello").write_text("hi\n")
    tar = subprocess.run(["tar", "-C", str(tmp_path / "root"), "-c", "."], capture_output=True, check=True).stdout
    imported = client("import", "--change", 'CMD ["x"]', "--message", "note", "-", first, input=tar)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", imported.out)
    assert client("history", "--format", "{{.Comment}}", first).out == "note\n"
    container = client("create", first).out.strip()
    assert client("commit", "-m", "more", "-c", "ENV A=b", container, second).out.startswith("sha256:")
    assert client("image", "inspect", "-f", "{{.Config.Env}} {{.Config.Cmd}}", second).out == "[A=b] [x]\n"
    target = tmp_path / "out.tar"
    assert client("export", "-o", str(target), container).code == 0
    assert b"hello" in target.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] != []
    with client.terminal("export", container) as screen:
        screen.expect(b"cowardly refusing to save to a terminal")
        assert screen.wait() == 1
    client("rm", container)
    assert client("rmi", first, second).code == 0


def test_following_logs(client: Client) -> None:
    """logs -f shows what is there and what comes, and ends with the container."""
    name = client.engine.unique("logs")
    script = "echo one; echo two >&2; read x; echo three"
    client("create", "-i", "--name", name, "@", "sh", "-c", script)
    client("start", name)
    wait_until(lambda: client("logs", name).out == "one\n", "the first line is logged")
    follow = client.popen("logs", "-f", name)
    assert follow.stdout is not None
    assert follow.stdout.readline() == b"one\n"
    assert client("exec", name, "sh", "-c", "echo > /proc/1/fd/0").code in (0, 1, 137)  # it may go with its container
    client("attach", name, input=b"go\n")
    out, err = follow.communicate(timeout=100)
    assert (out, err) == (b"three\n", b"two\n")
    assert client("logs", "--tail", "1", name).out == "three\n"
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z one\n", client("logs", "-t", name).out)
    client("rm", name)


def test_the_doctor(client: Client) -> None:
    """doctor shows the engine's findings, and says so clearly where the engine has no doctor."""
    done = client("doctor")
    if client.engine.is_tare:
        assert done.code == 0
        assert re.match(r"LEVEL +NAME +FOUND\n", done.out)
        assert "kernel" in done.out
    else:
        assert (done.code, done.out) == (1, "")
        assert done.err == "tare: this engine has no doctor (it is not Tare's, or an older one)\n"


COMPARED = """
ps
ps -a --no-trunc
ps -aq
ps -s
ps --format json
ps --format '{{json .}}'
ps --format 'table {{.ID}}\\t{{.Names}}\\t{{.Label "com.x.y"}}\\t{{.Ports}}'
ps --format '{{if eq .State "running"}}up{{else}}down{{end}} {{upper .Names}} {{truncate .ID 5}} {{.CreatedAt}}'
ps --format '{{range $i, $e := split .Names "-"}}{{$i}}={{$e}};{{end}}{{println .Image}}'
ps --format '{{.Foo}}'
ps --format '{{.ID'
ps --format '{{foo .ID}}'
ps --format raw
ps --filter name=nosuch
ps --filter nonsense=x
inspect BOX
inspect BOX nosuch
inspect -f json BOX
inspect -f '{{.Name}} {{.State.Running}} {{.Config.Cmd}} {{.Config.Labels}} {{len .Mounts}}' BOX
inspect -f '{{index .Config.Labels "com.x.y"}} {{.Config.Labels.nope}} {{json .State}}' BOX
inspect -f '{{range $p, $c := .NetworkSettings.Ports}}{{$p}}={{(index $c 0).HostPort}} {{end}}' BOX
inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}/{{.IPPrefixLen}}{{end}}' BOX
inspect -f '{{.State.Foo}}' BOX
inspect -f '{{.Foo' BOX
inspect --type image BOX
container inspect nosuch
image inspect IMAGE
image inspect nosuch
network inspect bridge
network ls
network ls --format '{{json .}}'
images
images -q --no-trunc
images --digests
images --format 'table {{.ID}}\\t{{.Repository}}:{{.Tag}}\\t{{.Size}}'
images nosuch
history IMAGE
history --no-trunc --format '{{json .}}' IMAGE
volume ls
version --format '{{.Server.Version}} {{.Server.APIVersion}} {{.Server.Os}}'
info --format '{{.ServerVersion}} {{.Driver}} {{.NCPU}}'
port BOX
port BOX 80
port BOX 81
port BOX 80/udp
diff BOX
top BOX
logs BOX
events --since 5m --until 0s --filter container=BOX --filter event=create
events --since 5m --until 0s --filter container=BOX --filter event=create --format '{{json .}}'
events --since 5m --until 0s --filter container=BOX --filter event=start --format '{{.Type}} {{.Actor.Attributes.name}}'
stats --no-stream --format '{{.Name}} {{.PIDs}}' BOX
stats --no-stream nosuch
start nosuch
stop nosuch other
restart nosuch
kill nosuch
kill -s NOPE BOX
rm nosuch
rm BOX
unpause BOX
wait nosuch
rename BOX BOX
rename nosuch x
tag nosuch a/b
tag IMAGE Foo
rmi nosuch
rmi -f nosuch
commit nosuch
export nosuch
export -o /nope/x BOX
exec nosuch true
exec BOX sh -c 'exit 9'
exec -it BOX true
attach nosuch
logs nosuch
update BOX
update --cpu-shares 512 BOX
run -it IMAGE true
run --name BOX IMAGE true
container foo
foo
"""


@pytest.fixture(scope="module")
def compared(dockerd: object) -> Iterator[tuple[Client, str]]:
    engine: Engine = dockerd.engine  # type: ignore[attr-defined]
    name = engine.unique("compared")
    engine.docker(
        "run",
        "-d",
        "--name",
        name,
        "-p",
        "127.0.0.1::80",
        "-l",
        "a=b",
        "-l",
        "com.x.y=z",
        engine.image,
        "sleep",
        "1000",
    )
    yield Client(engine), name
    engine.docker("rm", "-f", name)


@pytest.mark.parametrize("line", [line for line in COMPARED.splitlines() if line])
def test_the_same_words_as_docker(compared: tuple[Client, str], line: str) -> None:
    """The same command line on the same engine prints the same and ends with the same code as Docker's client."""
    import shlex

    client, name = compared
    engine = client.engine
    if " 28." not in engine.docker("--version").out:
        pytest.skip("Docker differs here: its client isn't 28.x")
    words = [word.replace("BOX", name).replace("IMAGE", engine.image) for word in shlex.split(line)]

    def both() -> tuple[list[object], list[object]]:
        own, docker = client(*words), engine.docker(*words, check=False)
        return [own.code, *_settled(own.out, own.err)], [docker.code, *_settled(docker.out, docker.err)]

    for _attempt in range(3):  # ages may tick between the two
        own, docker = both()
        if own == docker:
            return
    assert own == docker


def _settled(*texts: str) -> list[str]:
    """Without the client's own name, and without ages, which tick."""
    neutral = [text.replace("docker", "tare").replace("Docker", "Tare") for text in texts]
    return [re.sub(r"(About an?|Less than a|\d+) (second|minute|hour)s?( ago)?\s*", "AGE ", text) for text in neutral]
