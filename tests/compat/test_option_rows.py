"""Every option of `create` and `run` by both command lines on both engines: it arrives where inspect shows it."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.deadline import wait_until
from support.engine import Engine, Result

Client = Callable[..., Result]
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def disk() -> str:
    """A block device of this machine; empty if there is none."""
    names = sorted(os.listdir("/sys/block")) if os.path.isdir("/sys/block") else []
    real = [name for name in names if os.path.exists(f"/sys/block/{name}/device") and os.path.exists(f"/dev/{name}")]
    return f"/dev/{real[0]}" if real else ""


class Group(NamedTuple):
    """Options that go together, and what inspect has of them. since: the API version that they need."""

    flags: list[str]
    shown: dict[str, Any]
    since: tuple[int, int] = (1, 24)


def rate(value: int) -> list[dict[str, Any]]:
    return [{"Path": disk(), "Rate": value}]


GROUPS = {
    "limits": Group(
        "--blkio-weight 300 --cpu-period 50000 --cpu-quota 25000 --cpu-shares 100 --cpuset-cpus 0 --cpuset-mems 0"
        " --memory 64m --memory-reservation 32m --memory-swap 128m --memory-swappiness 10 --oom-kill-disable"
        " --oom-score-adj 100 --pids-limit 50 --shm-size 8m --ulimit nofile=100:200".split(),
        {
            "HostConfig.CpuPeriod": 50000,
            "HostConfig.CpuQuota": 25000,
            "HostConfig.CpuShares": 100,
            "HostConfig.CpusetCpus": "0",
            "HostConfig.CpusetMems": "0",
            "HostConfig.Memory": 64 << 20,
            "HostConfig.MemoryReservation": 32 << 20,
            "HostConfig.MemorySwap": 128 << 20,
            "HostConfig.MemorySwappiness": 10,
            "HostConfig.OomKillDisable": True,
            "HostConfig.OomScoreAdj": 100,
            "HostConfig.PidsLimit": 50,
            "HostConfig.ShmSize": 8 << 20,
            "HostConfig.Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
        },
    ),
    "cpus": Group(["--cpus", "0.5"], {"HostConfig.NanoCpus": 500_000_000}),
    "devices": Group(
        [
            *f"--device-read-bps {disk()}:1mb --device-write-bps {disk()}:2mb --device-read-iops {disk()}:30".split(),
            *f"--device-write-iops {disk()}:40 --device /dev/null:/dev/nothing:rw --device-cgroup-rule".split(),
            "c 42:* rwm",
        ],
        {
            "HostConfig.BlkioDeviceReadBps": rate(1 << 20),
            "HostConfig.BlkioDeviceWriteBps": rate(2 << 20),
            "HostConfig.BlkioDeviceReadIOps": rate(30),
            "HostConfig.BlkioDeviceWriteIOps": rate(40),
            "HostConfig.DeviceCgroupRules": ["c 42:* rwm"],
            "HostConfig.Devices": [
                {"PathOnHost": "/dev/null", "PathInContainer": "/dev/nothing", "CgroupPermissions": "rw"}
            ],
        },
    ),
    "rights": Group(
        "--cap-add NET_ADMIN --cap-drop CHOWN --security-opt no-new-privileges --group-add 7 --user 1:2 --read-only"
        " --userns host --sysctl net.ipv4.ip_forward=1".split(),
        {
            "HostConfig.SecurityOpt": ["no-new-privileges"],
            "HostConfig.GroupAdd": ["7"],
            "Config.User": "1:2",
            "HostConfig.ReadonlyRootfs": True,
            "HostConfig.UsernsMode": "host",
            "HostConfig.Sysctls": {"net.ipv4.ip_forward": "1"},
        },
    ),
    "hosts": Group(
        "--cgroupns host --ipc host --pid host --uts host".split(),
        {
            "HostConfig.CgroupnsMode": "host",
            "HostConfig.IpcMode": "host",
            "HostConfig.PidMode": "host",
            "HostConfig.UTSMode": "host",
        },
    ),
    "privileged": Group(["--privileged"], {"HostConfig.Privileged": True}),
    "address": Group(["--mac-address", "02:42:0a:00:00:99"], {}, (1, 44)),
    "own": Group(
        "--cgroupns private --ipc shareable --hostname here --domainname example.org".split(),
        {
            "HostConfig.CgroupnsMode": "private",
            "HostConfig.IpcMode": "shareable",
            "Config.Hostname": "here",
            "Config.Domainname": "example.org",
        },
    ),
    "network": Group(
        "--add-host one:10.1.2.3 --dns 10.1.2.4 --dns-option ndots:2 --dns-search example.org --expose 81"
        " -p 127.0.0.1::80 --publish-all".split(),
        {
            "HostConfig.ExtraHosts": ["one:10.1.2.3"],
            "HostConfig.Dns": ["10.1.2.4"],
            "HostConfig.DnsOptions": ["ndots:2"],
            "HostConfig.DnsSearch": ["example.org"],
            "HostConfig.PublishAllPorts": True,
            "HostConfig.PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
        },
    ),
    "process": Group(
        "--entrypoint sleep --env A=b --label x=y --workdir /tmp --init --interactive --tty --stop-signal SIGINT"
        " --stop-timeout 1 --restart on-failure:2 --health-cmd true --health-interval 30s --health-retries 4"
        " --health-start-period 5s --health-timeout 6s".split(),
        {
            "Config.Entrypoint": ["sleep"],
            "Config.Labels": {"x": "y"},
            "Config.WorkingDir": "/tmp",
            "HostConfig.Init": True,
            "Config.OpenStdin": True,
            "Config.Tty": True,
            "Config.StopSignal": "SIGINT",
            "Config.StopTimeout": 1,
            "HostConfig.RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
            "Config.Healthcheck.Test": ["CMD-SHELL", "true"],
            "Config.Healthcheck.Interval": 30_000_000_000,
            "Config.Healthcheck.Retries": 4,
            "Config.Healthcheck.StartPeriod": 5_000_000_000,
            "Config.Healthcheck.Timeout": 6_000_000_000,
        },
    ),
    "no health": Group(
        ["--no-healthcheck", "--rm", "--isolation", "default", "--pull", "never", "--quiet"],
        {
            "Config.Healthcheck.Test": ["NONE"],
            "HostConfig.AutoRemove": True,
            "HostConfig.Isolation": "default",
        },
    ),
    "log": Group(
        "--log-driver json-file --log-opt max-size=1m".split(),
        {
            "HostConfig.LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        },
    ),
    "platform": Group(["--platform", f"linux/{MACHINE}"], {"Platform": "linux"}, (1, 41)),
    "newer": Group(
        ["--annotation", "a=b", "--health-cmd", "true", "--health-start-interval", "2s"],
        {
            "HostConfig.Annotations": {"a": "b"},
            "Config.Healthcheck.StartInterval": 2_000_000_000,
        },
        (1, 44),
    ),
}


@pytest.fixture(params=["docker", "tare"])
def client(engine: Engine, request: pytest.FixtureRequest) -> Client:
    """Both command lines."""
    made: Client = engine.docker if request.param == "docker" else engine.tare_cli
    return made


@functools.cache
def version(engine: Engine) -> tuple[int, int]:
    """The newest API version of an engine."""
    major, _, minor = engine.api.request("GET", "/version").json["ApiVersion"].partition(".")
    return int(major), int(minor)


def look_up(document: Any, path: str) -> Any:
    """A value by its path, None where something on the way is absent."""
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


@pytest.mark.parametrize("verb", ["create", "run"])
@pytest.mark.parametrize("name", GROUPS)
def test_options(engine: Engine, client: Client, name: str, verb: str) -> None:
    """Each option is accepted, is in inspect as given, and the container runs with it."""
    group = GROUPS[name]
    if version(engine) < group.since:
        pytest.skip("Docker differs here: version 20.10 is too old for it")
    if name == "privileged" and verb == "run" and not engine.is_tare:
        pytest.skip("Docker differs here: it can't give more capabilities than this machine has")
    if name == "devices" and not disk():
        pytest.skip("this machine shows no disk")
    words = ["run", "-d"] if verb == "run" else ["create"]
    command = ["1000"] if "--entrypoint" in group.flags else ["sleep", "1000"]
    container = client(*words, *group.flags, engine.image, *command).out.split()[-1]
    found = engine.inspect(container)
    assert {path: look_up(found, path) for path in group.shown} == group.shown
    assert found["State"]["Status"] == ("running" if verb == "run" else "created")
    if name == "rights":
        dropped = {word.removeprefix("CAP_") for word in found["HostConfig"]["CapDrop"]}
        assert dropped == {"CHOWN"}
    engine.docker("rm", "-f", container)


@pytest.mark.parametrize("verb", ["create", "run"])
def test_options_with_files(engine: Engine, client: Client, verb: str, tmp_path: Path) -> None:
    """env-file and label-file are read, cidfile is written, volumes of each form are there, another container's too."""
    (tmp_path / "env").write_text("A=1\n# no\nB=2\n")
    (tmp_path / "labels").write_text("x=1\n# no\ny=\n")
    other = engine.docker("create", "-v", "/others", engine.image).out.strip()
    volume = engine.unique("v")
    flags = ["--env-file", f"{tmp_path}/env", "--label-file", f"{tmp_path}/labels", "--cidfile", f"{tmp_path}/cid"]
    flags += ["--volume", f"{volume}:/v", "--volume-driver", "local", "--mount", "type=tmpfs,dst=/m", "--tmpfs", "/t"]
    flags += ["--volumes-from", other, "--name", engine.unique(), "--cgroup-parent", f"/{engine.mark}"]
    flags += ["--attach", "stdout"] if verb == "create" else ["--detach", "--detach-keys", "ctrl-a"]
    container = client(verb, *flags, engine.image, "sleep", "1000").out.strip()
    found = engine.inspect(container)
    assert (tmp_path / "cid").read_text() == found["Id"]
    assert {"A=1", "B=2"} <= set(found["Config"]["Env"]) and found["Config"]["Labels"] == {"x": "1", "y": ""}
    assert {mount["Destination"] for mount in found["Mounts"]} == {"/v", "/m", "/others"}
    assert found["HostConfig"]["Tmpfs"] == {"/t": ""} and found["HostConfig"]["CgroupParent"] == f"/{engine.mark}"
    engine.docker("rm", "-f", "-v", container, other)
    engine.docker("volume", "rm", volume)
    for parent in Path("/sys/fs/cgroup").glob(f"*/{engine.mark}"):  # no engine removes what it was told to be in
        wait_until(functools.partial(remove_empty, parent), f"{parent} is empty")


