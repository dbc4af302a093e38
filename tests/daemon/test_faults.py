"""Dying or failing at every step that changes the world: the next daemon agrees with the kernel, nothing leaks.

The steps are found in the source (tare.faults), and which verb takes which by running every verb once. At each of them
the process that comes there (daemon, launcher, monitor, worker or init) is killed, and in the engine's own room also
made to fail; then word and kernel must agree, the verb must succeed when it is repeated, and so must those after it.
"""

from __future__ import annotations

import http.server
import io
import os
import re
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from support import agreement
from support.crashes import Scenario, Sweep, Verb, asker, first_passing, names
from support.rawhttp import Answer
from support.tared import Tared, is_runnable

TESTS = Path(__file__).parents[1]
SOURCE = TESTS.parent / "src" / "tare"
POINT = re.compile(r"faults?\.point\(\s*f?\"([a-z0-9_.-]+)\"")
POINTS = sorted({name for path in SOURCE.rglob("*.py") for name in POINT.findall(path.read_text())})
BOOT = ("engine.restore.", "network.restore.", "network.bridge.", "network.table.", "network.guard.")
"""Passed on the way up."""
COMMIT = "storage.database.commit"
REMOVED = ("remove what was fetched", "remove what was squashed")
REPEATED = frozenset(
    (
        *("create one that removes itself", "create one to mount", "start again", "flood the log", "flood again"),
        *("kill", "kill and remove", "add a /host", "take a volume", "rename back", "wait", "remove named"),
        *(
            "remove auto",
            "connect",
            "disconnect",
            "unpause",
            "untag",
            "remove a commit",
            *REMOVED,
            "copy out of a stopped one",
        ),
    )
)
"""Verbs that go the ways of others."""
FULL = (
    *("storage.layer.stage", "storage.layer.row", "storage.content.write", "storage.snapshot.row"),
    *("storage.database.commit", "engine.create.stored", "images.squash.layer", "volumes.create.directory"),
)
"""Where a disk that is full just then is tried; all that store something with TARE_SWEEP=all."""
if os.environ.get("TARE_SWEEP") == "all":
    FULL = tuple(point for point in POINTS if point.startswith(("storage.", "images.", "engine.", "volumes.")))
FAILING = (
    *("runtime.view.step", "runtime.view.step@3", "storage.overwrite.entry", "images.tag"),
    *("volumes.fill.copied", "volumes.fill.moved", "volumes.fill.placed"),
)
"""Made to fail as well, beside the engine's own."""


def small_tar(*members: str) -> bytes:
    """A layer, or what is copied: small files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in members:
            entry = tarfile.TarInfo(name)
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"new\n"))
    return data.getvalue()


def gone(daemon: Tared, name: str) -> Answer | None:
    """Ends a container that removes itself, and waits until it has done so."""
    daemon.engine.api.request("POST", f"/containers/{name}/kill", check=False)
    answer = daemon.engine.api.request("POST", f"/containers/{name}/wait", query={"condition": "removed"}, check=False)
    return None if answer.status == 404 else answer


class _Archive(http.server.BaseHTTPRequestHandler):
    """Serves one layer, whatever is asked for."""

    def do_GET(self) -> None:
        data = small_tar("fetched")
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def fetched(ask: Callable[..., Answer], name: str) -> Answer:
    """An image of an archive from an address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Archive) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            source = f"http://127.0.0.1:{server.server_port}/archive.tar"
            return ask("POST", "/images/create", fromSrc=source, repo=name)
        finally:
            server.shutdown()
            thread.join()


def repaired(daemon: Tared) -> Answer:
    """The links of containers to the bridge are taken away, and made anew."""
    for link in names(Path(f"/sys/class/net/{daemon.mark}/brif")):
        subprocess.run(["ip", "link", "del", link], check=True)
    return asker(daemon)("POST", "/tare/networks/repair")


