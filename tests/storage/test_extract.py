"""Foreign archives: hostile ones are refused without a trace, good ones come out as GNU tar would have them."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import hostile_archives as hostile
import pytest
import zstandard
from engine_store import Store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tare import errors
from tare.storage.limits import Limits
from tare.storage.tree_writer import OPAQUE_XATTR


@pytest.mark.parametrize("name", sorted(hostile.REFUSED))
def test_hostile_archive_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    """It is an InvalidArgument that says what is wrong; nothing is written outside, nothing is left."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    make, text = hostile.REFUSED[name]
    with pytest.raises(errors.InvalidArgument) as caught:
        store.layers.add(io.BytesIO(make(str(outside))))
    assert text in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert [entry.name for entry in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "secret"
    assert store.leftovers() == []
    assert store.layers.all() == []
    assert list((store.root / "storage/layers").iterdir()) == []


def test_no_descriptor_or_thread_is_left(store: Store) -> None:
    """Neither success nor failure leaks a descriptor."""
    good = hostile.build(hostile.directory("d"), hostile.file("d/f"))
    store.layers.add(io.BytesIO(good))
    before = sorted(os.listdir("/proc/self/fd"))
    for make, _ in hostile.REFUSED.values():
        with pytest.raises(errors.InvalidArgument):
            store.layers.add(io.BytesIO(make("/nonexistent")))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_names_stay_inside(store: Store) -> None:
    """Absolute names lose their slash; `.` and inner `..` are taken lexically."""
    layer = store.layers.add(
        io.BytesIO(
            hostile.build(
                hostile.file("/etc/a"), hostile.file("./b/./c"), hostile.file("b/x/../d"), hostile.file("//e")
            )
        )
    )
    assert _tree(store.layers.path(layer.diff_id)) == ["b", "b/c", "b/d", "e", "etc", "etc/a"]


def test_links_may_point_anywhere(store: Store) -> None:
    """A symbolic link's text is kept as it is: only following it would be wrong."""
    layer = store.layers.add(
        io.BytesIO(hostile.build(hostile.symlink("a", "/etc/passwd"), hostile.symlink("b", "../../../x")))
    )
    tree = store.layers.path(layer.diff_id)
    assert os.readlink(tree / "a") == "/etc/passwd"
    assert os.readlink(tree / "b") == "../../../x"


def test_later_entries_win(store: Store) -> None:
    """An entry replaces what an earlier one made: file by file, link by directory, directory by file."""
    data = hostile.build(
        hostile.file("f", b"one"),
        hostile.file("f", b"second"),
        hostile.symlink("l", "/etc"),
        hostile.directory("l"),
        hostile.file("l/x", b"inside"),
        hostile.directory("d"),
        hostile.file("d/x", b"gone"),
        hostile.hard_link("h", "d/x"),
        hostile.file("d", b"now a file"),
    )
    layer = store.layers.add(io.BytesIO(data))
    tree = store.layers.path(layer.diff_id)
    assert (tree / "f").read_bytes() == b"second"
    assert (tree / "l/x").read_bytes() == b"inside"
    assert not (tree / "l").is_symlink()
    assert (tree / "d").read_bytes() == b"now a file"
    assert (tree / "h").read_bytes() == b"gone"
    assert b"".join(store.layers.reassemble(layer.diff_id)) == data


def test_replacing_a_hard_link_spares_its_twin(store: Store) -> None:
    """A name that is replaced gets a new file; the other name of the old one keeps its bytes."""
    layer = store.layers.add(
        io.BytesIO(hostile.build(hostile.file("a", b"old"), hostile.hard_link("b", "a"), hostile.file("b", b"new")))
    )
    tree = store.layers.path(layer.diff_id)
    assert ((tree / "a").read_bytes(), (tree / "b").read_bytes()) == (b"old", b"new")


def test_whiteouts_become_overlay_marks(store: Store) -> None:
    """`.wh.x` is a device 0:0 named x, `.wh..wh..opq` the directory's opaque attribute, AUFS' own files nothing."""
    data = hostile.build(
        hostile.directory("d"),
        hostile.file("d/.wh.gone", b""),
        hostile.file(".wh.top", b""),
        hostile.directory("o"),
        hostile.file("o/.wh..wh..opq", b""),
        hostile.file("o/kept", b"x"),
        hostile.file(".wh..wh.plnk", b""),
        hostile.file("d/after", b"x"),
        hostile.file("d/.wh.after", b""),
    )
    layer = store.layers.add(io.BytesIO(data))
    tree = store.layers.path(layer.diff_id)
    for name in ("d/gone", "top", "d/after"):
        status = (tree / name).lstat()
        assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    assert os.getxattr(tree / "o", OPAQUE_XATTR) == b"y"
    assert _tree(tree) == ["d", "d/after", "d/gone", "o", "o/kept", "top"]
    assert b"".join(store.layers.reassemble(layer.diff_id)) == data


def test_engine_attributes_of_archives_are_ignored(store: Store) -> None:
    """trusted.overlay.* steers overlayfs; an archive may not set it. Others are kept."""
    info = hostile.entry("f")
    info.pax_headers = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.mine": "kept",
    }
    layer = store.layers.add(io.BytesIO(hostile.build(info)))
    assert os.listxattr(store.layers.path(layer.diff_id) / "f") == ["user.mine"]


