"""Records as Docker's JSON, held against the OpenAPI file and against what older clients read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from test_wire import records

from support.openapi import check_response
from tare.api.container_json import command_text, inspect_json, summary_json
from tare.api.durations_text import human_duration, status_text
from tare.api.execs import exec_json
from tare.api.image_json import history_json, removed_json
from tare.api.image_json import inspect_json as image_inspect_json
from tare.api.image_json import summary_json as image_summary_json
from tare.api.lifecycle import wait_json
from tare.api.network_json import network_json
from tare.api.stats_json import stats_json
from tare.api.system import event_json
from tare.engine.image_verbs import ImageSummary
from tare.engine.options import ContainerConfig, ExecOptions, HostOptions, PortBinding
from tare.engine.records import (
    Container,
    ContainerDetail,
    ContainerState,
    ContainerSummary,
    EndpointState,
    Event,
    ExecRecord,
    Health,
    HealthProbe,
    MountPoint,
    NetworkDetail,
    PublishedPort,
    WaitResult,
)
from tare.engine.stats import InterfaceCounters, StatsReading, StatsSample
from tare.images.records import HistoryEntry, Image, Removed
from tare.oci.image_spec import Healthcheck, History, ImageConfig, ImageSpec, RootFS
from tare.runtime.cgroups import CgroupStats
from tare.runtime.cgroups.stats import BlkioEntry, BlkioStats, CpuStats, MemoryStats, PidsStats

NEWEST, OLDEST = (1, 55), (1, 24)
VERSIONS = [NEWEST, (1, 44), (1, 41), OLDEST]
S = 10**9
NOW = 1_800_000_000 * S

ENDPOINT = EndpointState(
    network="bridge",
    network_id="1" * 64,
    endpoint_id="2" * 64,
    ip_address="172.17.0.2",
    prefix_length=16,
    gateway="172.17.0.1",
    mac_address="02:42:ac:11:00:02",
    ports=(
        PublishedPort(container_port=80, protocol="tcp", host_ip="0.0.0.0", host_port=8080),
        PublishedPort(container_port=80, protocol="tcp", host_ip="::", host_port=8080),
    ),
)
CONTAINER = Container(
    id="a" * 64,
    name="calm_otter",
    created_ns=NOW - 3600 * S,
    image_id="sha256:" + "b" * 64,
    layers=("sha256:" + "c" * 64,),
    path="sh",
    args=("-c", "echo a b"),
    config=ContainerConfig(image="busybox", exposed_ports={"80/tcp": {}, "53/udp": {}}, labels={"x": "y"}),
    host=HostOptions(network_mode="bridge", port_bindings={"80/tcp": (PortBinding(host_port="8080"),)}),
    state=ContainerState(status="running", pid=42, started_ns=NOW - 300 * S),
    mounts=(MountPoint(type="bind", source="/a", destination="/b", mode="ro", rw=False, propagation="rprivate"),),
    endpoint=ENDPOINT,
    log_path="/x/c-json.log",
)


def detail(container: Container, **more: Any) -> ContainerDetail:
    return ContainerDetail(
        container=container,
        exec_ids=("e" * 64,),
        hostname_path="/x/hostname",
        hosts_path="/x/hosts",
        resolv_conf_path="/x/resolv.conf",
        lower_dirs=("/l2", "/l1"),
        upper_dir="/u",
        work_dir="/w",
        **more,
    )


def check(path: str, document: Any, method: str = "GET", status: int = 200) -> Any:
    """The document as a client reads it, after the check against the OpenAPI file."""
    data = msgspec.json.encode(document)
    check_response(method, path, status, data, "application/json")
    return json.loads(data)


def test_inspect_is_as_described() -> None:
    """Container inspect has all that clients read; sizes only where asked for."""
    got = check("/containers/x/json", inspect_json(detail(CONTAINER, size_rw_bytes=5, size_root_bytes=9), NEWEST))
    assert got["Name"] == "/calm_otter" and got["State"]["Status"] == "running" and got["State"]["Pid"] == 42
    assert got["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert got["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert got["NetworkSettings"]["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "53/udp": None,
    }
    assert got["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
    assert got["GraphDriver"]["Data"]["LowerDir"] == "/l2:/l1"
    assert (got["SizeRw"], got["SizeRootFs"]) == (5, 9)
    assert got["Mounts"][0]["RW"] is False and got["ExecIDs"] == ["e" * 64]
    assert "SizeRw" not in inspect_json(detail(CONTAINER), NEWEST)


def test_inspect_for_older_clients() -> None:
    """Fields that newer API versions dropped are there for clients that read them."""
    old, new = inspect_json(detail(CONTAINER), (1, 41)), inspect_json(detail(CONTAINER), NEWEST)
    assert old["NetworkSettings"]["IPAddress"] == "172.17.0.2" and "IPAddress" not in new["NetworkSettings"]
    assert old["NetworkSettings"]["MacAddress"] and old["HostConfig"]["KernelMemory"] == 0
    assert "DNSNames" not in old["NetworkSettings"]["Networks"]["bridge"]
    assert "DNSNames" in new["NetworkSettings"]["Networks"]["bridge"]


def test_health() -> None:
    """Inspect has the last probes, the list a word; newer lists say it apart, too."""
    probe = HealthProbe(start_ns=NOW - 2 * S, end_ns=NOW - S, exit_code=1, output="no")
    health = Health(status="unhealthy", failing_streak=3, log=(probe,))
    sick = msgspec.structs.replace(CONTAINER, state=msgspec.structs.replace(CONTAINER.state, health=health))
    got = check("/containers/x/json", inspect_json(detail(sick), NEWEST))["State"]["Health"]
    assert (got["Status"], got["FailingStreak"], got["Log"][0]["ExitCode"]) == ("unhealthy", 3, 1)
    summary = ContainerSummary(container=sick, image_name="busybox")
    (row,) = check("/containers/json", [summary_json(summary, NEWEST, NOW)])
    assert row["Status"] == "Up 5 minutes (unhealthy)"
    assert row["Health"] == {"Status": "unhealthy", "FailingStreak": 3}
    assert "Health" not in summary_json(summary, (1, 51), NOW)


def test_any_options_can_be_inspected() -> None:
    """Whatever options a container was created with, its inspect is as described."""

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(records(ContainerConfig), records(HostOptions))
    def each(config: ContainerConfig, host: HostOptions) -> None:
        made = msgspec.structs.replace(CONTAINER, config=config, host=host)
        for version in VERSIONS:
            document = msgspec.json.encode(inspect_json(detail(made), version))
            assert json.loads(document)["Id"] == made.id

    each()


@pytest.mark.parametrize("version", VERSIONS)
def test_rows_of_the_list(version: tuple[int, int]) -> None:
    """A row of the list has Docker's words for status and command, and the published ports."""
    summary = ContainerSummary(container=CONTAINER, image_name="busybox", size_rw_bytes=0, size_root_bytes=9)
    (got,) = check("/containers/json", [summary_json(summary, version, NOW)])
    assert got["Status"] == "Up 5 minutes" and got["State"] == "running" and got["Names"] == ["/calm_otter"]
    assert got["Command"] == "sh -c 'echo a b'" and got["Created"] == 1_800_000_000 - 3600
    assert {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"} in got["Ports"]
    assert {"PrivatePort": 53, "Type": "udp"} in got["Ports"] and len(got["Ports"]) == 3
    assert got["SizeRootFs"] == 9 and "SizeRw" not in got
    assert got["HostConfig"]["NetworkMode"] == "bridge"


def test_a_stopped_container_publishes_nothing() -> None:
    """Ports are there while the container runs."""
    stopped = msgspec.structs.replace(CONTAINER, state=ContainerState(status="exited", finished_ns=NOW - 2 * S))
    assert inspect_json(detail(stopped), NEWEST)["NetworkSettings"]["Ports"] == {}
    summary = ContainerSummary(container=stopped, image_name="busybox")
    row = summary_json(summary, NEWEST, NOW)
    assert row["Ports"] == [] and row["Status"] == "Exited (0) 2 seconds ago"


def test_commands_are_quoted_as_docker_does() -> None:
    """Only words with a blank, in single quotes, whatever is in them (what a real dockerd shows for these)."""
    made = msgspec.structs.replace(CONTAINER, path="a'b", args=("x y'z", 'q"r', 'p "q"', "", "$x", "a\\b"))
    assert command_text(made) == """a'b 'x y'z' q"r 'p "q"'  $x a\\b"""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1.2, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (15 * 86400, "2 weeks"),
        (70 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_spans_in_words(seconds: float, text: str) -> None:
    """The words of Docker's lists."""
    assert human_duration(seconds) == text


def test_statuses_in_words() -> None:
    """One sentence for each state."""
    started, ended = NOW - 60 * S, NOW - 2 * S

    def text(**state: Any) -> str:
        return status_text(ContainerState(**state), NOW)

    assert text(status="created") == "Created"
    assert text(status="running", started_ns=started) == "Up About a minute"
    assert text(status="paused", started_ns=started) == "Up About a minute (Paused)"
    assert text(status="restarting", exit_code=1, finished_ns=ended) == "Restarting (1) 2 seconds ago"
    assert text(status="exited", exit_code=137, finished_ns=ended) == "Exited (137) 2 seconds ago"
    assert text(status="removing", finished_ns=ended) == "Removal In Progress"
    assert text(status="dead") == "Dead"


IMAGE = Image(
    id="sha256:" + "a" * 64,
    manifest_digest="sha256:" + "d" * 64,
    parent_id=None,
    diff_ids=("sha256:" + "c" * 64,),
    size_bytes=1234,
    created_ns=NOW,
    last_tagged_ns=NOW,
    repo_tags=("me/base:latest",),
    repo_digests=(),
    spec=ImageSpec(
        architecture="amd64",
        os="linux",
        rootfs=RootFS(diff_ids=["sha256:" + "c" * 64]),
        config=ImageConfig(
            cmd=["sh"],
            env=["A=b"],
            healthcheck=Healthcheck(test=["NONE"]),
            exposed_ports={"80/tcp": {}},
            volumes={"/v": {}},
            labels={"a": "b"},
            shell=["sh"],
            on_build=["RUN x"],
            stop_signal="INT",
        ),
        history=[History(comment="Imported from -")],
    ),
)


@pytest.mark.parametrize("version", VERSIONS)
def test_images(version: tuple[int, int]) -> None:
    """Rows of the list, inspect, history and removal; VirtualSize and ContainerConfig only for old clients."""
    summary = ImageSummary(image=IMAGE, containers=2)
    (row,) = check("/images/json", [image_summary_json(summary, version)])
    assert row["RepoTags"] == ["me/base:latest"] and row["SharedSize"] == -1
    assert ("VirtualSize" in row) == (version < (1, 44))
    got = check("/images/x/json", image_inspect_json(IMAGE, version))
    assert got["Config"]["Cmd"] == ["sh"] and got["Comment"] == "Imported from -"
    assert got["RootFS"]["Layers"] == list(IMAGE.diff_ids)
    assert ("ContainerConfig" in got) == (version < (1, 45))
    entry = HistoryEntry(id="<missing>", created_ns=NOW, created_by="x", size_bytes=1, comment="", tags=())
    check("/images/x/history", [history_json(entry)])
    removed = [
        Removed(kind="untagged", value="me/base:latest", image_id=IMAGE.id),
        Removed(kind="deleted", value=IMAGE.id, image_id=IMAGE.id),
    ]
    assert check("/images/x", [removed_json(line) for line in removed], "DELETE") == [
        {"Untagged": "me/base:latest"},
        {"Deleted": IMAGE.id},
    ]


def test_nameless_images_for_older_clients() -> None:
    """Until 1.43 a list showed <none>, since then nothing."""
    summary = ImageSummary(image=msgspec.structs.replace(IMAGE, repo_tags=()), containers=0)
    assert image_summary_json(summary, (1, 42))["RepoTags"] == ["<none>:<none>"]
    assert image_summary_json(summary, (1, 43))["RepoTags"] == []


def reading(version: int, at_ns: int, limit: int | None) -> StatsReading:
    entry = BlkioEntry(8, 0, "Read", 4096)
    return StatsReading(
        read_ns=at_ns,
        system_cpu_ns=10**12 + at_ns,
        online_cpus=2,
        cgroup=CgroupStats(
            version=version,
            cpu=CpuStats(total_ns=5, user_ns=3, system_ns=2, per_cpu_ns=(2, 3) if version == 1 else ()),
            memory=MemoryStats(
                usage=100, max_usage=200 if version == 1 else 0, limit=limit, stats={"inactive_file": 7}
            ),
            pids=PidsStats(current=1, limit=None),
            blkio=BlkioStats(service_bytes=(entry,), serviced=(entry,)),
        ),
        networks={"eth0": InterfaceCounters(1, 2, 3, 4, 5, 6, 7, 8)},
    )


@pytest.mark.parametrize("version", [1, 2])
def test_stats_differ_by_cgroup_version(version: int) -> None:
    """Version 1 counts per CPU and the highest use; 2 doesn't. Without a limit, the machine's memory is the limit."""
    sample = StatsSample(
        id=CONTAINER.id, name="x", now=reading(version, NOW, None), before=reading(version, NOW - S, None),
        memory_total_bytes=1 << 30,
    )  # fmt: skip
    got = check("/containers/x/stats", stats_json(sample, NEWEST))
    assert ("percpu_usage" in got["cpu_stats"]["cpu_usage"]) == (version == 1)
    assert ("max_usage" in got["memory_stats"]) == (version == 1)
    assert got["memory_stats"]["limit"] == 1 << 30 and got["memory_stats"]["stats"] == {"inactive_file": 7}
    assert got["blkio_stats"]["io_service_bytes_recursive"] == [{"major": 8, "minor": 0, "op": "Read", "value": 4096}]
    assert got["blkio_stats"]["io_queue_recursive"] == ([] if version == 1 else None)
    assert got["networks"]["eth0"]["tx_dropped"] == 8 and got["name"] == "/x"
    assert got["cpu_stats"]["system_cpu_usage"] - got["precpu_stats"]["system_cpu_usage"] == S
    limited = StatsSample(id="i", name="x", now=reading(version, NOW, 1 << 20), memory_total_bytes=1 << 30)
    assert stats_json(limited, OLDEST)["memory_stats"]["limit"] == 1 << 20


def test_stats_of_what_does_not_run() -> None:
    """A stopped container's sample is all zero, as Docker's."""
    got = check("/containers/x/stats", stats_json(StatsSample(id="i", name="x", now=StatsReading()), NEWEST))
    assert got["read"] == "0001-01-01T00:00:00Z" and got["memory_stats"] == {} and got["pids_stats"] == {}
    assert "system_cpu_usage" not in got["cpu_stats"] and "networks" not in got


def test_events_for_old_and_new_clients() -> None:
    """Old clients read status, id and from; new ones Type, Action and Actor."""
    event = Event(type="container", action="start", actor_id="a" * 64, attributes={"image": "x"}, time_ns=NOW + 5)
    shown = check("/events", event_json(event))
    assert (shown["status"], shown["id"], shown["from"]) == ("start", "a" * 64, "x")
    assert shown["Actor"] == {"ID": "a" * 64, "Attributes": {"image": "x"}}
    assert shown["time"] == NOW // S and shown["timeNano"] == NOW + 5
    network = Event(type="network", action="connect", actor_id="n", attributes={}, time_ns=NOW)
    assert "status" not in event_json(network)


def test_networks_execs_and_waits() -> None:
    """The small ones."""
    network = NetworkDetail(
        id="1" * 64, name="bridge", driver="bridge", created_ns=NOW, subnet="172.17.0.0/16", gateway="172.17.0.1",
        containers={CONTAINER.id: ("calm_otter", ENDPOINT)},
    )  # fmt: skip
    for version in VERSIONS:
        listed = check("/networks", [network_json(network, version, listed=True)])
        assert bool(listed[0].get("Containers")) == (version < (1, 28))
        got = check("/networks/bridge", network_json(network, version))
        assert got["Containers"][CONTAINER.id]["IPv4Address"] == "172.17.0.2/16"
    record = ExecRecord(
        id="e" * 64, container_id="a" * 64, options=ExecOptions(cmd=("x",)), entrypoint="x", arguments=(), running=True
    )
    got = check("/exec/x/json", exec_json(record))
    assert got["ExitCode"] is None and got["Running"] and got["ProcessConfig"]["entrypoint"] == "x"
    for version in VERSIONS:
        check("/containers/x/wait", wait_json(WaitResult(exit_code=3), version), "POST")
    assert wait_json(WaitResult(exit_code=0, error="why"), NEWEST)["Error"] == {"Message": "why"}
