"""Commands and flags about existing containers, images, networks, volumes and contexts, by both command lines."""

from __future__ import annotations

import io
import json
import platform
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.deadline import wait_until
from support.engine import Engine, Result, clean_environment, run

Client = Callable[..., Result]
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@pytest.fixture(params=["docker", "tare"])
def client(engine: Engine, request: pytest.FixtureRequest) -> Client:
    """Both command lines."""
    made: Client = engine.docker if request.param == "docker" else engine.tare_cli
    return made


def is_new(engine: Engine, minor: int) -> bool:
    """Whether an engine's API goes as far as 1.minor."""
    return int(engine.api.request("GET", "/version").json["ApiVersion"].split(".")[1]) >= minor


def small_tar(**files: str) -> bytes:
    """A tar with these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()


def test_exec_and_copies(engine: Engine, client: Client, tmp_path: Path) -> None:
    """exec with its environment, rights and directory; cp and export to files; top with ps' arguments."""
    name = engine.unique()
    engine.docker("run", "-d", "--name", name, engine.image, "sleep", "1000")
    (tmp_path / "env").write_text("A=1\n")
    flags = ["--env-file", f"{tmp_path}/env", "--env", "B=2", "--user", "1:1", "--workdir", "/tmp", "-i"]
    script = "echo $A $B $(id -u) $PWD; cat"
    assert client("exec", *flags, name, "sh", "-c", script, input="in").out == "1 2 1 /tmp\nin"
    client("exec", "--detach", "--detach-keys", "ctrl-x", name, "true")
    if engine.is_tare:  # the other can't give more capabilities than this machine has
        assert "0000" in client("exec", "--privileged", name, "grep", "CapEff", "/proc/self/status").out
    (tmp_path / "link").symlink_to("env")
    client("cp", "--archive", "--quiet", "--follow-link", f"{tmp_path}/link", f"{name}:/copied")
    client("cp", f"{name}:/copied", f"{tmp_path}/back")
    assert (tmp_path / "back").read_text() == "A=1\n"
    client("export", "--output", f"{tmp_path}/all.tar", name)
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert "copied" in tar.getnames()
    assert "sleep 1000" in client("top", name, "-o", "pid,args").out
    assert client("diff", name).out.count("copied") == 1


def test_lists_and_logs(engine: Engine, client: Client) -> None:
    """ps and logs with each of their flags; port, inspect and pause of one container."""
    name, label = engine.unique(), engine.unique("label")
    flags = ["--label", label, "--log-opt", "labels=" + label, "-p", "127.0.0.1::80"]
    script = "echo one; echo two; sleep 1000"
    container = engine.docker("run", "-d", "--name", name, *flags, engine.image, "sh", "-c", script).out.strip()
    chosen = ["--filter", f"label={label}"]
    assert client("ps", "--all", "--no-trunc", "--quiet", *chosen).out.strip() == container
    assert client("ps", "--last", "1", "--size", "--format", "{{.Names}} {{.Size}}").out.startswith(f"{name} ")
    assert client("ps", "--latest", "--quiet").out.strip() == container[:12]
    window = ["--since", "10m", "--until", f"{time.time() + 1:.9f}"]
    said = client("logs", "--details", "--timestamps", "--tail", "1", *window, name).out
    assert said.rstrip().endswith("two") and label in said and "one" not in said
    assert client("port", name, "80").out.startswith("127.0.0.1:")
    assert client("container", "inspect", "--size", "--format", "{{.Name}}", name).out == f"/{name}\n"
    assert client("pause", name).out == client("unpause", name).out == f"{name}\n"
    engine.docker("rm", "-f", name)


def test_attach_without_input(engine: Engine, client: Client) -> None:
    """attach shows what comes and ends with the container's code, whatever of input, signals and keys is off."""
    name = engine.unique()
    script = "while [ ! -e /go ]; do sleep 0.05; done; echo seen; exit 3"
    engine.docker("run", "-d", "--name", name, engine.image, "sh", "-c", script)
    argv = (engine.argv if client == engine.docker else _own_argv(engine))("attach")
    flags = ["--no-stdin", "--sig-proxy=false", "--detach-keys", "ctrl-x"]
    with subprocess.Popen([*argv, *flags, name], stdout=subprocess.PIPE, env=clean_environment(), text=True) as process:
        wait_until(lambda: _is_attached(engine, name), "it is attached")
        engine.docker("exec", name, "touch", "/go")
        out, _ = process.communicate(timeout=100)
    assert (out, process.returncode) == ("seen\n", 3)
    client("attach", *flags, name, check=False)  # it has ended: refused, or at its end at once


