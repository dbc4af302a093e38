"""Makes root file systems of other kinds than this machine's, from Debian's and Python's registries alone.

- Debian's suites, as mmdebstrap makes them.
- "lib64": laid out as distributions with RPM are (/usr/lib64 with the libraries and Python, one /usr/bin, none of
  Debian's tools or records). The programs are Debian's own, moved: it is the layout that is foreign, not the builds.
- "musl": musl instead of glibc, /usr not merged, busybox for the tools, Python compiled for it (musl_root.sh).
None says that it is a distribution which it isn't.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from foreign_roots import Root, cache_directory

from tare.cli.bootstrap import default_mirror

PROJECT = Path(__file__).resolve().parents[2]
LOCK = PROJECT / "requirements.lock"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PYTHONS = {"bookworm": "3.11", "trixie": "3.13", "lib64": "3.13", "musl": "3.13"}
DEBIANS_OWN = (
    *("etc/apt", "etc/debian_version", "etc/dpkg", "var/lib/dpkg", "var/lib/apt", "var/cache/apt", "usr/lib/apt"),
    *("usr/lib/dpkg", "usr/share/dpkg", "usr/share/doc", "usr/share/debconf", "usr/share/perl5", "usr/lib/locale"),
)
OS_RELEASE = 'ID={0}\nNAME="{1}"\nPRETTY_NAME="{1}"\nVERSION_ID=1\n'


def make_root(kind: str, directory: Path) -> Root:
    """A root of that kind below `directory`, with an engine made from this tree in it."""
    makers = {"lib64": make_lib64, "musl": make_musl}
    root = makers[kind](directory / kind) if kind in makers else make_debian(kind, directory / kind)
    (root.path / "srv").mkdir(exist_ok=True)
    (root.path / "mnt").mkdir(exist_ok=True)
    return root


def run(argv: Sequence[str], timeout: float) -> None:
    """Runs a program that makes something; what it says is told if it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


def _mmdebstrap(suite: str, variant: str, packages: str, path: Path) -> None:
    cache = cache_directory() / "packages"
    cache.mkdir(parents=True, exist_ok=True)
    argv = ["mmdebstrap", "--quiet", "--mode=root", f"--variant={variant}", f"--include={packages}"]
    argv += ["--skip=download/empty", "--skip=essential/unlink"]
    argv += [
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives/"',
        f"--setup-hook=sync-in {cache} /var/cache/apt/archives/",
    ]
    argv += [f"--customize-hook=sync-out /var/cache/apt/archives {cache}", suite, str(path), default_mirror("debian")]
    run(argv, 400)


def fetch_wheels(python: str, platforms: Sequence[str], target: Path, *more: str) -> None:
    """The locked libraries for that Python and these platforms: pip refuses what the lock has no digest of."""
    argv = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    argv += ["--no-deps", "--require-hashes", "--implementation", "cp", "--python-version", python]
    argv += [word for platform in platforms for word in ("--platform", platform)]
    run([*argv, "--dest", str(target), "-r", str(LOCK), *more], 200)


def make_wheel(target: Path) -> None:
    """Our own wheel."""
    argv = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"]
    run([*argv, "--no-build-isolation", "--wheel-dir", str(target), str(PROJECT)], 120)


