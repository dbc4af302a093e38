"""Reading json-file logs: in order, from the tail, over rotations, and while they grow."""

from __future__ import annotations

import json
import resource
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tare.engine.log_files import LogReader
from tare.runtime.jsonlog import MAX_ENTRY_BYTES, JsonLog, first_index, rotated_files

PIECES = [
    b"\n",
    b"\r",
    b"a line\n",
    b"\\n",
    b"\\",
    b'"',
    b"x" * 20_000,
    "\u20ac\n".encode(),
    b"\xe2\x82\n",
    b"\xff",
    b"\0",
]
"""What lines are made of: their ends, what JSON escapes, what is too long, what isn't UTF-8."""


def read_all(reader: LogReader) -> list[str]:
    """Everything that the reader has just now."""
    found: list[str] = []
    while entries := reader.read():
        found.extend(entry.log for entry in entries)
    return found


def write_lines(log: JsonLog, first: int, last: int) -> None:
    """Numbered lines."""
    for number in range(first, last + 1):
        log.write("stdout", b"line %d\n" % number)


@pytest.mark.parametrize("count", [0, 1, 5, 99, 100, 1000])
def test_tail_gives_the_last_lines(tmp_path: Path, count: int) -> None:
    """tail N gives N lines, or all there are."""
    path = str(tmp_path / "log")
    log = JsonLog(path)
    write_lines(log, 1, 100)
    log.close()
    reader = LogReader(path)
    reader.seek_tail(count)
    expected = [f"line {number}\n" for number in range(max(1, 101 - count), 101)] if count else []
    assert read_all(reader) == expected
    reader.close()


@pytest.mark.parametrize("count", [3, 40, 5000])
def test_tail_spans_rotated_files(tmp_path: Path, count: int) -> None:
    """Lines that were rotated away still count, oldest first."""
    path = str(tmp_path / "log")
    log = JsonLog(path, max_bytes=1500, max_files=4)
    write_lines(log, 1, 120)
    log.close()
    whole = LogReader(path)
    everything = read_all(whole)
    assert everything == [f"line {n}\n" for n in range(121 - len(everything), 121)]
    assert 40 < len(everything) < 120
    assert len(list(tmp_path.iterdir())) == 4
    reader = LogReader(path)
    reader.seek_tail(count)
    assert read_all(reader) == everything[-count:]


def test_reader_goes_on_after_growth_and_rotation(tmp_path: Path) -> None:
    """A follower sees what is written later, in the same file and in the next one."""
    path = str(tmp_path / "log")
    log = JsonLog(path, max_bytes=300, max_files=5)
    reader = LogReader(path)
    write_lines(log, 1, 2)
    assert read_all(reader) == ["line 1\n", "line 2\n"]
    write_lines(log, 3, 6)
    assert read_all(reader) == [f"line {n}\n" for n in range(3, 7)]


def test_partial_lines_wait_for_their_end(tmp_path: Path) -> None:
    """A line is one entry however it was written; what never ends is written at the end."""
    path = str(tmp_path / "log")
    log = JsonLog(path)
    log.write("stdout", b"hel")
    log.write("stderr", b"oops\n")
    log.write("stdout", b"lo\nrest")
    log.close()
    assert read_all(LogReader(path)) == ["oops\n", "hello\n", "rest"]


def test_long_lines_are_cut(tmp_path: Path) -> None:
    """No entry holds more than 16 KiB of output, and nothing is lost."""
    path = str(tmp_path / "log")
    log = JsonLog(path)
    line = b"x" * (3 * MAX_ENTRY_BYTES + 7)
    log.write("stdout", line + b"\n")
    log.close()
    entries = read_all(LogReader(path))
    assert "".join(entries) == line.decode() + "\n"
    assert max(map(len, entries)) <= MAX_ENTRY_BYTES


def test_foreign_bytes_and_broken_lines_do_no_harm(tmp_path: Path) -> None:
    """Output that isn't UTF-8 becomes replacement characters; a torn line in the file is skipped."""
    path = tmp_path / "log"
    log = JsonLog(str(path))
    log.write("stdout", b"\xff\xfe\r\n")
    log.close()
    with path.open("ab") as file:
        file.write(b'{"log":"torn\n')
    log = JsonLog(str(path))
    log.write("stderr", b"after\n")
    log.close()
    assert read_all(LogReader(str(path))) == ["\ufffd\ufffd\r\n", "after\n"]


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("count", [0, 1, 7, 20, 33, 34, 35, 99, 100, 500])
def test_headers_are_no_entries(tmp_path: Path, count: int, compress: bool) -> None:
    """The first line of a shipped log's files is neither shown nor counted by a tail, over rotated files too."""
    path = str(tmp_path / "log")
    log = JsonLog(path, 2500, 10, compress=compress, counted=True)
    write_lines(log, 1, 100)
    log.close()
    assert (tmp_path / "log.2").exists() or (tmp_path / "log.2.gz").exists()
    reader = LogReader(path)
    reader.seek_tail(count)
    assert read_all(reader) == ([f"line {number}\n" for number in range(max(1, 101 - count), 101)] if count else [])
    reader.close()


