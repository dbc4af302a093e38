"""Images on both engines in turn: import, load, save, export, commit, diff, removal, run of what was just loaded.

Each round has data of its own, since an engine that has a layer already need not unpack it, and nothing is deleted
before the end: ext4 doesn't give out for minutes what was deleted, and looks for other inodes at great cost.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import random
import shutil
import socket
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from engines import BenchError, Engine

CACHE = Path("/var/tmp/tare-debian.tar")
LAYERS = 6
MANY_FILES = 5000
MANY = f"""mkdir /srv/m; cd /srv/m; i=0; while [ $i -lt 50 ]; do mkdir $i; i=$((i + 1)); done
i=0; while [ $i -lt {MANY_FILES} ]; do echo $i > $((i % 50))/$i; i=$((i + 1)); done"""

Samples = dict[str, dict[str, list[float]]]


class Roots:
    """A root file system as the archives that engines take: plain and gzip, whole and in several layers."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        progress("a root file system")
        self.plain = debian_root()
        self.gzipped = packed(self.plain)
        self.layers = split(self.plain, LAYERS)
        self.gzipped_layers = [packed(layer) for layer in self.layers]

    def describe(self) -> str:
        with tarfile.open(fileobj=io.BytesIO(self.plain)) as tar:
            count = len(tar.getnames())
        return f"{len(self.plain) / 1e6:.0f} MB, {count} entries, {len(self.gzipped) / 1e6:.0f} MB as gzip"


def debian_root() -> bytes:
    """Debian bookworm's smallest root, kept for the next time; without a mirror a tree of about its shape."""
    if not CACHE.exists() and (program := shutil.which("mmdebstrap")):
        aside = CACHE.with_suffix(".part.tar")
        subprocess.run([program, "--variant=minbase", "bookworm", str(aside)], capture_output=True)
        if aside.exists():
            aside.rename(CACHE)
    return CACHE.read_bytes() if CACHE.exists() else made_up_root()


