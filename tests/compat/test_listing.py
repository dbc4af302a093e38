"""ps, top, stats, update, events, info and version: what an engine tells about itself; on both engines."""

from __future__ import annotations

import io
import json
import re
import socket
import tarfile
import time

import pytest

from support.deadline import wait_until
from support.engine import Engine


@pytest.fixture(scope="module")
def zoo(any_engine: Engine) -> object:
    """Four containers in four states: {state: id}."""
    engine = any_engine
    mark = engine.unique("zoo")
    made = {}
    for kind in ("created", "running", "exited", "paused"):
        flags = ["--name", f"{mark}-{kind}", "--label", f"kind={kind}", "--label", f"zoo={mark}"]
        command = ["sh", "-c", "exit 3"] if kind == "exited" else ["sleep", "1000"]
        verb = ["create"] if kind == "created" else ["run", "-d"]
        made[kind] = engine.docker(*verb, *flags, engine.image, *command).out.strip()
    engine.exit_code(made["exited"])
    engine.docker("pause", made["paused"])
    made["mark"] = mark
    yield made
    engine.clean()


@pytest.fixture
def engine(any_engine: Engine) -> Engine:
    """Both engines; this file's containers stay until its end."""
    return any_engine


def ids(engine: Engine, zoo: dict[str, str], *flags: str) -> set[str]:
    """Which of the zoo `ps` lists with these flags."""
    shown = engine.docker("ps", "-q", "--no-trunc", "--filter", f"label=zoo={zoo['mark']}", *flags).out.split()
    return {kind for kind, container in zoo.items() if container in shown}


def test_ps_shows_what_runs(engine: Engine, zoo: dict[str, str]) -> None:
    """ps lists the running and paused; -a all; -n and -l the newest."""
    assert ids(engine, zoo) == {"running", "paused"}
    assert ids(engine, zoo, "-a") == {"created", "running", "exited", "paused"}
    assert ids(engine, zoo, "-n", "2") == {"exited", "paused"}
    assert ids(engine, zoo, "-l") == {"paused"}


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (["status=created"], {"created"}),
        (["status=exited"], {"exited"}),
        (["status=paused"], {"paused"}),
        (["status=running", "status=created"], {"running", "created"}),
        (["exited=3"], {"exited"}),
        (["exited=0"], set()),
        (["label=kind"], {"created", "running", "exited", "paused"}),
        (["label=kind=running"], {"running"}),
        (["label=kind", "label=kind=paused"], {"paused"}),
        (["network=none"], set()),
    ],
)
def test_ps_filters(engine: Engine, zoo: dict[str, str], filters: list[str], wanted: set[str]) -> None:
    """Values of one filter are alternatives (labels all hold); different filters all hold."""
    flags = [part for text in filters for part in ("--filter", text)]
    assert ids(engine, zoo, "-a", *flags) == wanted


def test_ps_filters_by_identity(engine: Engine, zoo: dict[str, str]) -> None:
    """id and name match parts, names also as patterns; ancestor, before and since look at images and ages."""
    assert ids(engine, zoo, "-a", "--filter", f"id={zoo['created'][:10]}") == {"created"}
    assert ids(engine, zoo, "-a", "--filter", f"name={zoo['mark']}-ru") == {"running"}
    assert ids(engine, zoo, "-a", "--filter", f"name=^/{zoo['mark']}-(running|exited)$") == {"running", "exited"}
    assert ids(engine, zoo, "-a", "--filter", f"ancestor={engine.image}") == {"created", "running", "exited", "paused"}
    assert ids(engine, zoo, "-a", "--filter", f"before={zoo['exited']}") == {"created", "running"}
    assert ids(engine, zoo, "-a", "--filter", f"since={zoo['exited']}") == {"paused"}