def test_devices_and_modes(store: Store) -> None:
    """Device nodes, fifos, setuid and sticky bits, owners and nanosecond times come out as the archive says."""
    pipe = hostile.entry("pipe", tarfile.FIFOTYPE, mode=0o640)
    setuid = hostile.entry("su", mode=0o4755)
    setuid.uid, setuid.gid, setuid.mtime = 1000, 1001, 1.5
    sticky = hostile.entry("tmp", tarfile.DIRTYPE, mode=0o1777)
    sticky.mtime = 123456789
    layer = store.layers.add(
        io.BytesIO(
            hostile.build(hostile.device("null", tarfile.CHRTYPE, 1, 3), pipe, setuid, sticky, hostile.file("tmp/x"))
        )
    )
    tree = store.layers.path(layer.diff_id)
    null = (tree / "null").lstat()
    assert stat.S_ISCHR(null.st_mode) and (os.major(null.st_rdev), os.minor(null.st_rdev)) == (1, 3)
    assert stat.S_ISFIFO((tree / "pipe").lstat().st_mode)
    status = (tree / "su").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o4755, 1000, 1001)
    assert status.st_mtime_ns == 1_500_000_000
    assert stat.S_IMODE((tree / "tmp").stat().st_mode) == 0o1777
    assert (tree / "tmp").stat().st_mtime == 123456789


def test_gzip_bomb_is_refused(store: Store) -> None:
    """What a small gzip unfolds is refused by the ratio, before the disk fills."""
    limits = Limits(ratio_free_bytes=1 << 20)
    data = gzip.compress(hostile.build(hostile.file("bomb", b"x" * (32 << 20))))
    with pytest.raises(errors.TooLarge, match="decompression bomb"):
        store.layers.add(io.BytesIO(data), limits)
    assert store.leftovers() == []


def test_zeros_of_a_sparse_file_are_no_bomb(store: Store) -> None:
    """skopeo and others write holes as zeros: as many as sparse files may have come in, and are holes again."""
    data = gzip.compress(hostile.build(hostile.file("zeros", bytes(32 << 20))))
    for holes_bytes in (16 << 20, 24 << 20):
        with pytest.raises(errors.TooLarge, match="decompression bomb"):
            store.layers.add(io.BytesIO(data), Limits(ratio_free_bytes=1 << 20, holes_bytes=holes_bytes))
    layer = store.layers.add(io.BytesIO(data), Limits(ratio_free_bytes=1 << 20, holes_bytes=32 << 20))
    status = (store.layers.path(layer.diff_id) / "zeros").stat()
    assert status.st_size == 32 << 20 and status.st_blocks < 16
    assert store.leftovers() == []


def test_sparse_bomb_is_refused_by_default(store: Store, tmp_path: Path) -> None:
    """A GNU sparse file of 10 GB that brings no data is refused; one of 5 GB is not, and takes no space."""
    for size, refused in ((10 << 30, True), (5 << 30, False)):
        path = tmp_path / "sparse"
        with path.open("wb") as file:
            file.truncate(size)
        archive = subprocess.run(["tar", "-C", str(tmp_path), "-Scf", "-", "sparse"], check=True, capture_output=True)
        if refused:
            with pytest.raises(errors.TooLarge, match="sparse"):
                store.layers.add(io.BytesIO(archive.stdout))
        else:
            layer = store.layers.add(io.BytesIO(archive.stdout))
            status = (store.layers.path(layer.diff_id) / "sparse").stat()
            assert status.st_size == size and status.st_blocks < 16
    assert store.leftovers() == []


def test_a_full_disk_is_said(store: Store) -> None:
    """What can't fit is ResourceExhausted at the header, not when the disk is full."""
    with pytest.raises(errors.ResourceExhausted, match="no space left"):
        store.layers.add(io.BytesIO(hostile.build(hostile.file("f", bytes(17 << 20)))), Limits(reserve_bytes=1 << 60))
    assert store.leftovers() == []


