"""Images made to break out: links where directories belong, tricks in /etc/passwd; named for what they repeat.

Real Docker of 2020 falls to some of these, so only ours is asked.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engine import Engine


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host that nobody may touch: its tree must be the same afterwards."""
    target = tmp_path / "trap"
    target.mkdir(mode=0o755)
    (target / "hosts").write_text("untouched\n")
    (target / "deep").mkdir()
    before = tree(target)
    yield target
    assert tree(target) == before, "the host's directory was touched"
    assert str(target) not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape"), (
        "something is mounted on the host's directory"
    )


def tree(path: Path) -> list[tuple[str, int, int, bytes]]:
    """Every name below path with its mode, owner and content."""
    found = []
    for folder, folders, files in os.walk(path):
        for name in [*folders, *files]:
            entry = Path(folder) / name
            status = entry.lstat()
            content = entry.read_bytes() if entry.is_file() else b""
            found.append((str(entry), status.st_mode, status.st_uid, content))
    return sorted(found)


@pytest.fixture(autouse=True)
def images_removed(tare: Engine) -> Iterator[None]:
    """The hostile images go after each test."""
    yield
    tare.clean()
    tare.clean_images()


def relative(path: Path) -> str:
    """A link target that climbs far above any root, then goes down to path."""
    return "../" * 20 + str(path).lstrip("/")


@pytest.mark.parametrize("form", ["absolute", "relative"])
@pytest.mark.parametrize("place", ["dev", "proc", "sys", "etc", "dev/pts", "dev/shm"])
def test_cve_2026_41579_links_where_mounts_go(tare: Engine, trap: Path, place: str, form: str) -> None:
    """CVE-2026-41579, CVE-2023-27561, CVE-2019-19921: a link at a mount's place is refused or stays inside the root."""
    target = str(trap) if form == "absolute" else relative(trap)
    image = tare.hostile_image({place: target} if "/" not in place else {"dev": None, place: target})
    result = tare.docker("run", "--rm", "--hostname", "box", image, "true", check=False)
    if place in ("proc", "sys"):
        assert result.code != 0, "a link at /proc or /sys is accepted"


@pytest.mark.parametrize("file", ["hosts", "hostname", "resolv.conf"])
def test_engine_files_do_not_follow_links(tare: Engine, trap: Path, file: str) -> None:
    """/etc/hosts and its kin as links to a file of the host: the host's file is neither changed nor mounted over."""
    for target in (str(trap / "hosts"), relative(trap / "hosts"), str(trap / "new")):
        image = tare.hostile_image({f"etc/{file}": target})
        tare.docker("run", "--rm", image, "sh", "-c", f"echo x > /etc/{file}", check=False)


def test_ghsa_vp62_mount_destination_is_a_link(tare: Engine, trap: Path) -> None:
    """GHSA-vp62-88p7-qqf5, CVE-2024-45310: a mount's missing destination is made inside the root only."""
    image = tare.hostile_image({"out": str(trap), "up": relative(trap)})
    for place in ("/out/made", "/up/made", "/out/deep/made", "/out"):
        tare.docker("run", "--rm", "--tmpfs", place, image, "true", check=False)


def test_working_directory_through_a_link(tare: Engine, trap: Path) -> None:
    """A working directory below a link out of the root is made inside the root."""
    image = tare.hostile_image({"out": str(trap), "up": relative(trap)})
    for place in ("/out/made", "/up/made/more"):
        tare.docker("run", "--rm", "--workdir", place, image, "touch", "file", check=False)
        container = tare.docker("create", image, "sleep", "100").out.strip()
        tare.docker("start", container, check=False)
        tare.docker("exec", "-w", place, container, "touch", "file", check=False)


@pytest.mark.parametrize("verb", ["run", "exec", "image"])
def test_cve_2024_21626_working_directory_by_descriptor(tare: Engine, verb: str) -> None:
    """CVE-2024-21626: /proc/self/fd/N as working directory never leads to a directory of the host."""
    running = tare.start()
    for number in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 20):
        place = f"/proc/self/fd/{number}"
        look = ["sh", "-c", "ls ../../../../.. ; cat ../../../../../proc/1/cmdline"]
        if verb == "run":
            result = tare.docker("run", "--rm", "-w", place, tare.image, *look, check=False)
        elif verb == "exec":
            result = tare.docker("exec", "-w", place, running, *look, check=False)
        else:
            image = tare.hostile_image({}, [f"WORKDIR {place}", 'CMD ["sh"]'])
            result = tare.docker("run", "--rm", image, *look, check=False)
        assert result.code != 0, (place, result)
        assert "srv" not in result.out and "boot" not in result.out, result.out