def test_ps_filters_by_network_and_ports(engine: Engine) -> None:
    """publish is the host's port, expose the container's, or a range; a network may be told by the start of its id."""
    with socket.socket() as one:
        one.bind(("", 0))
        port = one.getsockname()[1]
    made = engine.start("-p", f"{port}:4567", "-p", "4568/udp", "--expose", "4569", "--label", f"zoo={port}")
    given = engine.docker("port", made, "4568/udp").out.splitlines()[0].rpartition(":")[2]
    network = engine.inspect(made)["NetworkSettings"]["Networks"]["bridge"]["NetworkID"]
    found = [f"publish={port}", f"publish={port}/tcp", f"publish={port - 1}-{port + 1}", f"publish={given}/udp"]
    found += ["expose=4567", "expose=4568/udp", "expose=4569", "expose=4568-4570", f"network={network[:12]}"]
    missed = ["publish=4567", f"publish={port}/udp", "publish=4569", "expose=4568", f"expose={port}", "network=bri"]
    for text in (*found, *missed):
        shown = engine.docker("ps", "-q", "--no-trunc", "--filter", f"label=zoo={port}", "--filter", text).out.split()
        assert shown == ([made] if text in found else []), text
    for text in ("publish=x", "expose=5-3", "health=fine"):
        assert engine.docker("ps", "--filter", text, check=False).code == 1, text


def test_ps_columns(engine: Engine, zoo: dict[str, str]) -> None:
    """The columns and states read as Docker's."""
    form = '{{.ID}}|{{.Image}}|{{.Command}}|{{.Status}}|{{.Names}}|{{.State}}|{{.Label "kind"}}'
    lines = engine.docker("ps", "-a", "--format", form, "--filter", f"label=zoo={zoo['mark']}").out.splitlines()
    rows = {line.split("|")[5]: line.split("|") for line in lines}
    assert set(rows) == {"created", "running", "exited", "paused"}
    assert rows["running"][0] == zoo["running"][:12] and rows["running"][1] == engine.image
    assert rows["running"][2] == '"sleep 1000"' and rows["exited"][2] == "\"sh -c 'exit 3'\""
    assert re.fullmatch(r"Up (Less than a second|\d+ seconds?)", rows["running"][3])
    assert re.fullmatch(r"Up .* \(Paused\)", rows["paused"][3])
    assert re.fullmatch(r"Exited \(3\) .* ago", rows["exited"][3])
    assert rows["created"][3] == "Created"
    head = engine.docker("ps", "-a").out.splitlines()[0]
    assert head.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]


def test_ps_sizes(engine: Engine, zoo: dict[str, str]) -> None:
    """-s tells what a container wrote."""
    engine.docker("exec", zoo["running"], "dd", "if=/dev/zero", "of=/file", "bs=1000", "count=2000")
    entry = next(
        e
        for e in engine.api.request("GET", "/containers/json", query={"size": "true"}).json
        if e["Id"] == zoo["running"]
    )
    assert 2_000_000 <= entry["SizeRw"] < 2_100_000 < entry["SizeRootFs"] + 1
    assert "2MB (virtual" in engine.docker("ps", "-s", "--format", "{{.Size}}", "--filter", f"id={zoo['running']}").out


def test_top(engine: Engine, zoo: dict[str, str]) -> None:
    """top lists the container's processes with the host's ids; ps's options may be given."""
    pid = str(engine.inspect(zoo["running"])["State"]["Pid"])
    lines = engine.docker("top", zoo["running"]).out.splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert len(lines) == 2 and lines[1].split()[1] == pid and lines[1].endswith("sleep 1000")
    lines = engine.docker("top", zoo["running"], "-o", "pid,comm").out.splitlines()
    assert lines[0].split() == ["PID", "COMMAND"] and lines[1].split() == [pid, "sleep"]
    refused = engine.docker("top", zoo["exited"], check=False)
    assert refused.code == 1 and "is not running" in refused.err