def test_a_missing_number_hides_nothing(tmp_path: Path) -> None:
    """A monitor that died while it renamed leaves a gap in the numbers: the older files are read all the same."""
    path = str(tmp_path / "log")
    log = JsonLog(path, 1500, 10)
    write_lines(log, 1, 100)
    log.close()
    (tmp_path / "log.2").unlink()
    reader = LogReader(path)
    found = read_all(reader)
    assert found[0] == "line 1\n" and found[-1] == "line 100\n" and 60 < len(found) < 100
    reader.close()


@settings(deadline=None, max_examples=60)
@given(
    numbers=st.lists(st.lists(st.integers(0, len(PIECES) - 1), max_size=12), max_size=6),
    max_bytes=st.sampled_from([0, 200, 1000, 50_000]),
)
def test_entries_are_lines_however_they_came(numbers: list[list[int]], max_bytes: int) -> None:
    """Every line is an entry of its own, in order; a file that is larger than its bound has one only."""
    chunks = [b"".join(PIECES[number] for number in chunk) for chunk in numbers]
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/log"
        log = JsonLog(path, max_bytes, 1000, b'{"a":"b"}')
        for chunk in chunks:
            log.write("stdout", chunk)
        log.close()
        files = [Path(name) for name in (*rotated_files(path), path)]
        entries = [[json.loads(line) for line in file.read_bytes().splitlines()] for file in files]
        for file, inside in zip(files, entries, strict=True):
            assert not max_bytes or file.stat().st_size <= max_bytes or len(inside) == 1
    flat = [entry for inside in entries for entry in inside]
    assert "".join(e["log"] for e in flat) == b"".join(chunks).decode("utf-8", "replace")
    assert all(e["log"].find("\n") in (-1, len(e["log"]) - 1) and len(e["log"]) <= MAX_ENTRY_BYTES for e in flat)
    assert all(e["stream"] == "stdout" and e["attrs"] == {"a": "b"} for e in flat)


def test_what_a_full_disk_tore_is_taken_back(tmp_path: Path) -> None:
    """An entry that didn't fit leaves no half of itself, at whose end the next one would be lost, too."""
    path = tmp_path / "log"
    log = JsonLog(str(path))
    log.write("stdout", b"before\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = 3 * path.stat().st_size + 20
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # like a disk that fills: a part is written, then an error
    try:
        with pytest.raises(OSError, match="too large"):
            log.write("stdout", b"lost..\n" * 9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write("stdout", b"after\n")
    log.close()
    assert read_all(LogReader(str(path))) == ["before\n", "lost..\n", "lost..\n", "after\n"]


def test_a_failed_rotation_writes_nowhere_else(tmp_path: Path) -> None:
    """Where a file can't be renamed, entries are lost until it can, and no other file of the process gets them."""
    path = tmp_path / "log"
    (tmp_path / "log.1").mkdir()
    log = JsonLog(str(path), max_bytes=100, max_files=2)
    log.write("stdout", b"one\n")
    with pytest.raises(OSError, match="directory"):
        log.write("stdout", b"two\n")
    with (tmp_path / "another").open("wb"), pytest.raises(OSError, match="directory"):
        log.write("stdout", b"three\n")
    assert (tmp_path / "another").read_bytes() == b""
    (tmp_path / "log.1").rmdir()
    log.write("stdout", b"four\n")
    log.close()
    assert read_all(LogReader(str(path))) == ["one\n", "four\n"]


def test_no_entry_comes_before_a_header(tmp_path: Path) -> None:
    """Where a full disk has no room for a new file's header, no entry is written: all after it were miscounted."""
    path = tmp_path / "log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = JsonLog(str(path), max_bytes=200, max_files=2, counted=True)
    log.write("stdout", b"one\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            log.write("stdout", b"x" * 200 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write("stdout", b"two\n")
    log.close()
    assert read_all(LogReader(str(path))) == ["one\n", "two\n"]
    assert first_index(str(path)) == 1


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_a_follower_misses_no_rotation(tmp_path: Path, compress: bool) -> None:
    """Whose log rotated more than once while it looked away reads what the older files have, too."""
    path = str(tmp_path / "log")
    log = JsonLog(path, max_bytes=300, max_files=50, compress=compress)
    write_lines(log, 1, 2)
    reader = LogReader(path)
    assert read_all(reader) == ["line 1\n", "line 2\n"]
    write_lines(log, 3, 40)
    assert read_all(reader) == [f"line {number}\n" for number in range(3, 41)]
    write_lines(log, 41, 42)
    assert read_all(reader) == ["line 41\n", "line 42\n"]
    reader.close()
    log.close()


def test_a_reader_of_a_log_that_rotates_all_the_time(tmp_path: Path) -> None:
    """Files that move on while they are read: each line is read once."""
    path = str(tmp_path / "log")
    log = JsonLog(path, max_bytes=1000, max_files=2000)
    reader, found = LogReader(path), []
    writer = threading.Thread(target=write_lines, args=(log, 1, 700))
    writer.start()
    while writer.is_alive():
        found += read_all(reader)
    writer.join()
    found += read_all(reader)
    assert found == [f"line {number}\n" for number in range(1, 701)]
    reader.close()
    log.close()