def test_cve_2025_31133_dev_null_is_a_link(tare: Engine) -> None:
    """CVE-2025-31133: an image whose /dev/null leads to a procfs file masks with the real device all the same."""
    image = tare.hostile_image({"dev/null": "/proc/sys/kernel/core_pattern"})
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    script = "grep core_pattern /proc/mounts; wc -c < /proc/timer_list; echo evil > /dev/null; stat -c %t:%T /dev/null"
    shown = tare.docker("run", "--rm", image, "sh", "-c", script).out.split()
    assert shown == ["0", "1:3"]
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


def test_cve_2025_52565_pts_and_console(tare: Engine, trap: Path) -> None:
    """CVE-2025-52565: links at /dev/console and /dev/pts/0 aren't followed when a terminal is set up."""
    image = tare.hostile_image(
        {"dev/console": str(trap / "hosts"), "dev/pts": str(trap), "dev/ptmx": str(trap / "hosts")}
    )
    shown = tare.docker("run", "--rm", "-t", image, "sh", "-c", "tty; stat -c %t /dev/console", check=False)
    assert "/dev/pts/0" in shown.out and shown.code == 0


def test_cve_2016_3697_number_that_is_a_name(tare: Engine) -> None:
    """CVE-2016-3697, CVE-2026-46680: a user of digits only is a number, whatever the image's passwd calls so."""
    passwd = b"1000:x:0:0::/:/bin/sh\n99999999999:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n"
    image = tare.hostile_image({"etc/passwd": passwd, "etc/group": b"1000:x:0:\n99999999999:x:0:\n"})
    assert tare.docker("run", "--rm", "--user", "1000", image, "id", "-u").out.strip() == "1000"
    assert tare.docker("run", "--rm", "--user", "1000:1000", image, "id", "-g").out.strip() == "1000"
    assert tare.docker("run", "--rm", "--user", "99999999999", image, "id", "-u", check=False).code != 0
    assert tare.docker("run", "--rm", "--user", "5:99999999999", image, "id", "-u", check=False).code != 0
    container = tare.docker("run", "-d", image, "sleep", "100").out.strip()
    assert tare.docker("exec", "-u", "1000", container, "id", "-u").out.strip() == "1000"
    assert tare.docker("exec", "-u", "99999999999", container, "id", "-u", check=False).code != 0


@pytest.mark.parametrize(
    "user", ["4294967295", "4294967296", "2147483648", "-1", "0x0", "1e3", " 0", "0:4294967296", "root:-1"]
)
def test_cve_2024_40635_user_out_of_range(tare: Engine, user: str) -> None:
    """CVE-2024-40635: an id beyond 2^31-1, a negative one, or a number of another form is refused, never 0."""
    result = tare.docker("run", "--rm", f"--user={user}", tare.image, "id", "-u", check=False)
    assert result.code != 0, result
    container = tare.start()
    assert tare.docker("exec", f"--user={user}", container, "id", "-u", check=False).code != 0


def test_ids_beyond_the_range_in_passwd(tare: Engine) -> None:
    """An image's passwd that maps a name beyond the range, or to no number, doesn't make root of it."""
    passwd = (
        b"big:x:4294967296:0::/:/bin/sh\nneg:x:-1:0::/:/bin/sh\nodd:x::::/:/bin/sh\nshort:x\nroot:x:0:0::/:/bin/sh\n"
    )
    image = tare.hostile_image({"etc/passwd": passwd})
    for user in ("big", "neg", "odd", "short"):
        result = tare.docker("run", "--rm", "--user", user, image, "id", "-u", check=False)
        assert result.code != 0 or result.out.strip() != "0", (user, result)


