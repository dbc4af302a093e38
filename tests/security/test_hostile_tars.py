"""Tars made to write outside, to fill the disk or never to end: import stays inside, says so, and leaves nothing."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from support.deadline import wait_until
from support.engine import Engine
from support.tared import Tared
from support.trees import found


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder of the host with one file, which must be the same afterwards."""
    (tmp_path / "victim").write_text("same")
    (tmp_path / "victim").chmod(0o600)
    yield tmp_path
    assert (tmp_path / "victim").read_text() == "same" and (tmp_path / "victim").stat().st_mode & 0o7777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["victim"]


@pytest.fixture(autouse=True)
def images_removed(tare: Engine) -> Iterator[None]:
    """What was imported goes after each test."""
    yield
    tare.clean()
    tare.clean_images()


def made(build: Callable[[tarfile.TarFile], None], **options: int) -> bytes:
    """A tar that `build` fills."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", **options) as tar:  # type: ignore[call-overload]
        build(tar)
    return data.getvalue()


def put(tar: tarfile.TarFile, name: str, text: str = "evil", **fields: object) -> None:
    """Adds a file whose header has these fields."""
    entry = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(entry, key, value)
    if entry.isreg():
        entry.size = len(text)
    tar.addfile(entry, io.BytesIO(text.encode()))


def link(tar: tarfile.TarFile, name: str, target: str, kind: bytes = tarfile.SYMTYPE, mode: int = 0o777) -> None:
    """Adds a symbolic or hard link."""
    put(tar, name, type=kind, linkname=target, mode=mode)


UP = "../" * 30


def escapes(outside: Path) -> dict[str, bytes]:
    """Every way out of a tar that was ever used."""
    there = str(outside).lstrip("/")

    def many(*steps: Callable[[tarfile.TarFile], None]) -> bytes:
        return made(lambda tar: [step(tar) for step in steps] and None)  # type: ignore[func-returns-value]

    return {
        "dots": many(lambda t: put(t, f"{UP}{there}/made")),
        "dots in the middle": many(lambda t: put(t, f"a/b/{UP}{there}/made")),
        "absolute": many(lambda t: put(t, f"/{there}/made")),
        "symlink, then through it": many(lambda t: link(t, "out", f"/{there}"), lambda t: put(t, "out/made")),
        "symlink up, then through it": many(lambda t: link(t, "out", UP + there), lambda t: put(t, "out/made")),
        "two symlinks": many(
            lambda t: link(t, "a", "/"), lambda t: link(t, "b", f"a/{there}"), lambda t: put(t, "b/made")
        ),
        "symlink replaced by a file": many(lambda t: link(t, "f", f"/{there}/victim"), lambda t: put(t, "f")),
        "hard link to the host": many(
            lambda t: link(t, "h", f"/{there}/victim", tarfile.LNKTYPE), lambda t: put(t, "h")
        ),
        "hard link up": many(lambda t: link(t, "h", f"{UP}{there}/victim", tarfile.LNKTYPE, 0o777)),
        "hard link through a symlink": many(
            lambda t: link(t, "out", f"/{there}"), lambda t: link(t, "h", "out/victim", tarfile.LNKTYPE, 0o666)
        ),
        "chmod by a link (CVE-2021-32760)": many(
            lambda t: link(t, "f", f"/{there}/victim"), lambda t: link(t, "f2", "f", tarfile.LNKTYPE, 0o777)
        ),
        "directory over a symlink": many(
            lambda t: link(t, "d", f"/{there}"),
            lambda t: put(t, "d", type=tarfile.DIRTYPE, mode=0o777),
            lambda t: put(t, "d/made"),
        ),
        "whiteout of the host": many(lambda t: link(t, "out", f"/{there}"), lambda t: put(t, "out/.wh.victim", "")),
        "whiteout with dots": many(lambda t: put(t, ".wh...", ""), lambda t: put(t, "a/.wh...", "")),
        "opaque through a link": many(lambda t: link(t, "out", f"/{there}"), lambda t: put(t, "out/.wh..wh..opq", "")),
        "PAX path": many(lambda t: put(t, "fine", pax_headers={"path": f"{UP}{there}/made"})),
        "PAX link": many(
            lambda t: put(t, "fine", type=tarfile.SYMTYPE, linkname="x", pax_headers={"linkpath": f"/{there}"}),
            lambda t: put(t, "fine/made"),
        ),
        "GNU long name": made(lambda t: put(t, f"{UP}{there}/" + "./" * 100 + "made"), format=tarfile.GNU_FORMAT),
    }


@pytest.mark.parametrize("name", sorted(escapes(Path("/x"))))
def test_cve_2014_6407_nothing_is_written_outside(tare: Engine, tared: Tared, outside: Path, name: str) -> None:
    """CVE-2014-6407, CVE-2014-9356, CVE-2021-32760: refused or kept inside; the host's folder is as before."""
    reference, before = tare.unique("image"), set(found(tared.data_root, "-name", "made"))
    tare.docker("import", "-", reference, input=escapes(outside)[name], check=False)
    stray = [path for path in set(found(tared.data_root, "-name", "made")) - before if path.read_text() != "evil"]
    assert not stray
    assert tare.api.request("GET", "/_ping").status == 200