def _is_attached(engine: Engine, name: str) -> bool:
    query = {"since": "0", "until": f"{time.time():.9f}", "filters": {"container": [name], "event": ["attach"]}}
    return b'"attach"' in engine.api.request("GET", "/events", query=query).body


def test_ends(engine: Engine, client: Client) -> None:
    """stop and restart with a signal of the user's own; kill, wait, start -a, rename, rm -f."""
    name, other = engine.unique(), engine.unique()
    script = "trap 'echo usr; exit 7' USR1; while :; do sleep 0.05; done"
    engine.docker("run", "-d", "--name", name, engine.image, "sh", "-c", script)
    signal = ["--signal", "USR1"] if is_new(engine, 42) else []
    wait = ["--timeout", "5"] if signal else ["--timeout", "0"]
    code = 7 if signal else 137
    assert client("restart", *signal, *wait, name).out == f"{name}\n"
    assert client("stop", *signal, *wait, name).out == f"{name}\n"
    assert client("wait", name).out == f"{code}\n"
    assert client("rename", name, other).code == 0
    engine.docker("start", other)
    assert client("kill", "--signal", "KILL", other).out == f"{other}\n"
    assert client("logs", "--tail", "1", other).code == 0
    assert client("rm", "--force", other).out == f"{other}\n"


def test_limits_of_a_running_container(engine: Engine, client: Client) -> None:
    """update: every limit that can change live arrives."""
    name = engine.unique()
    engine.docker("run", "-d", "--name", name, engine.image, "sleep", "1000")
    flags = "--cpu-period 50000 --cpu-quota 20000 --cpu-shares 99 --cpuset-cpus 0 --cpuset-mems 0 --memory 96m"
    flags += " --memory-reservation 48m --memory-swap 192m --pids-limit 77 --restart on-failure:3"
    assert client("update", *flags.split(), name).out == f"{name}\n"
    host = engine.inspect(name)["HostConfig"]
    shown = {key: host[key] for key in ("CpuPeriod", "CpuQuota", "CpuShares", "CpusetCpus", "CpusetMems", "PidsLimit")}
    assert shown == {
        "CpuPeriod": 50000, "CpuQuota": 20000, "CpuShares": 99, "CpusetCpus": "0", "CpusetMems": "0", "PidsLimit": 77,
    }  # fmt: skip
    assert (host["Memory"], host["MemoryReservation"], host["MemorySwap"]) == (96 << 20, 48 << 20, 192 << 20)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    cpus = engine.unique()
    engine.docker("run", "-d", "--name", cpus, engine.image, "sleep", "1000")
    client("update", "--cpus", "0.5", "--blkio-weight", "300", cpus, check=engine.is_tare)
    engine.docker("rm", "-f", name, cpus)


def test_stats(engine: Engine, client: Client) -> None:
    """--all shows those that don't run, too; --no-trunc whole ids; a template what it says."""
    name = engine.unique()
    container = engine.docker("run", "-d", "--name", name, engine.image, "sleep", "1000").out.strip()
    stopped = engine.docker("create", engine.image, "true").out.strip()
    said = client("stats", "--no-stream", "--all", "--no-trunc", "--format", "{{.ID}} {{.Name}}").out
    assert f"{container} {name}" in said and stopped in said


def test_stats_follow_what_comes_and_goes(engine: Engine, client: Client) -> None:
    """Live stats of all containers show one that starts later, and end to show one that is removed."""
    first, second = engine.unique(), engine.unique()
    engine.docker("run", "-d", "--name", first, engine.image, "sleep", "1000")
    argv = (engine.argv if client == engine.docker else _own_argv(engine))("stats", "--format", "{{.Name}}")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=clean_environment(), text=True) as process:
        assert process.stdout is not None
        try:
            _wait_line(process.stdout, lambda line: first in line)
            engine.docker("run", "-d", "--name", second, engine.image, "sleep", "1000")
            _wait_line(process.stdout, lambda line: second in line)
            engine.docker("rm", "-f", first)
            seen = 0
            for line in process.stdout:
                seen = 0 if first in line else seen + (second in line)
                if seen == 2:
                    break
        finally:
            process.kill()