def test_cve_2022_36109_supplementary_groups(tare: Engine) -> None:
    """CVE-2022-36109, CVE-2023-25173: the primary group is among the supplementary ones, for USER and --user."""
    image = tare.hostile_image({}, ["USER web", 'CMD ["sleep", "1000"]'])
    container = tare.docker("run", "-d", image).out.strip()
    for shown in (
        tare.docker("exec", container, "grep", "Groups", "/proc/self/status").out,
        tare.docker("run", "--rm", image, "grep", "Groups", "/proc/self/status").out,
        tare.docker("run", "--rm", "--user", "web", tare.image, "grep", "Groups", "/proc/self/status").out,
    ):
        assert set(shown.split()[1:]) == {"6", "29", "102"}
    shown = tare.docker("run", "--rm", "--user", "5:7", tare.image, "grep", "Groups", "/proc/self/status").out
    assert shown.split()[1:] == ["7"]


def fifo(name: str) -> tarfile.TarInfo:
    """A named pipe in a tar."""
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.FIFOTYPE
    return entry


def folder(name: str) -> tarfile.TarInfo:
    """A directory in a tar."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


def test_cve_2024_9676_passwd_is_no_file(tare: Engine, tmp_path: Path) -> None:
    """CVE-2024-9676: passwd as a link, a pipe, a directory, a device or 64 MiB: refused at once, no hang."""
    host = tmp_path / "passwd"
    host.write_text("ghost:x:0:0::/:/bin/sh\n")
    for value in (str(host), relative(host), fifo("etc/passwd"), folder("etc/passwd"), "/dev/zero", b"x" * (64 << 20)):
        image = tare.hostile_image({"etc/passwd": value, "etc/group": value if isinstance(value, str) else b""})
        result = tare.docker("run", "--rm", "--user", "ghost", image, "id", check=False, timeout=20)
        assert result.code != 0, (value, result)
        tare.clean_images()


def test_cve_2022_23648_volume_copies_nothing_of_the_host(tare: Engine, tmp_path: Path) -> None:
    """CVE-2022-23648: a VOLUME that climbs or goes through a link is never filled from the host."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("hunter2")
    for place in (f"/../../../../../../..{secret}", "/out", "/up", f"/out/../../../../..{secret}"):
        image = tare.hostile_image({"out": str(secret), "up": relative(secret)}, [f"VOLUME {place}", 'CMD ["sh"]'])
        script = f"cat /key /out/key /up/key {secret}/key {place}/key 2>/dev/null"
        shown = tare.docker("run", "--rm", image, "sh", "-c", script, check=False)
        assert "hunter2" not in shown.out + shown.err
        tare.clean_images()
    assert (secret / "key").read_text() == "hunter2" and os.listdir(secret) == ["key"]


def test_cve_2022_1227_top_runs_nothing_of_the_image(tare: Engine) -> None:
    """CVE-2022-1227, CVE-2019-14271: top, stats and diff never run a program of the image."""
    script = b"#!/bin/busybox sh\necho ran > /ran\n"
    image = tare.hostile_image({"bin/ps": script, "usr/bin/ps": script, "bin/nsenter": script})
    container = tare.docker("run", "-d", image, "sleep", "1000").out.strip()
    tare.docker("top", container)
    tare.docker("stats", "--no-stream", container)
    assert "/ran" not in tare.docker("diff", container).out.split()


def test_program_is_found_inside_only(tare: Engine) -> None:
    """A program that is only on the host isn't found; a link to it leads nowhere."""
    image = tare.hostile_image({"bin/outer": "/usr/bin/python3", "usr/bin/up": relative(Path("/bin/bash"))})
    for name in ("python3", "bash", "outer", "up", "/bin/outer"):
        assert tare.docker("run", "--rm", image, name, "--version", check=False).code in (126, 127)


def test_long_and_odd_arguments(tare: Engine) -> None:
    """Arguments and variables with spaces, quotes, newlines and no text arrive as given; NUL is refused."""
    odd = ["a b", "", "'\"\\", "new\nline", "é🐳", "-x", "$HOME", "*"]
    made = tare.create({"Cmd": ["sh", "-c", 'for a; do echo "[$a]"; done', "x", *odd]}).json["Id"]
    tare.docker("start", made)
    tare.exit_code(made)
    assert tare.logs(made) == "".join(f"[{word}]\n" for word in odd)
    answer = tare.create({"Cmd": ["echo", "a\0b"]})
    assert answer.status == 400 or tare.api.request("POST", f"/containers/{answer.json['Id']}/start").status >= 400