def remove_empty(cgroup: Path) -> bool:
    """Removes a cgroup; whether it is gone."""
    try:
        cgroup.rmdir()
    except OSError:
        return not cgroup.exists()
    return True


@pytest.mark.parametrize("verb", ["create", "run"])
def test_options_of_networks(engine: Engine, client: Client, verb: str) -> None:
    """Aliases and addresses in a network of the user's own; links; all of them in inspect."""
    network, other = engine.unique("net"), engine.unique("linked")
    third = int(engine.mark[:2], 16)
    engine.docker("network", "create", "--subnet", f"10.250.{third}.0/24", network)
    engine.docker("run", "-d", "--name", other, "--network", network, engine.image, "sleep", "1000")
    flags = ["--network", network, "--network-alias", "nick", "--ip", f"10.250.{third}.77", "--link", f"{other}:pal"]
    flags += ["--link-local-ip", "169.254.33.44"]
    words = ["run", "-d"] if verb == "run" else ["create"]
    container = client(*words, *flags, engine.image, "sleep", "1000").out.strip()
    place = engine.inspect(container)["NetworkSettings"]["Networks"][network]
    assert place["IPAMConfig"] == {"IPv4Address": f"10.250.{third}.77", "LinkLocalIPs": ["169.254.33.44"]}
    assert "nick" in place["Aliases"] and place["Links"] == [f"{other}:pal"]
    engine.docker("rm", "-f", container, other)
    engine.docker("network", "rm", network)


