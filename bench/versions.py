"""Many commits of a database on one engine: what they take on the disk, and how long commits and runs last."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from engines import Engine

DATABASE_MB = 64
LARGE_MB = 1024
IMAGE_MB = 300
PAGES = 20
SETTLE_S = 60

Row = tuple[str, str, float]
DD = "/bin/busybox dd of=/data bs=4096 count=1 conv=notrunc if=/dev/urandom seek={} 2>/dev/null"


def measure_versions(engine: Engine, count: int, progress: Callable[[str], None]) -> list[Row]:
    """`count` commits of a running container whose 64 MB database changes by 20 pages each time; and single commits."""
    source = random.Random(11)
    container = filled(engine, "busybox:latest", DATABASE_MB)
    before = settled(engine)
    took = []
    try:
        for number in range(count):
            progress(f"{engine.name}: commit {number + 1}/{count}")
            pages = [DD.format(source.randrange(DATABASE_MB * 256)) for _ in range(PAGES)]
            engine.exec_attached(container, ["sh", "-c", "; ".join(pages)])
            began = time.perf_counter()
            commit(engine, container, f"v{number}")
            took.append(time.perf_counter() - began)
        disk = settled(engine) - before
        last, middle = (run(engine, f"bench/db:v{number}") for number in (count - 1, count // 2))
    finally:
        engine.remove(container)
    rows = [
        (f"disk used by {count} commits of a {DATABASE_MB} MB database, {PAGES} pages changed each", "MB", disk / 1e6),
        ("each of these commits (median)", "s", statistics.median(took)),
        ("run of the last version", "s", last),
        ("run of one in the middle, the first time", "s", middle),
    ]
    return [*rows, *single_commits(engine, progress)]


def single_commits(engine: Engine, progress: Callable[[str], None]) -> list[Row]:
    """One changed small file over a large image, and one changed page of a large file."""
    progress(f"{engine.name}: a large image, a large file")
    seed = filled(engine, "busybox:latest", IMAGE_MB)
    commit(engine, seed, "seed")
    engine.remove(seed)
    small = filled(engine, "bench/db:seed", 0)
    took = []
    for number in range(5):
        engine.exec_attached(small, ["sh", "-c", f"echo {number} > /small"])
        began = time.perf_counter()
        commit(engine, small, f"small{number}")
        took.append(time.perf_counter() - began)
    engine.remove(small)
    large = filled(engine, "busybox:latest", LARGE_MB)
    commit(engine, large, "large")
    settled(engine)
    engine.exec_attached(large, ["sh", "-c", DD.format(7777)])
    began = time.perf_counter()
    commit(engine, large, "page")
    page = time.perf_counter() - began
    engine.remove(large)
    return [
        (f"commit of one small file over a {IMAGE_MB} MB image (median of 5)", "s", statistics.median(took)),
        (f"commit of one changed page of a {LARGE_MB} MB file", "s", page),
    ]


def filled(engine: Engine, image: str, megabytes: int) -> str:
    """A running container with a file of random bytes."""
    fill = f"/bin/busybox dd of=/data bs=1M count={megabytes} if=/dev/urandom 2>/dev/null; " if megabytes else ""
    return engine.started(image, f"{fill}true")


def commit(engine: Engine, container: str, tag: str) -> None:
    engine.call("POST", "/commit", {}, container=container, repo="bench/db", tag=tag)


def run(engine: Engine, image: str) -> float:
    began = time.perf_counter()
    body = {"Image": image, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    container = str(engine.call("POST", "/containers/create", body)["Id"])
    engine.call("POST", f"/containers/{container}/start")
    engine.call("POST", f"/containers/{container}/wait")
    took = time.perf_counter() - began
    engine.remove(container)
    return took


def settled(engine: Engine) -> int:
    """Bytes of the engine's data on the disk, once they don't change any more."""
    end = time.monotonic() + SETTLE_S
    last, same = -1, 0
    while same < 3 and time.monotonic() < end:
        now = disk_bytes(engine.data)
        last, same = now, same + 1 if now == last else 0
        time.sleep(0.3)
    return last


def disk_bytes(root: Path) -> int:
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            total += status.st_blocks * 512 if status.st_dev == root.stat().st_dev else 0
    return total


def report_versions(docker: list[Row], other: list[Row]) -> None:
    """Prints both engines' figures side by side."""
    print("\n| versions of a database | unit | docker | tare | ratio |\n|---|---|--:|--:|--:|")
    for (what, unit, theirs), (_, _, ours) in zip(docker, other, strict=True):
        print(f"| {what} | {unit} | {theirs:.2f} | {ours:.2f} | **{ours / theirs:.3f}** |")
