"""The tar reader and writer against independent peers: Python's tarfile and GNU tar, on random entries."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tare import errors
from tare.storage import tar_format as fmt
from tare.storage.limits import DEFAULT_LIMITS
from tare.storage.tar_format import Entry
from tare.storage.tar_reader import TarReader
from tare.storage.tar_writer import END, format_entry, padding

_COMPONENT = st.binary(min_size=1, max_size=120).map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"0"))
_PATH = (
    st.lists(_COMPONENT, min_size=1, max_size=5)
    .map(b"/".join)
    .filter(lambda path: not any(part in (b".", b"..") for part in path.split(b"/")))
)
_ID = st.one_of(st.integers(0, 0o7777777), st.integers(0, 0xFFFFFFFE))
_TIME = st.one_of(
    st.integers(0, 8_000_000_000).map(lambda s: s * 10**9), st.integers(-(10**18), 8 * 10**18), st.just(999_999_999)
)
_XATTRS = st.dictionaries(
    st.text("abcxyz._", min_size=1, max_size=20).map(lambda s: b"user." + s.encode()),
    st.binary(max_size=100),
    max_size=3,
)


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, bytes]:
    kind = draw(st.sampled_from([fmt.REGULAR, fmt.SYMLINK, fmt.HARD_LINK, fmt.DIRECTORY, fmt.CHAR, fmt.FIFO]))
    data = draw(st.binary(max_size=1500)) if kind == fmt.REGULAR else b""
    device = kind == fmt.CHAR
    path = draw(_PATH)
    entry = Entry(
        name=path + b"/" if kind == fmt.DIRECTORY else path,
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(_ID),
        gid=draw(_ID),
        size=len(data),
        packed_bytes=len(data),
        mtime_ns=draw(_TIME),
        linkname=draw(_PATH) if kind in (fmt.SYMLINK, fmt.HARD_LINK) else b"",
        major=draw(st.integers(0, 4095)) if device else 0,
        minor=draw(st.integers(0, 0xFFFFF)) if device else 0,
        xattrs=draw(_XATTRS),
    )
    return entry, data


def write(members: list[tuple[Entry, bytes]]) -> bytes:
    return b"".join(format_entry(entry) + data + padding(len(data)) for entry, data in members) + END


def read(archive: bytes, step: int = 1 << 16) -> Iterator[tuple[Entry, bytes]]:
    reader = TarReader((archive[at : at + step] for at in range(0, len(archive), step)), DEFAULT_LIMITS)
    while entry := reader.next_entry():
        yield entry, b"".join(bytes(piece) for piece in reader.payload())
    reader.finish()


@settings(max_examples=150, deadline=None)
@given(st.lists(entries(), max_size=4), st.sampled_from([1, 7, 511, 512, 513, 100_000]))
def test_reader_understands_writer(members: list[tuple[Entry, bytes]], step: int) -> None:
    """What the writer writes, the reader reads back equal, in whatever pieces it comes."""
    assert list(read(write(members), step)) == members


@settings(max_examples=150, deadline=None)
@given(st.lists(entries(), max_size=4))
def test_tarfile_understands_writer(members: list[tuple[Entry, bytes]]) -> None:
    """Python's tarfile reads the same names, kinds, owners, times and bytes."""
    with tarfile.open(fileobj=io.BytesIO(write(members)), encoding="utf-8", errors="surrogateescape") as archive:
        found = list(archive)
        for (entry, data), info in zip(members, found, strict=True):
            assert info.name.encode("utf-8", "surrogateescape") == entry.name.rstrip(b"/")
            assert info.type == entry.kind
            assert (info.mode, info.uid, info.gid) == (entry.mode, entry.uid, entry.gid)
            assert info.linkname.encode("utf-8", "surrogateescape") == entry.linkname
            assert abs(float(info.mtime) - entry.mtime_ns / 1e9) < 1e-5 * max(1.0, abs(entry.mtime_ns / 1e9) / 1e6)
            if entry.kind == fmt.REGULAR:
                extracted = archive.extractfile(info)
                assert extracted is not None and extracted.read() == data