def test_run_in_the_foreground(engine: Engine, client: Client) -> None:
    """--attach chooses streams, --sig-proxy may be off, --runtime is the default by its name."""
    script = "echo out; echo err >&2"
    said = client("run", "--rm", "--sig-proxy=false", "--attach", "stdout", engine.image, "sh", "-c", script)
    assert (said.out, said.err) == ("out\n", "")
    runtime = engine.api.request("GET", "/info").json["DefaultRuntime"]
    assert client("run", "--rm", "--runtime", runtime, engine.image, "echo", "1").out == "1\n"
    assert "docker.sock" in client("run", "--rm", "--use-api-socket", engine.image, "ls", "/var/run").out


REFUSED = (
    ("--gpus all", "could not select device driver|DeviceRequests is not supported"),
    ("--storage-opt size=1G", "storage-opt is supported only|StorageOpt is not supported"),
    ("--cpu-count 1", '"--cpu-count" is only supported on .* [Ww]indows'),
    ("--cpu-percent 1", '"--cpu-percent" is only supported on .* [Ww]indows'),
    ("--io-maxbandwidth 1m", '"--io-maxbandwidth" is only supported on .* [Ww]indows'),
    ("--io-maxiops 1", '"--io-maxiops" is only supported on .* [Ww]indows'),
    ("--isolation hyperv", "[Ii]nvalid isolation"),
    ("--platform linux/other", "other|docker.io"),
    ("--pull always", "docker.io|not implemented"),
    ("--runtime other", "other"),
    ("--ulimit nofile=5:1", "ulimit soft limit must be less than or equal to hard limit"),
    ("--health-cmd true --no-healthcheck", "--no-healthcheck conflicts with --health-\\* options"),
    ("--restart always --rm", "conflicting options: cannot specify both --restart and --rm"),
    ("--cgroupns other", "other|invalid CGROUP mode"),
    ("--userns other", "other|invalid USER mode"),
    ("--device /dev/nonexistent", "/dev/nonexistent"),
)


@pytest.mark.parametrize(("flags", "reason"), REFUSED, ids=[flags for flags, _ in REFUSED])
def test_refused(engine: Engine, client: Client, flags: str, reason: str) -> None:
    """What can't be had here is refused by name, and no container stays."""
    import re

    said = client("run", "--rm", *flags.split(), engine.image, "true", check=False)
    assert said.code in (1, 125, 127) and re.search(reason, said.err), said
    assert not [c for c in engine.containers() if engine.inspect(c)["State"]["Status"] == "running"]