@pytest.mark.parametrize("words", ["aux", "-aux", "ax", "axf", "-e", "-o pid,stat,bsdtime,args"])
def test_top_in_the_forms_of_ps(engine: Engine, zoo: dict[str, str], words: str) -> None:
    """Both ways of writing ps's options, each with its own columns and times."""
    pid = str(engine.inspect(zoo["running"])["State"]["Pid"])
    heads = {
        "aux": "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND",
        "-aux": "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND",
        "ax": "PID TTY STAT TIME COMMAND",
        "axf": "PID TTY STAT TIME COMMAND",
        "-e": "PID TTY TIME CMD",
        "-o pid,stat,bsdtime,args": "PID STAT TIME COMMAND",
    }
    head, line = engine.docker("top", zoo["running"], *words.split()).out.splitlines()
    assert head.split() == heads[words].split()
    row = dict(zip(head.split(), line.split(maxsplit=len(head.split()) - 1), strict=True))
    assert row["PID"] == pid and row["TIME"] == ("00:00:00" if words == "-e" else "0:00")
    assert {"S", "s"} <= set(row.get("STAT", "Ss"))


def test_no_limit_is_told_as_none(engine: Engine) -> None:
    """What clients send for "no limit" isn't shown as a limit."""
    host = {"PidsLimit": -1, "MemorySwappiness": -1}
    for config in ({}, host):
        shown = engine.inspect(engine.create({"Cmd": ["true"], "HostConfig": config}).json["Id"])["HostConfig"]
        assert (shown["PidsLimit"], shown["MemorySwappiness"], shown["OomKillDisable"]) == (None, None, False)


def test_stats_once(engine: Engine, zoo: dict[str, str]) -> None:
    """stats --no-stream prints one line with real numbers."""
    form = "{{.Container}}|{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.MemPerc}}|{{.NetIO}}|{{.BlockIO}}|{{.PIDs}}"
    line = engine.docker("stats", "--no-stream", "--format", form, zoo["running"]).out.strip().split("|")
    assert line[1].endswith("-running") and line[7] == "1"
    assert re.fullmatch(r"\d+\.\d\d%", line[2]) and re.fullmatch(r"[\d.]+[kKM]?i?B / [\d.]+GiB", line[3])


def test_stats_document(engine: Engine, zoo: dict[str, str]) -> None:
    """The API's numbers are the kernel's; one-shot has none of before; a stream has one line each second."""
    query = {"stream": "false", "one-shot": "true"}
    shown = engine.api.request("GET", f"/containers/{zoo['running']}/stats", query=query).json
    if engine.is_tare or engine.release == 20:  # Docker 28 leaves both out of a one-shot
        assert shown["name"] == f"/{zoo['mark']}-running" and shown["id"] == zoo["running"]
    assert shown["pids_stats"]["current"] == 1
    assert shown["memory_stats"]["usage"] > 0 and shown["memory_stats"]["limit"] > 1 << 30
    assert shown["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and shown["cpu_stats"]["system_cpu_usage"] > 0
    assert shown["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert shown["networks"]["eth0"]["rx_bytes"] >= 0
    lines = engine.api.stream("GET", f"/containers/{zoo['running']}/stats")
    first, second = json.loads(next(lines)), json.loads(next(lines))
    lines.close()
    assert second["precpu_stats"]["cpu_usage"]["total_usage"] == first["cpu_stats"]["cpu_usage"]["total_usage"]
    assert second["read"] > first["read"]


def test_stats_of_one_that_does_not_run(engine: Engine, zoo: dict[str, str]) -> None:
    """A stopped container gives an empty document, not an error."""
    shown = engine.api.request("GET", f"/containers/{zoo['exited']}/stats", query={"stream": "false"}).json
    assert shown["id"] == zoo["exited"] and not shown["memory_stats"].get("usage")


def test_update(engine: Engine) -> None:
    """update changes limits and the restart policy of a running container, in the kernel and in inspect."""
    container = engine.start(flags=["--memory", "64m", "--memory-swap", "128m"])
    flags = [
        "--memory",
        "96m",
        "--memory-swap",
        "192m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "77",
        "--restart",
        "on-failure:4",
    ]
    assert engine.docker("update", *flags, container).out == f"{container}\n"
    host = engine.inspect(container)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        96 << 20,
        192 << 20,
        5 * 10**8,
        77,
    )
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 4}
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max || "
    script += "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
    assert engine.docker("exec", container, "sh", "-c", script).out.split() == [str(96 << 20), "77"]
    assert engine.docker("update", "--memory", "1k", container, check=False).code == 1
    engine.docker("rm", "-f", container)