def store_size(tared: Tared) -> int:
    """How much the data root takes on disk."""
    total = 0
    for folder, _, files in os.walk(tared.data_root):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def names_in_store(tared: Tared) -> set[str]:
    """Every folder of the data root but those that a database or log may make."""
    found = set()
    for folder, folders, _ in os.walk(tared.data_root):
        if folder.count("/") - str(tared.data_root).count("/") < 3:
            found |= {os.path.join(folder, name) for name in folders}
    return found


@pytest.mark.parametrize(
    "case", ["truncated", "truncated gzip", "bad checksum", "no tar", "broken gzip", "negative size"]
)
def test_broken_tars_are_refused(tare: Engine, tared: Tared, case: str) -> None:
    """A tar that is cut short or broken is an error, and no image, layer or folder of it stays."""
    whole = made(lambda tar: put(tar, "file", "x" * 200_000))
    broken = {
        "truncated": whole[:100_000],
        "truncated gzip": gzip.compress(os.urandom(100_000) + whole)[:90_000],
        "bad checksum": whole[:148] + b"7777777\0" + whole[156:],
        "no tar": os.urandom(20_000),
        "broken gzip": gzip.compress(whole)[:50] + os.urandom(3000),
        "negative size": whole[:124] + b"\xff" * 12 + whole[136:],
    }[case]
    before = names_in_store(tared)
    reference = tare.unique("image")
    result = tare.docker("import", "-", reference, input=broken, check=False)
    assert result.code == 1 and result.err.strip(), result
    assert tare.docker("image", "inspect", reference, check=False).code == 1
    wait_until(lambda: names_in_store(tared) <= before, "nothing of it is in the store")


def test_import_that_is_cut_off_leaves_nothing(tare: Engine, tared: Tared) -> None:
    """A client that dies in the middle of an import leaves no image and no folder."""
    before = names_in_store(tared)
    client = tare.popen("import", "-", tare.unique("image"))
    assert client.stdin is not None
    client.stdin.write(made(lambda tar: put(tar, "file", "x" * 3_000_000))[:2_000_000])
    client.stdin.flush()
    client.kill()
    client.communicate()
    wait_until(lambda: names_in_store(tared) <= before, "nothing of it is in the store")


def nodes(tar: tarfile.TarFile) -> None:
    """A memory device, a disk and a pipe."""
    put(tar, "mem", type=tarfile.CHRTYPE, devmajor=1, devminor=1, mode=0o666)
    put(tar, "disk", type=tarfile.BLKTYPE, devmajor=254, devminor=0, mode=0o666)
    put(tar, "pipe", type=tarfile.FIFOTYPE)


def test_devices_and_pipes_come_through_harmless(tare: Engine) -> None:
    """Device entries become nodes (that no container can open) or are refused; pipes don't hang the import."""
    reference = tare.unique("image")
    result = tare.docker("import", "-", reference, input=made(nodes), check=False)
    if result.code == 0:
        container = tare.docker("create", reference, "x").out.strip()
        exported = tare.popen("export", container).communicate(timeout=100)[0]
        with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
            assert tar.getmember("mem").ischr() and tar.getmember("pipe").isfifo()


