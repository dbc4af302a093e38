#!/usr/bin/env python3
"""Tare side by side with a real dockerd: each task runs on both in turn, A B A B …, so that a busy machine hits both.

Prints a Markdown table of minima, medians and ratios (below 1, Tare is better); `--json FILE` keeps every sample.
`--against-itself` measures Docker on Docker, which shows how much of a ratio is noise.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import datetime
import io
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from crowd import measure_crowd, report_crowds
from engines import BenchError, Engine
from versions import measure_versions, report_versions

from images import measure_images, report_images

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / ".venv" / "bin"
IDLE_CONTAINERS = 8
CONCURRENT = 10
SETTLE_S = 7
"""How long an engine is left alone before its memory is read: what it does after an answer counts, too."""

Measure = Callable[[Engine], float]


@dataclass
class Task:
    """What is measured: a function that returns a cost (seconds or bytes), and how often to ask it."""

    name: str
    text: str
    measure: Measure
    unit: str = "ms"
    rounds: int | None = None
    samples: dict[str, list[float]] = field(default_factory=dict)
    failure: str = ""


def main() -> int:
    options = parse_options()
    if os.geteuid() != 0:
        print("Two engines are to be started: run it as root.", file=sys.stderr)
        return 1
    tasks = [task for task in make_tasks(options.command_line) if not options.tasks or task.name in options.tasks]
    place = Path(tempfile.mkdtemp(prefix="tare-bench-", dir=options.work))
    docker = Engine("docker", "dockerd", place, 1, "dockerd")
    other = Engine("other", "dockerd", place, 2, "dockerd")
    tare = other if options.against_itself else Engine("tare", "tared", place, 2, options.tared)
    keep = False
    try:
        for engine in (docker, tare):
            engine.start()
            engine.call("POST", "/images/create", busybox_archive(), fromSrc="-", repo="busybox", tag="latest")
        time.sleep(SETTLE_S)
        for task in tasks:
            run_task(task, (docker, tare), options.rounds)
        crowds = [measure_crowd(engine, options.many, progress) for engine in (docker, tare) if options.many]
        count = options.versions
        versions = [measure_versions(engine, count, progress) for engine in (docker, tare) if count]
        if options.images:
            report_images(measure_images((docker, tare), options.images, progress), docker.name, tare.name)
    except BenchError as error:
        keep = True
        print(f"The benchmark failed: {error}", file=sys.stderr)
        return 1
    finally:
        for engine in (docker, tare):
            engine.stop()
        if not keep:
            remove_place(place)
    report(tasks, docker, tare, options)
    if crowds:
        report_crowds(*crowds)
    if versions:
        report_versions(*versions)
    return 1 if any(task.failure for task in tasks) else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="samples of each task on each engine (10)")
    parser.add_argument("--tasks", nargs="*", help="only these tasks: " + " ".join(t.name for t in make_tasks([])))
    parser.add_argument("--json", type=Path, help="writes every sample to this file")
    parser.add_argument("--many", type=int, default=0, help="also: so many containers at once (200: some minutes)")
    parser.add_argument("--versions", type=int, default=0, help="also: so many commits of a database (50: minutes)")
    parser.add_argument("--images", type=int, default=0, help="also: so many rounds of import, load, save, commit …")
    parser.add_argument("--work", default="/var/tmp", help="where both engines keep their data (/var/tmp)")
    parser.add_argument("--tared", default=str(PROGRAMS / "tared"), help="the tared to measure")
    parser.add_argument("--against-itself", action="store_true", help="a second dockerd in place of Tare")
    options = parser.parse_args()
    own = "docker" if options.against_itself else str(PROGRAMS / "tare")
    options.command_line = [own]
    return options


def make_tasks(own_command: list[str]) -> list[Task]:
    def own_run(engine: Engine) -> float:
        return command_line_run(engine, "docker" if engine.name == "docker" else own_command[0])

    return [
        Task("idle-engine", "memory of the idle engine (PSS)", lambda e: float(e.memory()), "MB", 1),
        Task("idle-container", f"memory per idle container (PSS, {IDLE_CONTAINERS})", idle_container, "MB", 3),
        Task("run-docker-cli", "`docker run --rm busybox true`, Docker's CLI on both", docker_run),
        Task("run-own-cli", "`run --rm busybox true`, each engine's own CLI", own_run),
        Task("cycle-none", "API create + start + wait + remove, no network", lambda e: cycle(e, "none")),
        Task("cycle-bridge", "API create + start + wait + remove, bridge network", lambda e: cycle(e, "bridge")),
        Task("concurrent", f"{CONCURRENT} concurrent starts", concurrent_starts),
        Task("concurrent-30", "30 concurrent starts", lambda e: concurrent_starts(e, 30), "ms", 5),
        Task("exec", "exec of `true`, attached", exec_latency),
        Task("import", "import of a 64 MB archive of 2,000 files", import_archive, "ms", 5),
    ]


# ------------------------------------------------------------------------------------------------- the tasks


def command_line_run(engine: Engine, program: str) -> float:
    environment = {**os.environ, "DOCKER_HOST": f"unix://{engine.socket}", "TARE_HOST": f"unix://{engine.socket}"}
    environment |= {"DOCKER_CLI_HINTS": "false", "TARE_AUTOSTART": "0"}
    began = time.perf_counter()
    done = subprocess.run(
        [program, "run", "--rm", "busybox", "true"], env=environment, stdin=subprocess.DEVNULL, capture_output=True
    )
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise BenchError(f"{program} on {engine.name}: {done.stderr.decode(errors='replace').strip()[-200:]}")
    return took


def docker_run(engine: Engine) -> float:
    return command_line_run(engine, "docker")


def cycle(engine: Engine, network: str) -> float:
    began = time.perf_counter()
    container = engine.create(["true"], network)
    engine.call("POST", f"/containers/{container}/start")
    code = engine.call("POST", f"/containers/{container}/wait")["StatusCode"]
    engine.remove(container)
    took = time.perf_counter() - began
    if code != 0:
        raise BenchError(f"{engine.name}: `true` ended with {code}")
    return took


def concurrent_starts(engine: Engine, count: int = CONCURRENT) -> float:
    containers = [engine.create(["sleep", "600"]) for _ in range(count)]
    try:
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            began = time.perf_counter()
            list(pool.map(lambda one: engine.call("POST", f"/containers/{one}/start"), containers))
            return time.perf_counter() - began
    finally:
        for container in containers:
            engine.remove(container)


def exec_latency(engine: Engine) -> float:
    container = engine.create(["sleep", "600"])
    try:
        engine.call("POST", f"/containers/{container}/start")
        began = time.perf_counter()
        engine.exec_attached(container, ["true"])
        return time.perf_counter() - began
    finally:
        engine.remove(container)


def idle_container(engine: Engine) -> float:
    time.sleep(SETTLE_S)
    before = engine.memory()
    containers = [engine.create(["sleep", "600"]) for _ in range(IDLE_CONTAINERS)]
    try:
        for container in containers:
            engine.call("POST", f"/containers/{container}/start")
        time.sleep(SETTLE_S)
        return (engine.memory() - before) / IDLE_CONTAINERS
    finally:
        for container in containers:
            engine.remove(container)


def import_archive(engine: Engine) -> float:
    archive = big_archive()
    began = time.perf_counter()
    engine.call("POST", "/images/create", archive, fromSrc="-", repo="bench/big", tag="latest")
    took = time.perf_counter() - began
    engine.call("DELETE", "/images/bench/big:latest", force="1")
    return took


# ---------------------------------------------------------------------------------------------- the archives


def busybox_archive() -> bytes:
    """A root of one static program and its links, so that nothing need be pulled."""
    program = shutil.which("busybox")
    if program is None:
        raise BenchError("busybox is missing: scripts/setup --dev")
    data = Path(program).read_bytes()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add_file(tar, "bin/busybox", data, 0o755)
        for name in ("sh", "true", "sleep", "cat", "ls"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return out.getvalue()


def big_archive() -> bytes:
    """The same bytes each time: files from 1 to 64 KB."""
    source = random.Random(7)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(2000):
            add_file(tar, f"srv/{number % 40}/{number}", source.randbytes(1024 * (1 + number % 64)), 0o644)
    return out.getvalue()


def add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


# --------------------------------------------------------------------------------------------- running, report


def run_task(task: Task, engines: tuple[Engine, Engine], rounds: int) -> None:
    count = min(task.rounds or rounds, rounds)
    warm = 0 if task.name == "idle-engine" else 1
    try:
        for number in range(-warm, count):
            for engine in engines:
                value = task.measure(engine)
                if number >= 0:
                    task.samples.setdefault(engine.name, []).append(value)
            progress(f"{task.name} {number + 1}/{count}")
    except (BenchError, OSError) as error:
        task.failure = str(error)
        for engine in engines:
            with contextlib.suppress(OSError, BenchError):
                engine.remove_all()
    progress("")


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def report(tasks: list[Task], docker: Engine, tare: Engine, options: argparse.Namespace) -> None:
    cores = len(os.sched_getaffinity(0))
    print(
        f"{datetime.date.today()}, Linux {platform.release()}, Python {platform.python_version()}, {cores} cores, "
        f"load {os.getloadavg()[0]:.1f}, {docker_version()}\n"
    )
    print(f"| what | unit | {docker.name} min | median | {tare.name} min | median | ratio of medians | of minima |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for task in tasks:
        if task.failure:
            print(f"| {task.text} | | | | | | failed: {task.failure} | |")
            continue
        scale = 1e3 if task.unit == "ms" else 1e-6
        a, b = ([value * scale for value in task.samples[engine.name]] for engine in (docker, tare))
        a_mid, b_mid = statistics.median(a), statistics.median(b)
        ratios = f"**{b_mid / a_mid:.3f}** | {min(b) / min(a):.3f}" if min(a) > 0 and a_mid > 0 else "– | –"
        print(f"| {task.text} | {task.unit} | {min(a):.1f} | {a_mid:.1f} | {min(b):.1f} | {b_mid:.1f} | {ratios} |")
    if options.json:
        text = json.dumps({task.name: {"failure": task.failure, **task.samples} for task in tasks}, indent=1)
        options.json.write_text(text)


def docker_version() -> str:
    done = subprocess.run(["dockerd", "--version"], capture_output=True, text=True)
    return done.stdout.strip().replace("Docker version", "dockerd")


def remove_place(place: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{place}/")), reverse=True):
        subprocess.run(["umount", mount], capture_output=True)
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
