"""The OCI command line: the same tests with tare-runtime and with runc, where one is installed."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bundles import Machine, changed, read_all

from tare.oci.runtime_spec import Hook, Hooks, LinuxMemory, LinuxResources, Spec, format_spec

DEADLINE_S = 80
# Compiled modules may be kept: a verb is a process of its own.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
SLEEP = ("sleep", "1000")


class Runtime:
    """One runtime with a root directory of its own."""

    def __init__(self, command: list[str], machine: Machine) -> None:
        self.command = [*command, "--root", str(machine.directory / "state")]
        self.machine = machine
        self.id = machine.id
        self.bundle = machine.directory / "bundle"
        self.bundle.mkdir()

    def write(self, spec: Spec) -> None:
        (self.bundle / "config.json").write_bytes(format_spec(spec))

    def call(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs a verb; its own output goes to files, since a container holds on to what it inherits."""
        directory = self.machine.directory
        with open(directory / "output", "w+") as output, open(directory / "errors", "w+") as errors:
            defaults: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": errors}
            everything: dict[str, Any] = {**defaults, "env": ENVIRONMENT, "timeout": DEADLINE_S, **options}
            done = subprocess.run([*self.command, *words], text=True, **everything)
        texts = [(self.machine.directory / name).read_text() for name in ("output", "errors")]
        return subprocess.CompletedProcess(done.args, done.returncode, *texts)

    def ok(self, *words: str, **options: Any) -> str:
        done = self.call(*words, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, spec: Spec, *words: str) -> None:
        self.write(spec)
        self.ok("create", "--bundle", str(self.bundle), *words, self.id)

    def status(self) -> str:
        state: dict[str, Any] = json.loads(self.ok("state", self.id))
        return str(state["status"])

    def pid(self) -> int:
        return int(json.loads(self.ok("state", self.id))["pid"])

    def wait_status(self, wanted: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while self.status() != wanted:
            assert time.monotonic() < end, f"not {wanted}"
            select.select([], [], [], 0.01)


@pytest.fixture(params=["tare", "runc"])
def runtime(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Runtime]:
    if request.param == "runc":
        path = shutil.which("runc")
        if path is None:
            pytest.skip("no runc is installed (Debian: runc)")
        made = Runtime([path], machine)
    else:
        made = Runtime([sys.executable, "-m", "tare.runtime.command"], machine)
    yield made
    made.call("delete", "--force", made.id)


@pytest.fixture
def tare_runtime(machine: Machine) -> Iterator[Runtime]:
    made = Runtime([sys.executable, "-m", "tare.runtime.command"], machine)
    yield made
    made.call("delete", "--force", made.id)


def test_run_ends_as_the_program_ends(runtime: Runtime) -> None:
    """Output, exit code, and nothing left."""
    runtime.write(runtime.machine.shell("echo hello; exit 7"))
    done = runtime.call("run", "-b", str(runtime.bundle), runtime.id)
    assert (done.returncode, done.stdout) == (7, "hello\n")
    assert "does not exist" in runtime.call("state", runtime.id).stderr


def test_a_container_goes_from_created_to_running_to_stopped(runtime: Runtime) -> None:
    """The specification's life cycle, with its state document."""
    mark = runtime.machine.rootfs / "mark"
    pid_file = runtime.machine.directory / "pid"
    runtime.create(runtime.machine.shell("echo > /mark; exec sleep 1000"), "--pid-file", str(pid_file))
    state = json.loads(runtime.ok("state", runtime.id))
    assert (state["id"], state["status"], state["bundle"]) == (runtime.id, "created", str(runtime.bundle))
    assert state["pid"] == int(pid_file.read_text())
    assert not mark.exists()
    runtime.ok("start", runtime.id)
    assert runtime.status() == "running"
    assert runtime.call("start", runtime.id).returncode == 1
    done = runtime.call("delete", runtime.id)
    assert done.returncode == 1 and "that is not stopped" in done.stderr
    runtime.ok("kill", runtime.id, "KILL")
    runtime.wait_status("stopped")
    assert mark.exists()
    assert "not running" in runtime.call("kill", runtime.id).stderr
    assert "stopped" in runtime.call("exec", runtime.id, "true").stderr
    runtime.ok("delete", runtime.id)
    assert json.loads(runtime.ok("list", "--format", "json") or "null") in (None, [])


def test_an_id_is_used_once(runtime: Runtime) -> None:
    """And the first container is not harmed."""
    runtime.create(runtime.machine.spec(*SLEEP))
    done = runtime.call("create", "--bundle", str(runtime.bundle), runtime.id)
    assert done.returncode == 1 and "container with given ID already exists" in done.stderr
    assert runtime.status() == "created"
    runtime.ok("delete", runtime.id)


def test_an_unknown_container_is_told(runtime: Runtime) -> None:
    """`delete --force` passes it over."""
    for verb in ("state", "start", "kill", "delete"):
        done = runtime.call(verb, "nobody")
        assert done.returncode == 1 and "container does not exist" in done.stderr
    runtime.ok("delete", "--force", "nobody")


@pytest.mark.parametrize("name", ["..", "a/b", "", "a b", "../x"])
def test_an_id_that_is_no_name_is_refused(runtime: Runtime, name: str) -> None:
    """moby-4f84bcb967: before it is used as a path."""
    runtime.write(runtime.machine.spec("true"))
    assert runtime.call("create", "--bundle", str(runtime.bundle), name).returncode == 1


def test_a_missing_command_is_told_by_create(runtime: Runtime) -> None:
    """In the log too, where containerd reads it; nothing is left."""
    runtime.write(runtime.machine.spec("nope"))
    log = runtime.machine.directory / "log"
    runtime.command += ["--log", str(log), "--log-format", "json"]
    done = runtime.call("create", "--bundle", str(runtime.bundle), runtime.id)
    assert done.returncode == 1
    errors = [json.loads(line) for line in log.read_text().splitlines()]
    text = next(entry["msg"] for entry in errors if entry["level"] == "error")
    assert 'exec: "nope": executable file not found in $PATH' in text
    assert "does not exist" in runtime.call("state", runtime.id).stderr


def test_exec_runs_in_the_container(runtime: Runtime) -> None:
    """Exit codes, options, a process document, a pid file."""
    spec = runtime.machine.spec(*SLEEP)
    runtime.create(spec)
    runtime.ok("start", runtime.id)
    words = ("exec", "--cwd", "/tmp", "--env", "A=1", runtime.id, "sh", "-c", "pwd; echo $A; hostname; exit 5")
    done = runtime.call(*words)
    assert (done.returncode, done.stdout.split()) == (5, ["/tmp", "1", "box"])
    assert runtime.ok("exec", "--user", "101:102", runtime.id, "id", "-u").strip() == "101"
    done = runtime.call("exec", runtime.id, "nope")
    assert done.returncode == 255 and "executable file not found in $PATH" in done.stderr
    assert spec.process is not None
    document = runtime.machine.directory / "process.json"
    process = msgspec.structs.replace(spec.process, args=("sleep", "1000"))
    document.write_bytes(msgspec.json.encode(process))
    pid_file = runtime.machine.directory / "exec-pid"
    runtime.ok("exec", "--process", str(document), "--detach", "--pid-file", str(pid_file), runtime.id)
    pid = int(pid_file.read_text())
    assert sorted(json.loads(runtime.ok("ps", "--format", "json", runtime.id))) == sorted([runtime.pid(), pid])
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{runtime.pid()}/ns/pid")


def test_capabilities_added_by_exec_are_not_inheritable(runtime: Runtime) -> None:
    """CVE-2022-29162."""
    runtime.create(runtime.machine.spec(*SLEEP))
    runtime.ok("start", runtime.id)
    words = runtime.ok("exec", "--cap", "CAP_SYS_PTRACE", runtime.id, "grep", "Cap", "/proc/self/status").split()
    sets = dict(zip(words[::2], words[1::2], strict=True))
    assert sets["CapInh:"] == sets["CapAmb:"] == "0" * 16
    assert int(sets["CapEff:"], 16) >> 19 & 1


def test_a_container_is_paused_and_resumed(runtime: Runtime) -> None:
    """And a paused one can be removed by force."""
    runtime.create(runtime.machine.spec(*SLEEP))
    runtime.ok("start", runtime.id)
    runtime.ok("pause", runtime.id)
    assert runtime.status() == "paused"
    assert "paused" in runtime.call("exec", runtime.id, "true").stderr
    runtime.ok("resume", runtime.id)
    assert runtime.status() == "running"
    runtime.ok("pause", runtime.id)
    runtime.ok("delete", "--force", runtime.id)


def test_limits_are_updated(runtime: Runtime) -> None:
    """By options, and by a document on standard input."""
    hierarchy = runtime.machine.hierarchies.find("memory")
    if hierarchy is None or hierarchy.version != 1:
        pytest.skip("this machine's cgroups are version 2")
    limit = Path(f"{hierarchy.base}{runtime.machine.cgroup}/memory.limit_in_bytes")
    resources = LinuxResources(memory=LinuxMemory(limit=64 << 20))
    runtime.create(changed(runtime.machine.spec(*SLEEP), linux={"resources": resources}))
    assert int(limit.read_text()) == 64 << 20
    runtime.ok("update", "--memory", str(32 << 20), runtime.id)
    assert int(limit.read_text()) == 32 << 20
    with open(runtime.machine.directory / "resources", "w+b") as document:
        document.write(msgspec.json.encode(LinuxResources(memory=LinuxMemory(limit=48 << 20))))
        document.seek(0)
        runtime.ok("update", "--resources", "-", runtime.id, stdin=document)
    assert int(limit.read_text()) == 48 << 20


def receive_terminal(path: Path, action: Callable[[], None]) -> int:
    """Listens on a console socket while `action` runs; the terminal that came."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        action()
        link, _ = listener.accept()
        with link:
            fds = socket.recv_fds(link, 4096, 1)[1]
    return fds[0]


def test_a_terminal_is_sent_to_the_console_socket(runtime: Runtime) -> None:
    """For the container and for an exec."""
    spec = changed(runtime.machine.shell("tty; exec sleep 1000"), process={"terminal": True})
    path = runtime.machine.directory / "console"
    terminal_fd = receive_terminal(path, lambda: runtime.create(spec, "--console-socket", str(path)))
    runtime.ok("start", runtime.id)
    assert os.read(terminal_fd, 100).startswith(b"/dev/pts/0")
    path.unlink()
    words = ("exec", "--tty", "--detach", "--console-socket", str(path), runtime.id, "tty")
    exec_fd = receive_terminal(path, lambda: runtime.ok(*words) and None)
    assert read_all(exec_fd).strip() == "/dev/pts/1"
    os.close(terminal_fd)


def test_descriptors_can_be_preserved(runtime: Runtime) -> None:
    """`--preserve-fds N`: 3 to 2+N and no other."""
    runtime.write(runtime.machine.shell("cat <&3; cat <&4 && exit 9; exit 3"))
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"kept")
    os.close(write_fd)
    other_fd = os.open("/dev/null", os.O_RDONLY)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in (read_fd, other_fd)]

    def place() -> None:
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    words = [*runtime.command, "run", "--preserve-fds", "1", "-b", str(runtime.bundle), runtime.id]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, pass_fds=(3, 4), preexec_fn=place, timeout=DEADLINE_S
        )
    finally:
        for fd in (read_fd, other_fd, *high):
            os.close(fd)
    assert done.stdout == "kept" and done.returncode not in (0, 9), done.stderr


def test_hooks_of_start_and_delete_run(runtime: Runtime) -> None:
    """poststart sees a running container, poststop a stopped one."""
    log = runtime.machine.directory / "hooks"
    hook = Hook("/bin/sh", ("sh", "-c", f"cat >> {log}; echo >> {log}"))
    runtime.create(changed(runtime.machine.spec(*SLEEP), hooks=Hooks(poststart=(hook,), poststop=(hook,))))
    runtime.ok("start", runtime.id)
    runtime.ok("delete", "--force", runtime.id)
    states = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(states) == 2 and states[1]["status"] == "stopped"
    assert states[0]["status"] in ("running", "created")  # runc 1.1 says created, against the specification
    assert all(state["id"] == runtime.id for state in states)


def test_kill_all_reaches_every_process(runtime: Runtime) -> None:
    """The cgroup tells who belongs to it."""
    runtime.create(runtime.machine.shell("trap '' TERM; sleep 1000 & wait"))
    runtime.ok("start", runtime.id)
    runtime.ok("kill", "--all", runtime.id, "KILL")
    runtime.wait_status("stopped")


def test_what_is_not_there_is_a_clear_error(tare_runtime: Runtime) -> None:
    """Systemd's driver, checkpoints, unknown flags and verbs."""
    for words, text in (
        (("--systemd-cgroup", "list"), "--systemd-cgroup is not supported"),
        (("checkpoint", "x"), "checkpoint is not supported"),
        (("create", "--nope", "x"), "flag provided but not defined: --nope"),
        (("dance",), "dance"),
        (("state",), "container ID"),
        (("create", tare_runtime.id, "--bundle", "x"), "exactly 1 argument"),
    ):
        done = tare_runtime.call(*words)
        assert done.returncode == 1 and text in done.stderr, words
        assert "Traceback" not in done.stderr


def test_features_name_what_the_schema_asks_for(tare_runtime: Runtime) -> None:
    """features.md of the specification."""
    features = json.loads(tare_runtime.ok("features"))
    assert features["ociVersionMin"] == "1.0.0"
    assert {"rro", "rbind", "ro"} <= set(features["mountOptions"])
    assert set(features["linux"]["namespaces"]) == {
        *("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"),
    }


def test_the_default_spec_runs(tare_runtime: Runtime) -> None:
    """`spec` writes a bundle that works as it is (but for the terminal)."""
    tare_runtime.ok("spec", "--bundle", str(tare_runtime.bundle))
    path = tare_runtime.bundle / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": ["sh", "-c", "touch /x 2>/dev/null || echo ro"]}
    config["root"]["path"] = str(tare_runtime.machine.rootfs)
    config["linux"]["cgroupsPath"] = tare_runtime.machine.cgroup
    path.write_text(json.dumps(config))
    assert tare_runtime.ok("run", "-b", str(tare_runtime.bundle), tare_runtime.id) == "ro\n"
    assert "exists" in tare_runtime.call("spec", "--bundle", str(tare_runtime.bundle)).stderr