def test_events(engine: Engine) -> None:
    """A container's life is told in order with names, image, labels and exit code, then found again by --since."""
    since = str(time.time() - 0.001)
    name = engine.unique()
    engine.docker("run", "--rm", "--name", name, "--label", "x=y", engine.image, "sh", "-c", "exit 3", check=False)

    def seen() -> list[dict[str, object]]:
        until = f"{time.time():.9f}"
        form = ["--since", since, "--until", until, "--filter", f"container={name}", "--format", "{{json .}}"]
        lines = engine.docker("events", *form).out.splitlines()
        told = [json.loads(line) for line in lines]
        return told if told and told[-1]["Action"] == "destroy" else []

    events = wait_until(seen, "destroy was told")
    actions = [event["Action"] for event in events if event["Type"] == "container"]
    assert actions == ["create", "attach", "start", "die", "destroy"]
    died: dict[str, dict[str, str]] = next(event for event in events if event["Action"] == "die")  # type: ignore[assignment]
    attributes = died["Actor"]["Attributes"]
    assert attributes["exitCode"] == "3" and attributes["name"] == name and attributes["image"] == engine.image  # type: ignore[index]
    assert attributes["x"] == "y"  # type: ignore[index]
    assert died["timeNano"] // 10**9 == died["time"]  # type: ignore[operator]


def test_events_as_they_come(engine: Engine) -> None:
    """A listener gets each event at once; filters by type, event, label and image hold."""
    query = {"filters": {"type": ["container"], "event": ["create", "rename", "pause"], "label": ["tell=yes"]}}
    with engine.api.opened("GET", "/events", query=query) as answer:
        assert answer.status == 200
        container = engine.start(flags=["--label", "tell=yes"])
        engine.start(flags=["--label", "tell=no"])
        new = engine.unique()
        engine.docker("rename", container, new)
        engine.docker("pause", container)
        told = [json.loads(answer.readline()) for _ in range(3)]
    assert [event["Action"] for event in told] == ["create", "rename", "pause"]
    assert told[1]["Actor"]["Attributes"]["name"] == new and told[1]["Actor"]["Attributes"]["oldName"].startswith("/")
    assert all(event["Actor"]["ID"] == container for event in told)


def test_events_of_images_and_networks(engine: Engine) -> None:
    """Images tell import, tag, untag and delete; the bridge tells connect and disconnect."""
    since = f"{time.time():.9f}"
    reference = engine.unique("image")
    engine.import_image(reference, b"\0" * 10240)
    engine.docker("tag", reference, f"{reference}:two")
    engine.docker("rmi", f"{reference}:two", reference)
    engine.docker("run", "--rm", engine.image, "true")
    told = engine.docker(
        "events", "--since", since, "--until", f"{time.time() + 0.1:.9f}", "--format", "{{.Type}} {{.Action}}"
    )
    lines = told.out.splitlines()
    for wanted in ("image import", "image tag", "image untag", "image delete", "network connect", "network disconnect"):
        assert wanted in lines


def test_info_and_version(engine: Engine) -> None:
    """info counts containers and images and tells of the kernel; version names the API's range."""
    info = engine.api.request("GET", "/info").json
    assert info["Containers"] == info["ContainersRunning"] + info["ContainersPaused"] + info["ContainersStopped"]
    assert info["Images"] >= 1 and info["NCPU"] >= 1 and info["MemTotal"] > 1 << 28
    assert info["OSType"] == "linux" and info["KernelVersion"] and info["DockerRootDir"]
    assert any("seccomp" in option for option in info["SecurityOptions"])
    assert info["CgroupVersion"] in ("1", "2") and info["LoggingDriver"] == "json-file"
    version = engine.api.request("GET", "/version").json
    assert tuple(map(int, version["ApiVersion"].split("."))) >= (1, 41) and version["MinAPIVersion"]
    assert engine.docker("info", "--format", "{{.ServerVersion}}").out.strip() == version["Version"]


