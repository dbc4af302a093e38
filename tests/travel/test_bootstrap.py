"""`tare bootstrap`: an image of a distribution's packages, signed, the same one each time.

With packages that are only unpacked, in seconds; TARE_BOOTSTRAP=all makes whole systems, by both programs.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from support.deadline import wait_until
from support.engine import Engine, clean_environment
from tare.cli.bootstrap import default_mirror

BUSYBOX = ("--variant", "extract", "--include", "busybox-static", "--with", "mmdebstrap")


def needs_mirror(program: str) -> None:
    """Skips where packages aren't to be had."""
    if shutil.which(program) is None and not Path(f"/usr/sbin/{program}").exists():
        pytest.skip(f"{program} is not installed")
    try:
        urllib.request.urlopen(f"{default_mirror('debian')}/dists/bookworm/InRelease", timeout=5).close()
    except OSError as error:
        pytest.skip(f"no mirror of Debian's packages answers: {error}")


def image_of(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.docker("image", "inspect", name).out)[0]
    return found


def test_two_runs_give_one_image(near: Engine, tmp_path: Path) -> None:
    """Labels say what it is, and it runs."""
    needs_mirror("mmdebstrap")
    one, two = near.unique("image"), near.unique("image")
    for name in (one, two):
        near.tare_cli("bootstrap", "-q", *BUSYBOX, "--cache", str(tmp_path), "debian:bookworm", name, timeout=120)
    first = image_of(near, one)
    assert first["Id"] == image_of(near, two)["Id"]
    assert first["Config"]["Cmd"] == ["bash"]
    assert first["Config"]["Labels"]["io.tare.bootstrap"] == "debian:bookworm"
    assert near.docker("run", "--rm", one, "/bin/busybox", "echo", "works").out == "works\n"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("program", ["mmdebstrap", "debootstrap"])
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_whole_systems(near: Engine, tmp_path: Path, program: str, suite: str) -> None:
    """Both programs make a system that works, twice the same, with nothing of this machine in it."""
    if os.environ.get("TARE_BOOTSTRAP") != "all":
        pytest.skip("whole systems are made with TARE_BOOTSTRAP=all")
    needs_mirror(program)
    one, two = near.unique("image"), near.unique("image")
    flags = ("-q", "--with", program, "--include", "netbase", "--cache", str(tmp_path))
    for name in (one, two):
        near.tare_cli("bootstrap", *flags, f"debian:{suite}", name, timeout=400)
        assert "base-files" in [path.name.partition("_")[0] for path in tmp_path.glob("*.deb")]
    assert image_of(near, one)["RootFS"] == image_of(near, two)["RootFS"]
    assert image_of(near, one)["Id"] == image_of(near, two)["Id"]
    shown = near.docker("run", "--rm", one, "sh", "-c", "cat /etc/os-release; dpkg -s netbase").out
    assert f"VERSION_CODENAME={suite}" in shown and "Status: install ok installed" in shown
    with tarfile.open(fileobj=io.BytesIO(near.api.request("GET", f"/tare/images/{one}/export").body)) as tar:
        sizes = {member.name: member.size for member in tar}
    assert not [name for name in sizes if name.endswith(".deb") or name in ("etc/hostname", "etc/resolv.conf")]
    assert sizes.get("etc/machine-id", 0) == 0


@pytest.mark.timeout(900)
def test_the_programs_own_idea_of_a_system(near: Engine, tmp_path: Path) -> None:
    """`--variant -`: what debootstrap takes by itself has more than the smallest system, and works."""
    if os.environ.get("TARE_BOOTSTRAP") != "all":
        pytest.skip("whole systems are made with TARE_BOOTSTRAP=all")
    needs_mirror("debootstrap")
    name = near.unique("image")
    flags = ("-q", "--with", "debootstrap", "--variant", "-", "--cache", str(tmp_path))
    near.tare_cli("bootstrap", *flags, "debian:bookworm", name, timeout=600)
    assert image_of(near, name)["Config"]["Labels"]["io.tare.bootstrap.variant"] == "-"
    shown = near.docker(
        "run", "--rm", name, "sh", "-c", "dpkg -s cron | grep Status; dpkg --audit; ip link show lo"
    ).out
    assert shown.startswith("Status: install ok installed\n1: lo: <LOOPBACK")