def _lay_out(python: str, target: Path) -> None:
    """The locked libraries and our package in a directory, for a glibc."""
    wheels = target.with_name("wheels")
    fetch_wheels(python, ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64"], wheels)
    make_wheel(wheels)
    argv = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-index"]
    argv += ["--no-compile", "--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    argv += ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64", "--target", str(target)]
    run([*argv, *map(str, sorted(wheels.glob("*.whl")))], 120)


def make_debian(suite: str, path: Path) -> Root:
    """A suite of Debian's, with its Python."""
    _mmdebstrap(suite, "minbase", "python3,iproute2", path)
    _lay_out(PYTHONS[suite], path / "opt" / "tare")
    return Root(path, ("python3", "-m", "tare.daemon.main"), {"PYTHONPATH": "/opt/tare"})


def make_lib64(path: Path) -> Root:
    """The layout of RPM's distributions."""
    _mmdebstrap("trixie", "extract", "python3,iproute2,bash,coreutils,mount,util-linux,libc-bin", path)
    for name in DEBIANS_OWN:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)
    usr, lib64 = path / "usr", path / "usr" / "lib64"
    if lib64.exists():
        shutil.rmtree(lib64)  # a link to the loader
    (usr / "lib" / "x86_64-linux-gnu").rename(lib64)
    for python in (usr / "lib").glob("python3*"):
        python.rename(lib64 / python.name)
    for program in sorted((usr / "sbin").iterdir()):
        if not (usr / "bin" / program.name).exists():
            program.rename(usr / "bin" / program.name)
    shutil.rmtree(usr / "sbin")
    for program in (usr / "bin").glob("*"):
        if program.name.startswith(("apt", "dpkg", "deb-", "perl", "update-")):
            program.unlink()
    links = {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "usr/sbin": "bin"}
    for name, target in links.items():
        (path / name).unlink(missing_ok=True)
        (path / name).symlink_to(target)
    (path / "etc" / "ld.so.conf").write_text("/usr/lib64\n")
    (usr / "lib" / "os-release").write_text(OS_RELEASE.format("testlib64", "Root with lib64"))
    (path / "etc" / "os-release").unlink(missing_ok=True)
    (path / "etc" / "os-release").symlink_to("../usr/lib/os-release")
    (path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/sbin/nologin\n")
    (path / "etc" / "group").write_text("root:x:0:\nnobody:x:65534:\n")
    run(["ldconfig", "-r", str(path)], 60)
    _lay_out(PYTHONS["lib64"], path / "opt" / "tare")
    # Debian's Python looks for its library below /usr/lib unless it is told; RPM's are built so.
    environment = {"PYTHONPLATLIBDIR": "lib64", "PYTHONPATH": "/opt/tare"}
    return Root(path, ("python3", "-m", "tare.daemon.main"), environment, run_tmpfs=True)


def make_musl(path: Path) -> Root:
    """Busybox and musl, Python's own pip, and our wheel installed by it from the lock."""
    built = cache_directory() / "musl"
    if not (built / "done").exists():
        script = Path(__file__).with_name("musl_root.sh")
        run(["nice", "-n", "19", "sh", str(script), str(built), default_mirror("debian"), KEYRING], 1500)
    shutil.copytree(built / "root", path, symlinks=True)
    for name in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var/lib", "wheels"):
        (path / name).mkdir(parents=True, exist_ok=True)
    (path / "etc" / "os-release").write_text(OS_RELEASE.format("testmusl", "Root with musl"))
    (path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    (path / "etc" / "group").write_text("root:x:0:\nnobody:x:65534:\n")
    wheels = path / "wheels"
    fetch_wheels(PYTHONS["musl"], ["musllinux_1_2_x86_64"], wheels)
    make_wheel(wheels)
    shutil.copy(LOCK, wheels)
    root = Root(path, ("/usr/bin/python3", "/usr/bin/tared"))
    _install_inside(root)
    return root


def _install_inside(root: Root) -> None:
    """pip inside, without a network: the lock's digests, then our wheel."""
    argv = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    run([*argv, "--dest", str(root.path / "wheels"), "pip"], 120)
    (pip,) = (root.path / "wheels").glob("pip-*.whl")
    inside = ["/usr/bin/python3", f"/wheels/{pip.name}/pip", "install", "-q", "--no-index", "--find-links", "/wheels"]
    inside += ["--root-user-action=ignore", "--no-compile"]
    root.run(*inside, "--require-hashes", "-r", f"/wheels/{LOCK.name}")
    (ours,) = (root.path / "wheels").glob("tare_engine-*.whl")
    root.run(*inside, f"/wheels/{ours.name}")