def test_diff_and_export(engine: Engine) -> None:
    """diff tells what was added, changed and deleted; export holds the whole tree as a tar."""
    script = "echo x > /new; echo y >> /etc/group; rm /etc/passwd; mkdir -p /d/e; rm -rf /home"
    container = engine.docker("run", "-d", engine.image, "sh", "-c", script).out.strip()
    assert engine.exit_code(container) == 0
    lines = set(engine.docker("diff", container).out.splitlines())
    assert lines == {"A /new", "C /etc", "C /etc/group", "D /etc/passwd", "A /d", "A /d/e", "D /home"}
    client = engine.popen("export", container)
    with tarfile.open(fileobj=io.BytesIO(client.communicate(timeout=100)[0])) as tar:
        names = {name.strip("/") for name in tar.getnames()}
        assert {"new", "etc/group", "d/e", "bin/busybox", "bin/sh"} <= names
        assert not {"etc/passwd", "home"} & names
        assert tar.extractfile("new").read() == b"x\n"  # type: ignore[union-attr]
    engine.docker("rm", container)


def test_names_and_ids_are_regular_expressions(engine: Engine) -> None:
    """In all lists, found anywhere (a container's id by its beginning only); a wrong one finds only what it equals."""
    mark = engine.unique("re")
    for name in (f"{mark}.one", f"{mark}.two"):
        engine.docker("volume", "create", name)
        engine.docker("network", "create", "--internal", name)
        engine.docker("create", "--name", name, engine.image, "true")
    network_id = engine.docker("network", "inspect", "-f", "{{.Id}}", f"{mark}.one").out.strip()
    container_id = engine.docker("inspect", "-f", "{{.Id}}", f"{mark}.one").out.strip()
    lists = (("ps", "-a", "--format", "{{.Names}}"), ("network", "ls", "--format", "{{.Name}}"), ("volume", "ls", "-q"))
    for command in lists:
        for wanted, found in (
            (f"^/?{mark}.(one|three)$", {"one"}),
            (f"{mark}[.]t[[:alpha:]]o", {"two"}),
            (f"(?i){mark.upper()}", {"one", "two"}),
            (f"{mark}.one(", set()),
            (f"{mark}(?=.one)", set()),
        ):
            said = engine.docker(*command, "--filter", f"name={wanted}").out.split()
            assert {name.removeprefix(f"{mark}.") for name in said} == found, (command, wanted)
    ids = ("network", "ls", "-q", "--no-trunc", "--filter")
    assert engine.docker(*ids, f"id=^{network_id[:20]}").out.split() == [network_id]
    assert engine.docker(*ids, f"id={network_id[10:40]}").out.split() == [network_id]
    ids = ("ps", "-aq", "--no-trunc", "--filter")
    for wanted, listed in ((container_id[:12], [container_id]), (f"^{container_id[:20]}", []), (container_id[30:], [])):
        assert engine.docker(*ids, f"id={wanted}").out.split() == listed
    engine.docker("rm", f"{mark}.one", f"{mark}.two")
    engine.docker("volume", "rm", f"{mark}.one", f"{mark}.two")
    engine.docker("network", "rm", f"{mark}.one", f"{mark}.two")


def test_hostile_expressions_stall_nobody(tare: Engine) -> None:
    """Expressions for which a backtracking engine would need longer than the universe has."""
    name = "a" * 60
    tare.docker("volume", "create", name)
    tare.docker("create", "--name", name, tare.image, "true")
    for path in ("/containers/json", "/volumes", "/networks"):
        for wanted in ("^(a+)+!", "(a|a)*!$", "(a?){60}a{60}!", "(.*)*(.*)*(.*)*!"):
            query = (
                {"all": "1", "filters": {"name": [wanted]}} if "containers" in path else {"filters": {"name": [wanted]}}
            )
            answer = tare.api.request("GET", path, query=query)
            assert answer.status == 200 and name not in answer.body.decode()
    many = {"filters": {"name": ["(((a{1000}){1000}){1000}){1000}"]}}
    assert tare.api.request("GET", "/volumes", query=many, check=False).status == 400
    tare.docker("volume", "rm", name)
    tare.docker("rm", name)