def failing(directory: Path, status: int) -> dict[str, str]:
    """An environment with a mmdebstrap that writes half an archive and fails, or a whole one."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("f")
        entry.size = 10_000
        tar.addfile(entry, io.BytesIO(bytes(10_000)))
    (directory / "archive").write_bytes(archive.getvalue())
    program = directory / "mmdebstrap"
    program.write_text(f'#!/bin/sh\nhead -c {9000 if status else 1 << 20} "{directory}/archive"\nexit {status}\n')
    program.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


@pytest.mark.parametrize("status", [0, 25])
def test_a_program_that_fails_makes_nothing(
    near: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The archive counts once the program has ended well."""
    name = near.unique("image")
    for variable, value in failing(tmp_path, status).items():
        monkeypatch.setenv(variable, value)
    flags = ("--epoch", "1", "--no-cache", "--insecure", "--with", "mmdebstrap")
    done = near.tare_cli("bootstrap", *flags, "debian:bookworm", name, check=False)
    assert done.code == (1 if status else 0), done.err
    assert (name in near.docker("images").out) == (status == 0)
    assert ("mmdebstrap failed with status 25" in done.err) == (status != 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["debian"], "is not SYSTEM:SUITE"),
        (["plan9:4th"], "bootstrap knows debian and ubuntu"),
        (["debian:../x"], "is not SYSTEM:SUITE"),
        (["--keyring", "/nowhere", "debian:bookworm"], "no such keyring: /nowhere"),
        (["--with", "rpm", "debian:bookworm"], "--with takes mmdebstrap or debootstrap"),
        (
            ["--insecure", "--mirror", "http://127.0.0.1:1/debian", "debian:bookworm"],
            "the mirror has no suite bookworm",
        ),
    ],
    ids=["no-suite", "unknown", "path", "keyring", "program", "mirror"],
)
def test_what_cannot_be_made_is_told(near: Engine, arguments: list[str], text: str) -> None:
    """Before anything is fetched."""
    assert text in near.tare_cli("bootstrap", *arguments, check=False).err


def test_missing_programs_and_keys_are_named(near: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package that has them."""
    from tare.cli import bootstrap
    from tare.cli.command import CliError

    monkeypatch.setattr(bootstrap, "KEYRINGS", str(tmp_path))
    with pytest.raises(CliError, match="apt-get install ubuntu-keyring"):
        bootstrap.check_keyring(bootstrap.Recipe("ubuntu", "noble"))
    monkeypatch.setattr(bootstrap, "PROGRAMS", ("no-such-program",))
    with pytest.raises(CliError, match="apt-get install"):
        bootstrap.choose_program("")


def test_the_mirror_is_the_hosts_own(tmp_path: Path) -> None:
    """Of both forms of apt's sources; the distribution's where there is none."""
    (tmp_path / "sources.list.d").mkdir()
    assert default_mirror("ubuntu", str(tmp_path)) == "http://archive.ubuntu.com/ubuntu"
    (tmp_path / "sources.list.d" / "x.sources").write_text("Types: deb\nURIs: http://near.example/debian/\nSuites: x\n")
    assert default_mirror("debian", str(tmp_path)) == "http://near.example/debian"
    (tmp_path / "sources.list").write_text("deb [signed-by=/x] https://first.example/debian trixie main\n")
    assert default_mirror("debian", str(tmp_path)) == "https://first.example/debian"


def test_nothing_stays_of_one_that_is_ended(near: Engine, tmp_path: Path) -> None:
    """debootstrap's half root goes with the command, and what it had mounted there."""
    program = tmp_path / "debootstrap"
    program.write_text(
        "#!/bin/sh\n"
        'for root; do case "$root" in */root) mkdir "$root" && break;; esac; done\n'
        'mount -t proc proc "$root" && echo "$root" > "$TOLD"; exec sleep 1000\n'
    )
    program.chmod(0o755)
    told = tmp_path / "told"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TOLD": str(told), "TARE_HOST": f"unix://{near.socket}"}
    flags = ["--epoch", "1", "--no-cache", "--insecure", "--with", "debootstrap"]
    argv = [sys.executable, "-m", "tare.cli.main", "bootstrap", *flags, "debian:bookworm", near.unique("image")]
    process = subprocess.Popen(argv, env=clean_environment(environment), stderr=subprocess.PIPE, start_new_session=True)
    wait_until(lambda: told.exists() and bool(told.read_text()), "it is at work")
    root = told.read_text().strip()
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not Path(root).parent.exists()
    assert root not in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