def life(daemon: Tared) -> Sequence[Verb]:
    """A container's life, and that of one that removes itself."""
    ask, image = asker(daemon), daemon.engine.image
    host = {"PortBindings": {"80/tcp": [{"HostPort": "0"}]}, "Memory": 64 << 20}
    run = {"Image": image, "Cmd": ["sleep", "1000"], "HostConfig": host}
    brief = {"Image": image, "Cmd": ["sleep", "1000"], "HostConfig": {"AutoRemove": True}}

    def execute() -> Answer:
        made = ask("POST", "/containers/first/exec", {"Cmd": ["touch", "/made"], "AttachStdout": True})
        return made if made.status >= 400 else ask("POST", f"/exec/{made.json['Id']}/start", {"Detach": False})

    return [
        Verb("create", lambda: ask("POST", "/containers/create", run, name="first")),
        Verb("start", lambda: ask("POST", "/containers/first/start")),
        Verb("exec", execute),
        Verb("commit", lambda: ask("POST", "/commit", {}, container="first", repo="committed")),
        Verb("squash", lambda: ask("POST", "/tare/squash", **{"from": image, "to": "committed", "tag": "squashed"})),
        Verb("pause", lambda: ask("POST", "/containers/first/pause")),
        Verb("unpause", lambda: ask("POST", "/containers/first/unpause"), (500,)),
        Verb("rename", lambda: ask("POST", "/containers/first/rename", name="renamed")),
        Verb("rename back", lambda: ask("POST", "/containers/renamed/rename", name="first")),
        Verb("restart", lambda: ask("POST", "/containers/first/restart", t=0)),
        Verb("stop", lambda: ask("POST", "/containers/first/stop", t=0)),
        Verb("start again", lambda: ask("POST", "/containers/first/start")),
        Verb("kill", lambda: ask("POST", "/containers/first/kill")),
        Verb("wait", lambda: ask("POST", "/containers/first/wait")),
        Verb("remove", lambda: ask("DELETE", "/containers/first", force=1)),
        Verb("create one that removes itself", lambda: ask("POST", "/containers/create", brief, name="second")),
        Verb("start one that removes itself", lambda: ask("POST", "/containers/second/start")),
        Verb("end it and wait until it has", lambda: gone(daemon, "second")),
        Verb("import", lambda: ask("POST", "/images/create", small_tar("file"), fromSrc="-", repo="imported")),
        Verb("import from an address", lambda: fetched(ask, "fetched")),
        Verb("tag", lambda: ask("POST", "/images/imported/tag", repo="again")),
        Verb("untag", lambda: ask("DELETE", "/images/imported")),
        Verb("remove an image", lambda: ask("DELETE", "/images/again")),
        Verb("remove what was fetched", lambda: ask("DELETE", "/images/fetched")),
        Verb("remove what was squashed", lambda: ask("DELETE", "/images/squashed")),
        Verb("remove a commit", lambda: ask("DELETE", "/images/committed")),
        Verb("prune", lambda: ask("POST", "/images/prune")),  # of a commit that was repeated the first has no name
    ]


def volumes(daemon: Tared) -> Sequence[Verb]:
    """A volume's life: made, filled, mounted, and removed with and without its container."""
    ask, image = asker(daemon), daemon.engine.image
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    host = {"NetworkMode": "none", "Binds": ["auto:/etc", "memory:/memory", "named:/named"]}
    run = {"Image": image, "Cmd": ["sleep", "1000"], "Volumes": {"/bin": {}}, "HostConfig": host}
    return [
        Verb("create a volume", lambda: ask("POST", "/volumes/create", {"Name": "named"})),
        Verb("create one to mount", lambda: ask("POST", "/volumes/create", {"Name": "memory", "DriverOpts": options})),
        Verb("create", lambda: ask("POST", "/containers/create", run, name="first")),
        Verb("start", lambda: ask("POST", "/containers/first/start")),
        Verb("stop", lambda: ask("POST", "/containers/first/stop", t=0)),
        Verb("remove", lambda: ask("DELETE", "/containers/first", v=1)),
        *(Verb(f"remove {n}", lambda n=n: ask("DELETE", f"/volumes/{n}")) for n in ("auto", "memory", "named")),
    ]


