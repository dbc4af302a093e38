"""`system df`: what uses how much, on both engines; on ours every byte of the data root has an owner."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared


def usage(engine: Engine, version: str = "1.41", **query: Any) -> Any:
    """GET /system/df in an API version."""
    answer = engine.api.request("GET", f"/v{version}/system/df", query=query, check=False)
    assert answer.status == 200, answer
    return answer.json


def test_old_shape(engine: Engine) -> None:
    """Until 1.51: LayersSize and the lists, each with the sizes that the command line adds up."""
    volume = engine.unique("volume")
    container = engine.start("-v", f"{volume}:/v", command=("sh", "-c", "head -c 70000 /dev/zero > /big; sleep 1000"))
    engine.docker("exec", container, "sh", "-c", "head -c 5000 /dev/zero > /v/file; sync")
    found = usage(engine)
    assert found["LayersSize"] > 0
    image = next(item for item in found["Images"] if f"{engine.image}:latest" in item["RepoTags"])
    assert image["Containers"] >= 1 and image["SharedSize"] >= 0
    mine = next(item for item in found["Containers"] if item["Id"] == container)
    assert mine["SizeRw"] >= 70000 and mine["State"] == "running"
    kept = next(item for item in found["Volumes"] if item["Name"] == volume)
    assert kept["UsageData"] == {"RefCount": 1, "Size": 5000} or kept["UsageData"]["RefCount"] == 1
    assert found["BuildCache"] in ([], None)
    engine.docker("rm", "-f", container)
    engine.docker("volume", "rm", volume)


def test_command_lines(engine: Engine) -> None:
    """Both command lines show the four rows, and -v the four tables."""
    engine.start()
    for client in (engine.docker, engine.tare_cli):
        rows = client("system", "df").out.splitlines()
        assert rows[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
        assert [row[:14].strip() for row in rows[1:5]] == ["Images", "Containers", "Local Volumes", "Build Cache"]
        tables = client("system", "df", "-v").out
        for title in ("Images space usage:", "Containers space usage:", "Local Volumes space usage:"):
            assert title in tables
        assert "sleep 1000" in tables


def test_new_shape(tare: Engine) -> None:
    """Since 1.52: sums by type; single things only with verbose; only the types asked for."""
    tare.start()
    sums = usage(tare, "1.55")
    assert "Images" not in sums and "Items" not in sums["ImageUsage"]
    assert sums["ContainerUsage"]["ActiveCount"] == 1 == sums["ContainerUsage"]["TotalCount"]
    assert sums["BuildCacheUsage"]["TotalSize"] == 0
    assert len(usage(tare, "1.55", verbose="1")["ContainerUsage"]["Items"]) == 1
    assert set(usage(tare, "1.55", type="volume")) == {"VolumeUsage"}
    both = usage(tare, "1.52")
    assert both["LayersSize"] == both["ImageUsage"]["TotalSize"]
    answer = tare.api.request("GET", "/system/df", query={"type": "nonsense"}, check=False)
    assert (answer.status, answer.message) == (400, "unknown object type: nonsense")


def test_every_byte_has_an_owner(daemon: Tared) -> None:
    """The lines of the ledger add up to what lies below the data root."""
    daemon.start()
    daemon.engine.prepare()
    engine = daemon.engine
    for number in range(3):
        script = f"head -c {number}00000 /dev/zero > /big; head -c 3000 /bin/busybox | od"
        container = engine.docker("run", "-d", "-v", "kept:/v", engine.image, "sh", "-c", script).out.strip()
        engine.exit_code(container)
    found = usage(engine, "1.52")
    lines = [found[name]["TotalSize"] for name in ("ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage")]
    own = found["Tare"]
    total = sum(lines) + sum(own["Logs"].values()) + own["OtherSize"] + own.get("Trash", {}).get("Size", 0)
    on_disk = sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(daemon.data_root)
        for name in names
        if not os.path.islink(os.path.join(place, name))
    )
    assert abs(total - on_disk) < 300_000, (total, on_disk, time.monotonic())  # the journal of the database moves on
    assert found["ContainerUsage"]["Reclaimable"] >= 300_000
    assert min(own["Logs"].values()) > 3000


def test_the_ledger_is_what_du_says(daemon: Tared) -> None:
    """Block by block, with images, containers, logs, volumes (one of memory) and all kinds of things in the trash."""
    daemon.start()
    daemon.engine.prepare()
    engine = daemon.engine
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory")
    script = "head -c 300000 /dev/zero > /big; ln /big /again; head -c 9999 /dev/zero | tee /v/f > /m/f; rm /bin/cat"
    mounts = ("-v", "kept:/v", "-v", "memory:/m", "-v", "/anonymous")
    engine.docker("run", "-d", "--name", "stays", *mounts, engine.image, "sh", "-c", f"{script}; sleep 1000")
    wait_until(lambda: engine.docker("exec", "stays", "test", "-e", "/bin/cat", check=False).code, "it has written")
    gone = engine.docker("run", "-d", *mounts[:2], "-v", "lost:/l", engine.image, "sh", "-c", "cp /bin/sh /l /").out
    engine.exit_code(gone.strip())
    engine.docker("commit", gone.strip(), "mine")
    engine.docker("rm", "-v", gone.strip())
    engine.docker("volume", "rm", "lost")
    engine.docker("rmi", "mine")
    owned: dict[str, dict[str, int]] = {}

    def agrees() -> bool:
        owned.update({each["Owner"]: each for each in usage(engine)["Tare"]["Ledger"]})
        argv = ["du", "-s", "-x", "-B1", str(daemon.data_root)]
        said = int(subprocess.run(argv, capture_output=True, check=True).stdout.split()[0])
        return sum(each["Disk"] for each in owned.values()) == said

    wait_until(agrees, "the ledger and du agree")  # the database's journal may move between the two
    assert owned["trash"]["Count"] == 3 and owned["trash"]["Size"] > 2_000_000
    assert 300_000 <= owned["containers"]["Size"] < 310_000 and owned["volumes"]["Size"] == 9999
    assert all(owned[name]["Size"] > 100 for name in ("images", "logs", "recipes", "documents", "database"))
    shown = engine.tare_cli("system", "df", "-v").out.splitlines()
    assert [line.split()[0] for line in shown[-len(owned) - 1 :]] == [*owned, "total"]