def _own_argv(engine: Engine) -> Callable[..., list[str]]:
    import sys

    return lambda *args: [sys.executable, "-m", "tare.cli.main", "-H", f"unix://{engine.socket}", *args]


def _wait_line(lines: Any, wanted: Callable[[str], bool]) -> None:
    for number, line in enumerate(lines):
        if wanted(line):
            return
        assert number < 500, "the line didn't come"


def test_images(engine: Engine, client: Client, tmp_path: Path) -> None:
    """import, save, load and inspect for a platform; history for machines; lists with all; rm that keeps parents."""
    mine = f"linux/{MACHINE}"
    name = engine.unique("image")
    (tmp_path / "a.tar").write_bytes(small_tar(a="1"))
    client("import", "--platform", mine, "--message", "why", "--change", "LABEL x=y", f"{tmp_path}/a.tar", name)
    history = client("history", "--human=false", "--no-trunc", "--format", "{{.Size}} {{.Comment}}", name).out
    assert history == "1 why\n"
    assert client("images", "--all", "--digests", "--no-trunc", "--format", "{{.Repository}}", name).out == f"{name}\n"
    container = engine.docker("create", name, "x").out.strip()
    child = engine.unique("child")
    client("commit", "--author", "Ann", "--message", "more", "--change", "ENV A=b", container, child)
    engine.docker("rm", container)
    only = ["--platform", mine] if is_new(engine, 49) else []
    assert json.loads(client("image", "inspect", *only, child).out)[0]["Author"] == "Ann"
    assert client("history", *only, "--quiet", child).out.count("\n") == 2
    client("save", *only, "--output", f"{tmp_path}/s.tar", child)
    answer = engine.api.request("GET", "/images/get", query={"names": [name, child]})
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        assert "manifest.json" in tar.getnames()
    assert client("rmi", "--no-prune", child).out.startswith(f"Untagged: {child}:latest\n")
    assert client("load", *only, "--quiet", "--input", f"{tmp_path}/s.tar").out == f"Loaded image: {child}:latest\n"
    client("image", "rm", "--force", child, name)
    assert client("image", "ls", "-q", "--filter", f"reference={name}").out == ""
    assert "Total reclaimed space" in client("image", "prune", "--force", "--filter", f"label={name}").out


def test_networks(engine: Engine, client: Client) -> None:
    """create with each option, connect with each, lists in full, disconnect and rm by force, prune."""
    name = engine.unique("net")
    third = int(engine.mark[2:4], 16)
    flags = ["--driver", "bridge", "--subnet", f"10.249.{third}.0/24", "--gateway", f"10.249.{third}.1", "--attachable"]
    flags += [
        "--ip-range",
        f"10.249.{third}.128/25",
        "--aux-address",
        f"x=10.249.{third}.200",
        "--ipam-driver",
        "default",
    ]
    flags += ["--label", "a=b", "--opt", "com.docker.network.driver.mtu=1400", "--internal"]
    network_id = client("network", "create", *flags, name).out.strip()
    assert (
        client("network", "ls", "--no-trunc", "--format", "{{.ID}}", "--filter", f"name={name}").out.strip()
        == network_id
    )
    found = json.loads(client("network", "inspect", "--verbose", name).out)[0]
    assert found["IPAM"]["Config"][0]["AuxiliaryAddresses"] == {"x": f"10.249.{third}.200"}
    assert client("network", "inspect", "--format", "{{.Labels.a}}", name).out == "b\n"
    container, other = engine.unique(), engine.unique()
    for each in (container, other):
        engine.docker("run", "-d", "--name", each, engine.image, "sleep", "1000")
    engine.docker("network", "connect", name, other)
    flags = [
        "--alias",
        "nick",
        "--ip",
        f"10.249.{third}.130",
        "--link",
        f"{other}:pal",
        "--link-local-ip",
        "169.254.7.7",
    ]
    flags += ["--driver-opt", "a=b"]
    client("network", "connect", *flags, name, container)
    place = engine.inspect(container)["NetworkSettings"]["Networks"][name]
    assert place["IPAddress"] == f"10.249.{third}.130" and place["Links"] == [f"{other}:pal"]
    assert place["DriverOpts"] == {"a": "b"} and "nick" in place["Aliases"]
    client("network", "disconnect", "--force", name, container)
    engine.docker("rm", "-f", container, other)
    assert client("network", "rm", "--force", name, f"{name}-not-there").out == f"{name}\n"
    engine.docker("network", "create", "--internal", "--label", name, name)
    assert name in client("network", "prune", "--force", "--filter", f"label={name}").out