def test_entry_count_is_capped(store: Store) -> None:
    with pytest.raises(errors.TooLarge, match="more than 2 entries"):
        store.layers.add(io.BytesIO(hostile.build(*[hostile.file(str(n)) for n in range(3)])), Limits(entries=2))


@pytest.mark.parametrize("compression", ["none", "gzip", "bzip2", "xz", "zstd", "gzip members", "zstd frames"])
def test_compression_is_told_by_content(store: Store, compression: str) -> None:
    """The same tar in any compression is the same layer."""
    plain = hostile.build(hostile.file("f", os.urandom(300_000)), hostile.file("zeros", bytes(1 << 20)))
    half = len(plain) // 2
    packed = {
        "none": lambda: plain,
        "gzip": lambda: gzip.compress(plain),
        "bzip2": lambda: bz2.compress(plain),
        "xz": lambda: lzma.compress(plain),
        "zstd": lambda: zstandard.compress(plain),
        "gzip members": lambda: gzip.compress(plain[:half]) + gzip.compress(plain[half:]) + bytes(1024),
        "zstd frames": lambda: zstandard.compress(plain[:half]) + zstandard.compress(plain[half:]),
    }[compression]()
    layer = store.layers.add(io.BytesIO(packed))
    assert layer.diff_id == "sha256:" + hashlib.sha256(plain).hexdigest()
    assert b"".join(store.layers.reassemble(layer.diff_id)) == plain


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_truncated_or_damaged_compression_is_refused(store: Store, compression: str) -> None:
    plain = hostile.build(hostile.file("f", os.urandom(300_000)))
    compress = {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    }
    packed = compress[compression](plain)
    with pytest.raises(errors.InvalidArgument, match="unexpected EOF"):
        store.layers.add(io.BytesIO(packed[: len(packed) // 2]))
    damaged = packed[:2000] + bytes(40) + packed[2040:]
    with pytest.raises(errors.InvalidArgument):
        store.layers.add(io.BytesIO(damaged))
    assert store.leftovers() == []


def test_a_slow_pipe_is_enough(store: Store) -> None:
    """The source may be a pipe that brings a few bytes at a time."""
    plain = hostile.build(hostile.file("f", b"x" * 10_000))

    class Trickle:
        def __init__(self) -> None:
            self.position = 0

        def read(self, size: int = -1) -> bytes:
            piece = plain[self.position : self.position + 7]
            self.position += len(piece)
            return piece

    layer = store.layers.add(Trickle())
    assert layer.diff_id == "sha256:" + hashlib.sha256(plain).hexdigest()


def test_empty_input_is_an_empty_layer(store: Store) -> None:
    """As Docker has it: nothing at all is an archive without entries."""
    layer = store.layers.add(io.BytesIO(b""))
    assert layer.diff_id == "sha256:" + hashlib.sha256(b"").hexdigest()
    assert _tree(store.layers.path(layer.diff_id)) == []


FORMS = ["gnu", "oldgnu", "pax", "ustar", "v7", *(f"pax --sparse-version={n}" for n in ("0.0", "0.1", "1.0"))]


@pytest.mark.parametrize("form", FORMS)
def test_what_gnu_tar_writes(store: Store, tmp_path: Path, form: str) -> None:
    """Every format of GNU tar comes out as GNU tar itself unpacks it, and is reassembled bit for bit."""
    source = tmp_path / "source"
    source.mkdir()
    _fill(source, long_names=form not in ("ustar", "v7"), odd=form != "v7")
    kind, *options = form.split()
    archive = tmp_path / "a.tar"
    subprocess.run(
        ["tar", "-C", str(source), f"--format={kind}", *options, *(["-S"] if kind not in ("ustar", "v7") else []),
         *(["--xattrs", "--xattrs-include=*"] if kind == "pax" else []), "-cf", str(archive), "."],
        check=True,
    )  # fmt: skip
    with archive.open("rb") as file:
        layer = store.layers.add(file)
    peer = tmp_path / "peer"
    peer.mkdir()
    subprocess.run(["tar", "-C", str(peer), "--xattrs", "--xattrs-include=*", "-xpf", str(archive)], check=True)
    assert _describe(store.layers.path(layer.diff_id)) == _describe(peer)
    digest = hashlib.sha256()
    for chunk in store.layers.reassemble(layer.diff_id):
        digest.update(chunk)
    assert (
        "sha256:" + digest.hexdigest() == layer.diff_id == "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest()
    )


def test_absurd_times_are_cut(store: Store) -> None:
    """A time that no file system keeps is no error, as it is none for Docker."""
    for field in (b"\x80" + b"\x7f" * 11, b"\xff" + b"\x00" * 11):
        store.layers.add(io.BytesIO(hostile.patched(hostile.build(hostile.file("f")), 136, field)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 511), st.binary(min_size=1, max_size=12)), max_size=4))
def test_damaged_headers_end_in_a_layer_or_an_error(store: Store, damage: list[tuple[int, int, bytes]]) -> None:
    """Whatever a header says (checksums made right again), it is a layer that comes back bit for bit, or TareError."""
    members = (
        hostile.directory("d"),
        hostile.file("d/f", b"x" * 700),
        hostile.symlink("l", "d"),
        hostile.hard_link("h", "d/f"),
        hostile.device("n", tarfile.CHRTYPE, 1, 3),
        hostile.file("d/.wh.gone", b""),
        hostile.file("last", b""),
    )
    blocks = [hostile.build(member)[: 512 if at != 1 else 512 + 1024] for at, member in enumerate(members)]
    for which, offset, field in damage:
        blocks[which] = hostile.patched(blocks[which], offset, field[: 512 - offset])
    data = b"".join(blocks) + bytes(1024)
    try:
        layer = store.layers.add(io.BytesIO(data))
    except errors.TareError:
        return
    finally:
        assert store.leftovers() == []
    assert b"".join(store.layers.reassemble(layer.diff_id)) == data


def _fill(source: Path, *, long_names: bool, odd: bool) -> None:
    (source / "plain").write_bytes(os.urandom(5000))
    (source / "empty").touch()
    (source / "exact").write_bytes(b"x" * 1024)
    (source / "dir/sub").mkdir(parents=True)
    (source / "dir/sub").chmod(0o2750)
    os.link(source / "plain", source / "dir/link")
    (source / "soft").symlink_to("../anywhere/at all")
    if odd:
        os.mkfifo(source / "fifo", 0o600)
        os.mknod(source / "block", stat.S_IFBLK | 0o600, os.makedev(7, 300))
        os.setxattr(source / "plain", "user.note", b"bytes \x01 here")
    (source / os.fsdecode(b"latin-\xe9")).write_bytes(b"not UTF-8")
    (source / "grüße").write_bytes(b"UTF-8")
    if long_names:
        deep = source / ("d" * 120) / ("e" * 120)
        deep.mkdir(parents=True)
        (deep / ("f" * 200)).write_bytes(b"deep")
        (source / "longlink").symlink_to("t" * 300)
        with (source / "sparse").open("wb") as file:
            file.truncate(1 << 20)
            for offset in range(0, 1 << 20, 40 << 10):
                file.seek(offset)
                file.write(os.urandom(4096))
        with (source / "hole").open("wb") as file:
            file.truncate(3 << 20)
    os.utime(source / "plain", ns=(0, 1_234_567_890_123_456_789))
    os.chown(source / "empty", 12345, 54321)


def _describe(root: Path) -> dict[bytes, object]:
    """Everything about every entry, times to the nanosecond, hard links as groups."""
    found: dict[bytes, object] = {}
    first: dict[int, bytes] = {}
    for directory, names, files in os.walk(os.fsencode(root)):
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, os.fsencode(root))
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            found[relative] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns, content, xattrs,
            )  # fmt: skip
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                first.setdefault(status.st_ino, relative)
    return found


def _tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize("missing", [False, True], ids=["zlib-ng", "zlib"])
def test_gzip_without_zlib_ng_is_the_same(store: Store, monkeypatch: pytest.MonkeyPatch, missing: bool) -> None:
    """Several members, padding, a wrong checksum and an early end, with either library."""
    if missing:
        monkeypatch.setitem(sys.modules, "zlib_ng", None)
    plain = hostile.build(*(hostile.file(f"f{number}", os.urandom(5000) * 20) for number in range(20)))
    packed = gzip.compress(plain[:700_000]) + gzip.compress(plain[700_000:]) + bytes(1000)
    layer = store.layers.add(io.BytesIO(packed))
    assert layer.diff_id == "sha256:" + hashlib.sha256(plain).hexdigest()
    wrong = bytearray(gzip.compress(plain))
    wrong[-6] ^= 1
    for data, text in ((bytes(wrong), "incorrect data check"), (bytes(wrong[:-9]), "unexpected EOF")):
        with pytest.raises(errors.InvalidArgument, match=text):
            store.layers.add(io.BytesIO(data))