def copies(daemon: Tared) -> Sequence[Verb]:
    """Copies into a container and out of it, stopped and running."""
    ask = asker(daemon)
    host = {"NetworkMode": "none", "Binds": ["/usr:/not/in/the/image"]}
    run = {"Image": daemon.engine.image, "Cmd": ["sleep", "1000"], "HostConfig": host}
    archive = small_tar("etc/group", "new/one", "two")

    def put() -> Answer:
        return ask("PUT", "/containers/first/archive", archive, path="/")

    def get() -> Answer:
        answer = ask("GET", "/containers/first/archive", path="/new")
        assert answer.status != 200 or b"new\n" in answer.body
        return answer

    return [
        Verb("create", lambda: ask("POST", "/containers/create", run, name="first")),
        Verb("copy out of one that never ran", lambda: ask("GET", "/containers/first/archive", path="/bin")),
        Verb("copy into a stopped one", put),
        Verb("copy out of a stopped one", get),
        Verb("start", lambda: ask("POST", "/containers/first/start")),
        Verb("copy into a running one", put),
        Verb("copy out of a running one", get),
        Verb("kill and remove", lambda: ask("DELETE", "/containers/first", force=1)),
    ]


def changes(daemon: Tared) -> Sequence[Verb]:
    """Ports, mounts and networks of a running container."""
    ask, image = asker(daemon), daemon.engine.image
    options = {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs"}}
    host = {"Binds": ["named:/stuff"], "PortBindings": {"80/tcp": [{"HostPort": "0"}]}}
    run = {"Image": image, "Cmd": ["sleep", "1000"], "HostConfig": host}
    added = [
        {"Type": "bind", "Source": "/usr", "Target": "/host"},
        {"Type": "volume", "Target": "/anonymous"},
        {"Type": "volume", "Source": "memory", "Target": "/memory", "VolumeOptions": {"DriverConfig": options}},
    ]
    instead = {"Type": "tmpfs", "Target": "/host"}
    ports = {"PublishAdd": {"81/tcp": [{"HostPort": "0"}]}, "PublishRemove": {"80/tcp": [{}]}}

    def update(**body: object) -> Answer:
        return ask("POST", "/containers/first/update", body)

    def add(number: int) -> Verb:
        return Verb(f"add a {added[number]['Target']}", lambda: update(MountAdd=[added[number]]), (400,))

    return [
        Verb("create", lambda: ask("POST", "/containers/create", run, name="first")),
        Verb("start", lambda: ask("POST", "/containers/first/start")),
        Verb("repair", lambda: repaired(daemon)),
        Verb("create a network", lambda: ask("POST", "/networks/create", {"Name": "one"})),
        *(add(number) for number in range(len(added))),
        Verb("change ports", lambda: update(**ports)),
        Verb("change networks", lambda: update(NetworkAdd={"one": None}, NetworkRemove=["bridge"])),
        Verb("replace a mount", lambda: update(MountRemove=["/host"], MountAdd=[instead])),
        Verb("take a bind", lambda: update(MountRemove=["/host"])),
        Verb("take a volume with options", lambda: update(MountRemove=["/memory"])),
        Verb("take a volume", lambda: update(MountRemove=["/stuff"])),
        Verb("connect", lambda: ask("POST", "/networks/bridge/connect", {"Container": "first"}), (403,)),
        Verb("disconnect", lambda: ask("POST", "/networks/one/disconnect", {"Container": "first"}), (403,)),
        Verb("remove a network", lambda: ask("DELETE", "/networks/one")),
        Verb("kill and remove", lambda: ask("DELETE", "/containers/first", force=1, v=1)),
        *(Verb(f"remove {n}", lambda n=n: ask("DELETE", f"/volumes/{n}")) for n in ("named", "memory")),
    ]


def logs(daemon: Tared) -> Sequence[Verb]:
    """A log that is rotated many times, compressed, read and emptied."""
    ask = asker(daemon)
    bound = {"Type": "json-file", "Config": {"max-size": "4k", "max-file": "3", "compress": "true"}}
    flood = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done"
    host = {"NetworkMode": "none", "LogConfig": bound}
    run = {"Image": daemon.engine.image, "Cmd": ["sh", "-c", flood], "HostConfig": host}

    def read() -> Answer:
        answer = ask("GET", "/containers/first/logs", stdout=1, tail="all")
        numbers = [int(word) for word in re.findall(rb"line (\d+)\n", answer.body)]
        assert answer.status != 200 or numbers == sorted(set(numbers)), "lines are out of order or doubled"
        return answer

    return [
        Verb("create", lambda: ask("POST", "/containers/create", run, name="first")),
        Verb(
            "flood the log", lambda: (ask("POST", "/containers/first/start"), ask("POST", "/containers/first/wait"))[0]
        ),
        Verb("read the log", read),
        Verb("empty the log", lambda: ask("DELETE", "/containers/first/logs")),
        Verb("flood again", lambda: (ask("POST", "/containers/first/start"), ask("POST", "/containers/first/wait"))[0]),
        Verb("read again", read),
        Verb("remove", lambda: ask("DELETE", "/containers/first")),
    ]


SCENARIOS = [
    Scenario(scenario.__name__, scenario, agreement.everything, agreement.nothing)
    for scenario in (volumes, changes, copies, logs, life)
]


@pytest.fixture(scope="module")
def sweep() -> Iterator[Sweep]:
    """One daemon for all, as long as it does."""
    if not is_runnable():
        pytest.skip("this tree has no daemon yet")
    made = Sweep("--trash-keep", "0")
    yield made
    made.drop()


def scenarios_of(sweep: Sweep, point: str) -> list[tuple[Scenario, str]]:
    """Where a point is tried: one of the engine's, and a transaction, in every verb that passes it, others in one."""
    if point == "storage.trash.delete":  # comes some time after a removal
        return [(SCENARIOS[0], "remove")]
    found = first_passing(SCENARIOS, sweep.points_of, point)
    first = [each for each in found if each[1] not in REPEATED] or found[:1]
    return first if point.startswith(("engine.", COMMIT)) else first[:1]


def elsewhere(point: str) -> bool:
    """Whether another test names it, or what it is a step of."""
    texts = (path.read_text() for path in TESTS.rglob("test_*.py") if path.name != Path(__file__).name)
    return any(f'"{point}' in text or f'"{point.rpartition(".")[0]}.' in text for text in texts)


@pytest.mark.parametrize("point", POINTS)
def test_killed(sweep: Sweep, point: str) -> None:
    """kill -9 at this step of every verb: word and kernel agree afterwards, and all verbs work."""
    boots = point.startswith(BOOT) and point in sweep.boot_points()
    found = scenarios_of(sweep, point)
    for scenario, verb in found:
        sweep.check(scenario, verb, f"{point}:kill")
    if boots:
        sweep.check_boot(f"{point}:kill")
    assert found or boots or elsewhere(point), "no test passes this point"


@pytest.mark.parametrize("point", [*(point for point in POINTS if point.startswith("engine.")), *FAILING])
def test_failing(sweep: Sweep, point: str) -> None:
    """An error at this step of the engine is told; then word and kernel agree without a restart, and all verbs work.

    Of a container's end nobody is told: it is tried again (tests/daemon/test_unfinished.py).
    """
    for scenario, verb in scenarios_of(sweep, point.partition("@")[0]):
        sweep.check(scenario, verb, point)


@pytest.mark.parametrize("point", FULL)
def test_full_disk(sweep: Sweep, point: str) -> None:
    """A disk that is full at this step: word and kernel agree without a restart, and all verbs work afterwards."""
    for scenario, verb in scenarios_of(sweep, point):
        sweep.check(scenario, verb, f"{point}:full")