def made_up_root() -> bytes:
    """7,000 files, 170 MB: half of them below 4 KB, a few of many megabytes, text and what doesn't compress."""
    source = random.Random(3)
    text = b"".join(b"%x of the many words\n" % source.randrange(1 << 40) for _ in range(60_000))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(7000):
            size = int(min(8e6, source.paretovariate(0.6) * 1500))
            start = source.randrange(len(text) // 2)
            data = (text[start : start + size] * (1 + size // len(text)))[:size]
            data = data[: size // 2] + source.randbytes(size - size // 2)
            add(tar, f"usr/share/{number % 300}/{number}", data)
        for name in ("bin/sh", "bin/true", "bin/cp"):
            add(tar, name, Path(shutil.which("busybox") or "/bin/busybox").read_bytes(), 0o755)
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def packed(plain: bytes) -> bytes:
    """As gzip -6 would, by all cores where pigz is there."""
    if shutil.which("pigz"):
        return subprocess.run(["pigz", "-c"], input=plain, capture_output=True, check=True).stdout
    return gzip.compress(plain, 6)


def split(plain: bytes, count: int) -> list[bytes]:
    """The same entries in several archives of about the same size; what is a second name becomes a file of its own."""
    outs = [io.BytesIO() for _ in range(count)]
    tars = [tarfile.TarFile(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) for out in outs]
    position = 0
    with tarfile.open(fileobj=io.BytesIO(plain)) as source:
        for entry in source:
            tar = tars[min(count - 1, position * count // len(plain))]
            content = source.extractfile(entry) if entry.isreg() or entry.islnk() else None
            data = content.read() if content else b""
            if entry.islnk():
                entry.type, entry.linkname = tarfile.REGTYPE, ""
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data) if content else None)
            position += 1024 + len(data)
    for tar in tars:
        tar.close()
    return [out.getvalue() for out in outs]


def mark(word: str) -> bytes:
    """A file's entry to put before an archive's first, so that its digest is new."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add(tar, "bench-mark", word.encode())
    return out.getvalue()[:1024]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def docker_archive(name: str, word: str, plain: list[bytes], zipped: list[bytes] | None = None) -> bytes:
    """What `docker load` reads, its layers plain or gzip."""
    plain = [mark(f"{word} {number}") + layer for number, layer in enumerate(plain)]
    config = json.dumps(config_of(plain)).encode()
    given = plain if zipped is None else [gzip_marked(word, number, layer) for number, layer in enumerate(zipped)]
    names = [f"{digest(layer)}/layer.tar" for layer in given]
    manifest = [{"Config": f"{digest(config)}.json", "RepoTags": [name], "Layers": names}]
    files = {f"{digest(config)}.json": config, **dict(zip(names, given, strict=True))}
    return archive({**files, "manifest.json": json.dumps(manifest).encode()})


def oci_archive(name: str, word: str, plain: list[bytes], zipped: list[bytes]) -> bytes:
    """An OCI image layout of gzip layers, as a tar."""
    kind = "application/vnd.oci.image."
    config = json.dumps(config_of([mark(f"{word} {n}") + layer for n, layer in enumerate(plain)])).encode()
    given = [gzip_marked(word, number, layer) for number, layer in enumerate(zipped)]

    def described(media: str, data: bytes) -> dict[str, object]:
        return {"mediaType": kind + media, "digest": f"sha256:{digest(data)}", "size": len(data)}

    layers = [described("layer.v1.tar+gzip", layer) for layer in given]
    top = {"schemaVersion": 2, "mediaType": f"{kind}manifest.v1+json", "config": described("config.v1+json", config)}
    manifest = json.dumps({**top, "layers": layers}).encode()
    entry = described("manifest.v1+json", manifest)
    entry["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    files = {f"blobs/sha256/{digest(data)}": data for data in (config, manifest, *given)}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return archive({**files, "oci-layout": b'{"imageLayoutVersion": "1.0.0"}'})


def gzip_marked(word: str, number: int, zipped: bytes) -> bytes:
    return gzip.compress(mark(f"{word} {number}"), 1) + zipped


def config_of(layers: list[bytes]) -> dict[str, object]:
    diff_ids = [f"sha256:{digest(layer)}" for layer in layers]
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "bench"} for _ in layers],
    }


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return out.getvalue()


# ----------------------------------------------------------------------------------------------------------- measuring


def measure_images(engines: tuple[Engine, Engine], rounds: int, progress: Callable[[str], None]) -> Samples:
    """Seconds, by what was done and by the engine's name; the first round warms up and isn't counted."""
    roots = Roots(progress)
    print(f"\nThe root: {roots.describe()}.")
    samples: Samples = {}
    for number in range(rounds + 1):
        for engine in engines:
            progress(f"images: round {number}/{rounds}, {engine.name}")
            for what, took in one_round(engine, roots, number):
                if number:
                    samples.setdefault(what, {}).setdefault(engine.name, []).append(took)
        progress(f"images: round {number}/{rounds}, floors")
        for what, took in floors(engines[0].data, roots):
            samples.setdefault(what, {}).setdefault("floor", []).append(took)
    for number in range(1, rounds + 1):
        for engine in engines:
            took = timed(lambda: engine.call("DELETE", f"/images/bench/plain:{number}", force="1"))  # noqa: B023
            samples.setdefault(REMOVE, {}).setdefault(engine.name, []).append(took)
    return samples


IMPORT, IMPORT_GZIP = "import of a tar", "import of a gzip"
LOAD_1, LOAD_6 = "load, one layer", f"load, {LAYERS} layers"
LOAD_GZIP, LOAD_OCI = f"load, {LAYERS} gzip layers", f"load of an OCI layout, {LAYERS} gzip layers"
REMOVE = "removal of an image (the answer)"


def one_round(engine: Engine, roots: Roots, number: int) -> list[tuple[str, float]]:
    word = f"{number} {random.random()}"
    rows: list[tuple[str, float]] = []

    def load(what: str, name: str, data: bytes) -> None:
        rows.append((what, timed(lambda: engine.call("POST", "/images/load", data, quiet="1"))))
        if not engine.call("GET", f"/images/{name}/json")["Id"]:
            raise BenchError(f"{engine.name}: {name} was not loaded")

    def take(what: str, repository: str, data: bytes) -> None:
        query = {"fromSrc": "-", "repo": f"bench/{repository}", "tag": str(number)}
        rows.append((what, timed(lambda: engine.call("POST", "/images/create", data, **query))))

    take(IMPORT, "plain", mark(word) + roots.plain)
    take(IMPORT_GZIP, "gzip", gzip_marked(word, 0, roots.gzipped))
    load(LOAD_1, f"bench/one:{number}", docker_archive(f"bench/one:{number}", word + "a", [roots.plain]))
    load(LOAD_6, f"bench/six:{number}", docker_archive(f"bench/six:{number}", word + "b", roots.layers))
    rows.append((f"run of an image of {LAYERS} layers, just loaded", timed(lambda: run(engine, f"bench/six:{number}"))))
    name = f"bench/packed:{number}"
    load(LOAD_GZIP, name, docker_archive(name, word + "c", roots.layers, roots.gzipped_layers))
    if engine.kind == "tared":
        name = f"localhost/bench/oci:{number}"
        load(LOAD_OCI, name, oci_archive(name, word + "d", roots.layers, roots.gzipped_layers))
    rows.append(("save, one layer", timed(lambda: drain(engine, f"/images/bench/one:{number}/get"))))
    rows.append((f"save, {LAYERS} layers", timed(lambda: drain(engine, f"/images/bench/six:{number}/get"))))
    rows.append((f"save, {LAYERS} layers that came as gzip", timed(lambda: drain(engine, f"/images/{name}/get"))))
    return [*rows, *containers(engine, f"bench/six:{number}")]


def containers(engine: Engine, image: str) -> list[tuple[str, float]]:
    """Export, commit and diff of a container with few changes, and commit and diff of one with many."""
    few = engine.started(image, "echo changed > /etc/motd; echo new > /srv/new")
    many = engine.started(image, MANY)
    try:
        rows = [("export of a container", timed(lambda: drain(engine, f"/containers/{few}/export")))]
        for what, container in (("2 files", few), (f"{MANY_FILES:,} files", many)):
            changed = [timed(lambda: changes(engine, container)) for _ in range(3)]  # noqa: B023
            rows.append((f"diff: {what} changed", statistics.median(changed)))
            rows.append((f"commit: {what} changed", timed(lambda: commit(engine, container))))  # noqa: B023
    finally:
        engine.remove(few)
        engine.remove(many)
    return rows


def changes(engine: Engine, container: str) -> None:
    if len(engine.call("GET", f"/containers/{container}/changes")) < 2:
        raise BenchError(f"{engine.name}: a container has no changes")


def commit(engine: Engine, container: str) -> None:
    engine.call("POST", "/commit", {}, container=container, repo="bench/commit", tag=str(time.time_ns()))


def run(engine: Engine, image: str) -> None:
    body = {"Image": image, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    container = str(engine.call("POST", "/containers/create", body)["Id"])
    engine.call("POST", f"/containers/{container}/start")
    engine.call("POST", f"/containers/{container}/wait")
    engine.remove(container)


def drain(engine: Engine, path: str) -> None:
    """Reads an answer to its end as cheaply as it can be done."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(120)
        stream.connect(str(engine.socket))
        stream.sendall(f"GET /v1.41{path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        buffer = bytearray(1 << 20)
        head, total = b"", 0
        while count := stream.recv_into(buffer):
            head = head or bytes(buffer[:200])
            total += count
    if not head.startswith(b"HTTP/1.1 200") or total < 1 << 20:
        raise BenchError(f"{engine.name}: {path}: {head[:100]!r}, {total} bytes")


def floors(where: Path, roots: Roots) -> list[tuple[str, float]]:
    """What the same costs without any engine: tar, pigz and tar."""
    rows = []
    place = Path(tempfile.mkdtemp(dir=where.parent))
    try:
        for what, data, flag in ((IMPORT, roots.plain, "-x"), (IMPORT_GZIP, roots.gzipped, "-xz")):
            command = ["tar", flag, "-C", str(place)]
            if flag == "-xz" and shutil.which("pigz"):
                command = ["tar", "-x", "-I", "pigz", "-C", str(place)]
            rows.append((what, timed(lambda: subprocess.run(command, input=data, check=True))))  # noqa: B023
            shutil.rmtree(place)
            place.mkdir()
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(place)
    return rows


def timed(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def report_images(samples: Samples, docker: str, other: str) -> None:
    """Prints both engines' figures side by side, in milliseconds."""
    print(f"\n| images, ms | floor | {docker} min | median | {other} min | median | ratio of medians | of minima |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for what, taken in samples.items():
        a, b = ([1e3 * value for value in taken.get(name, [])] for name in (docker, other))
        floor = f"{1e3 * min(taken['floor']):.0f}" if "floor" in taken else ""
        ours = f"{min(b):.1f} | {statistics.median(b):.1f}"
        if not a:
            print(f"| {what} | {floor} | can't | | {ours} | | |")
            continue
        ratios = f"**{statistics.median(b) / statistics.median(a):.3f}** | {min(b) / min(a):.3f}"
        print(f"| {what} | {floor} | {min(a):.1f} | {statistics.median(a):.1f} | {ours} | {ratios} |")