def zeros(size: int) -> bytes:
    """The header of a tar entry of that size, to be followed by as many zeros."""
    entry = tarfile.TarInfo("zeros")
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


BOMB_BYTES = 100 << 30


def gzip_bomb() -> bytes:
    """100 GiB as gzip members (RFC 1952 lets them follow one another), each of 256 MiB, in some 100 MB."""
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    member = b"".join(engine.compress(b"x" * (1 << 20)) for _ in range(256)) + engine.flush()
    return gzip.compress(zeros(BOMB_BYTES)) + member * (BOMB_BYTES // (256 << 20))


def zstd_bomb() -> bytes:
    """100 GiB as zstd frames."""
    frame = zstandard.ZstdCompressor(level=1).compress(b"x" * (256 << 20))
    return zstandard.ZstdCompressor().compress(zeros(BOMB_BYTES)) + frame * (BOMB_BYTES // (256 << 20))


def sparse_bomb() -> bytes:
    """A GNU sparse entry that claims 10 TiB and holds one byte (old GNU format, type S)."""
    header = bytearray(512)
    header[0:6] = b"sparse"
    header[100:108] = b"0000644\0"
    header[108:116] = header[116:124] = b"0000000\0"
    header[124:136] = b"00000000001\0"
    header[136:148] = b"00000000000\0"
    header[156:157] = b"S"
    header[257:265] = b"ustar  \0"
    real = 10 << 40
    header[386:398] = b"\x80" + (real - 1).to_bytes(11, "big")
    header[398:410] = b"00000000001\0"
    header[483:495] = b"\x80" + real.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + b"x".ljust(512, b"\0") + bytes(1024)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "sparse"])
def test_cve_2017_14992_bombs(tare: Engine, tared: Tared, kind: str) -> None:
    """CVE-2017-14992: a small file that unpacks to 100 GiB, or a sparse one that claims 10 TiB, ends as a clean error
    (or, sparse, takes no room), soon, with little memory and disk."""
    bomb = {"gzip": gzip_bomb, "zstd": zstd_bomb, "sparse": sparse_bomb}[kind]()
    Path(f"/proc/{tared.pid}/clear_refs").write_text("5")  # forget the peak until now (man 5 proc)
    at_first = peak_memory_mib(tared.pid)
    before, used_s = store_size(tared), processor_time_s(tared.pid)
    result = tare.docker("import", "-", tare.unique("image"), input=bomb, check=False, timeout=60)
    took = processor_time_s(tared.pid) - used_s
    assert result.code == 1 or kind == "sparse", "the bomb was unpacked"
    assert took < 45, f"it took {took:.0f} s"
    wait_until(lambda: store_size(tared) < before + (64 << 20), "no room is taken", 20)
    assert peak_memory_mib(tared.pid) < at_first + 150
    assert tare.api.request("GET", "/_ping").status == 200


def processor_time_s(pid: int) -> float:
    """What a process and those that it waited for have used: how long a person waits on a machine of his own."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")


def peak_memory_mib(pid: int) -> int:
    """The largest resident size that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


def test_very_deep_tree(tare: Engine) -> None:
    """A path of 2,000 folders is imported or refused, and what was imported can be removed again."""
    deep = made(lambda tar: put(tar, "/".join(["d"] * 2000) + "/f"))
    reference = tare.unique("image")
    if tare.docker("import", "-", reference, input=deep, check=False).code == 0:
        tare.docker("rmi", reference)
    assert tare.api.request("GET", "/_ping").status == 200


def many_files(tar: tarfile.TarFile) -> None:
    """20,000 empty files."""
    for number in range(20_000):
        put(tar, f"folder{number % 100}/file{number}", "")


def test_very_many_entries(tare: Engine, tared: Tared) -> None:
    """20,000 files are imported within the time that a person waits."""
    used_s = processor_time_s(tared.pid)
    tare.docker("import", "-", tare.unique("image"), input=made(many_files))
    assert processor_time_s(tared.pid) - used_s < 30