@settings(max_examples=100, deadline=None)
@given(st.lists(entries(), max_size=4), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_reader_understands_tarfile(members: list[tuple[Entry, bytes]], form: int) -> None:
    """The reader reads what Python's tarfile writes, in PAX and in GNU format."""
    out = io.BytesIO()
    written = []
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for entry, data in members:
            if entry.mtime_ns < 0:
                continue
            info = tarfile.TarInfo(entry.name.rstrip(b"/").decode("utf-8", "surrogateescape"))
            info.type, info.mode, info.uid, info.gid = entry.kind, entry.mode, entry.uid, entry.gid
            info.linkname = entry.linkname.decode("utf-8", "surrogateescape")
            info.devmajor, info.devminor = entry.major, entry.minor
            info.mtime = entry.mtime_ns // 10**9
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            written.append((entry, data))
    for (entry, data), (found, content) in zip(written, read(out.getvalue()), strict=True):
        assert found.name.rstrip(b"/") == entry.name.rstrip(b"/")
        assert (found.kind, found.mode, found.uid, found.gid) == (entry.kind, entry.mode, entry.uid, entry.gid)
        assert (found.linkname, found.major, found.minor) == (entry.linkname, entry.major, entry.minor)
        assert found.mtime_ns == entry.mtime_ns // 10**9 * 10**9
        assert content == data


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(entries(), min_size=3, max_size=8, unique_by=lambda member: member[0].name))
def test_gnu_tar_understands_writer(members: list[tuple[Entry, bytes]]) -> None:
    """GNU tar lists every name the writer wrote, byte for byte, and complains of nothing."""
    listed = subprocess.run(
        ["tar", "--null", "--quoting-style=literal", "--show-stored-names", "-tf", "-"],
        input=write(members), capture_output=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert listed.returncode == 0 and listed.stderr == b""
    assert listed.stdout == b"".join(entry.name + b"\n" for entry, _ in members)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=5))
def test_any_bytes_end_in_an_error_or_an_archive(noise: bytes, damage: list[tuple[int, int]]) -> None:
    """Random bytes, and archives with random damage, never raise anything but InvalidArgument."""
    archive = bytearray(write([(Entry(name=b"d/" + b"n" * 150, kind=fmt.REGULAR, size=5, packed_bytes=5), b"hello")]))
    for position, value in damage:
        archive[position % len(archive)] = value
    for data in (noise, bytes(archive), bytes(archive) + noise):
        try:
            list(read(data))
        except errors.InvalidArgument:
            pass


def test_global_headers_apply_until_overridden() -> None:
    """A PAX global header speaks for all entries that don't speak themselves."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "77", "gid": "88"}
    ) as archive:
        archive.addfile(tarfile.TarInfo("a"))
        own = tarfile.TarInfo("b")
        own.pax_headers = {"uid": "5"}
        archive.addfile(own)
    assert [(entry.uid, entry.gid) for entry, _ in read(out.getvalue())] == [(77, 88), (5, 88)]


@pytest.mark.parametrize(
    "field,value",
    [
        (b"0000644\0", 0o644), (b" 644 \0\0\0", 0o644), (b"\0" * 8, 0), (b"        ", 0), (b"00006440", 0o6440),
        (b"\x80\0\0\0\0\0\x01\0", 256), (b"\xff" * 8, -1), (b"\xff\xff\xff\xff\xff\xff\xff\0", -256),
    ],
)  # fmt: skip
def test_numbers(field: bytes, value: int) -> None:
    """Octal with any padding, and GNU's base-256 with sign."""
    assert fmt.parse_number(field) == value


def test_signed_checksums_are_accepted() -> None:
    """Old tars summed signed bytes."""
    header = bytearray(format_entry(Entry(name=b"\xe9", kind=fmt.REGULAR)))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % (sum(header) - 256)
    assert [entry.name for entry, _ in read(bytes(header) + END)] == [b"\xe9"]