REFUSED_NETWORKS = ("--config-from other", "--ingress", "--ipam-driver other", "--scope swarm")


@pytest.mark.parametrize("flags", REFUSED_NETWORKS)
def test_networks_of_a_swarm(tare: Engine, flags: str) -> None:
    """What needs a swarm or a plugin is refused by both command lines, and nothing is made."""
    name = tare.unique("net")
    for client in (tare.docker, tare.tare_cli):
        said = client("network", "create", *flags.split(), name, check=False)
        assert said.code != 0 and "Error response from daemon" in said.err
    assert name not in tare.docker("network", "ls").out


def test_volumes(engine: Engine, client: Client) -> None:
    """create, list by each filter, inspect by template, rm by force, prune by label."""
    name = engine.unique("v")
    assert client("volume", "create", "--driver", "local", "--label", f"{name}=1", name).out == f"{name}\n"
    for wanted in (f"label={name}", f"name=^{name}$", "driver=local", "dangling=true"):
        assert name in client("volume", "ls", "--quiet", "--filter", wanted).out.split()
    assert client("volume", "ls", "--format", "{{.Name}}", "--filter", f"label={name}=1").out == f"{name}\n"
    assert client("volume", "inspect", "--format", "{{.Driver}}", name).out == "local\n"
    assert client("volume", "rm", "--force", name, f"{name}-not-there").code == 0
    engine.docker("volume", "create", "--label", name, name)
    everything = ["--all"] if is_new(engine, 42) else []
    assert name in client("volume", "prune", *everything, "--force", "--filter", f"label={name}").out


def test_system(engine: Engine, client: Client) -> None:
    """df by template; prune of all kinds with a label that only ours have; info and events by template."""
    name = engine.unique("sys")
    assert client("system", "df", "--format", "{{.Type}}").out.split()[:2] == ["Images", "Containers"]
    assert client("system", "info", "--format", "{{.OSType}}").out == "linux\n"
    container = engine.docker("create", "--label", name, engine.image, "true").out.strip()
    engine.docker("network", "create", "--internal", "--label", name, name)
    said = client("system", "prune", "--all", "--force", "--filter", f"label={name}").out
    assert container in said and name in said and "Total reclaimed space" in said
    engine.docker("create", "--label", name, "-v", "/anonymous", engine.image, "true")
    volumes = client("system", "prune", "--force", "--volumes", "--filter", f"label={name}")
    assert "Deleted Containers:" in volumes.out
    window = ["--since", "10m", "--until", f"{time.time() + 0.2:.9f}", "--filter", f"label={name}"]
    assert "create" in client("system", "events", *window, "--format", "{{.Action}}").out
    engine.docker("volume", "prune", "--force")


@pytest.mark.parametrize("program", ["docker", "tare"])
def test_contexts(program: str, tmp_path: Path) -> None:
    """create, copy, list, inspect, change, export, import, remove; both command lines write the same."""
    import sys

    argv = ["docker"] if program == "docker" else [sys.executable, "-m", "tare.cli.main"]

    def context(*args: str) -> Result:
        return run([*argv, "context", *args], env={**clean_environment(), "DOCKER_CONFIG": str(tmp_path)})

    assert context("create", "one", "--description", "first", "--docker", "host=unix:///a.sock").out == "one\n"
    context("create", "--from", "one", "two")
    assert context("update", "--description", "second", "--docker", "host=unix:///b.sock", "two").out == "two\n"
    assert context("ls", "--quiet").out.split() == ["default", "one", "two"]
    assert (
        "two second unix:///b.sock" in context("ls", "--format", "{{.Name}} {{.Description}} {{.DockerEndpoint}}").out
    )
    assert context("inspect", "--format", "{{.Name}}", "one").out == "one\n"
    context("export", "two", f"{tmp_path}/two.tar")
    context("import", "three", f"{tmp_path}/two.tar")
    context("use", "three")
    assert context("show").out == "three\n"
    assert context("rm", "--force", "one", "two", "three").out == "one\ntwo\nthree\n"
