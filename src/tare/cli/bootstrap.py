"""What `bootstrap` needs to know of Debian's kin, and the programs that make a root file system of its packages.

    suite + mirror + packages + time → mmdebstrap or debootstrap → a tar with nothing of this machine in it

The time is that of the mirror's Release file unless somebody gives one, so the same mirror gives the same bytes. The
program checks signatures with the archive's keyring; without one nothing is made, unless that is asked for.
"""

from __future__ import annotations

import calendar
import os
import shutil
import subprocess
import tempfile
import time

from tare.cli.command import CliError
from tare.cli.treetar import pack_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("mmdebstrap", "debootstrap")
TIMEOUT_S = 30
MAX_RELEASE_BYTES = 4 << 20
KEYRINGS = "/usr/share/keyrings"
# What differs from one building to the next, or belongs to the machine that it was made on (for debootstrap; the other
# one does this by itself).
LEFT_OUT = ("var/cache/apt/*", "var/lib/apt/lists/*", "var/cache/ldconfig/aux-cache", "var/log/*.log", "var/log/apt/*")
EMPTIED = ("etc/machine-id", "etc/resolv.conf", "etc/hostname")


class System:
    """A distribution: where its packages are by default, and the keys that they are signed with."""

    __slots__ = ("keyring", "mirror", "package")

    def __init__(self, mirror: str, keyring: str, package: str) -> None:
        self.mirror = mirror
        self.keyring = keyring
        self.package = package


SYSTEMS = {
    "debian": System("http://deb.debian.org/debian", "debian-archive-keyring.gpg", "debian-archive-keyring"),
    "ubuntu": System("http://archive.ubuntu.com/ubuntu", "ubuntu-archive-keyring.gpg", "ubuntu-keyring"),
}
# dpkg's names of machines (dpkg-architecture(1)) in the words of images.
PLATFORMS = {
    "amd64": "linux/amd64",
    "arm64": "linux/arm64",
    "armhf": "linux/arm/v7",
    "armel": "linux/arm/v5",
    "i386": "linux/386",
    "ppc64el": "linux/ppc64le",
    "riscv64": "linux/riscv64",
    "s390x": "linux/s390x",
}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf", "i686": "i386", "ppc64le": "ppc64el"}


class Recipe:
    """What to make. cache: a directory for packages, "" for none. epoch: seconds, later times become this one."""

    __slots__ = (
        "architecture",
        "cache",
        "components",
        "epoch",
        "include",
        "insecure",
        "keyring",
        "mirror",
        "quiet",
        "suite",
        "system",
        "variant",
    )

    def __init__(self, system: str, suite: str) -> None:
        self.system = system
        self.suite = suite
        self.architecture = ""
        self.cache = ""
        self.components = "main"
        self.epoch = 0
        self.include: list[str] = []
        self.insecure = False
        self.keyring = ""
        self.mirror = ""
        self.quiet = False
        self.variant = "minbase"


def parse_system(text: str) -> tuple[str, str]:
    """(system, suite) of debian:bookworm."""
    system, colon, suite = text.partition(":")
    if not colon or not suite or not set(suite) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_"):
        raise CliError(f'"{text}" is not SYSTEM:SUITE, as debian:bookworm or ubuntu:noble')
    if system not in SYSTEMS:
        raise CliError(f"bootstrap knows {' and '.join(sorted(SYSTEMS))}, not {system}")
    return system, suite


def choose_program(wanted: str) -> str:
    """The path of a program that makes root file systems."""
    if wanted and wanted not in PROGRAMS:
        raise CliError(f"--with takes {' or '.join(PROGRAMS)}, not {wanted}")
    for name in (wanted,) if wanted else PROGRAMS:
        found = shutil.which(name)
        if found is None and os.path.exists(f"/usr/sbin/{name}"):
            found = f"/usr/sbin/{name}"
        if found:
            return found
    raise CliError(
        f"{wanted or 'neither mmdebstrap nor debootstrap'} is {'not ' if wanted else ''}installed: "
        f"apt-get install {wanted or 'mmdebstrap'}"
    )


def host_architecture() -> str:
    """This machine, in dpkg's words."""
    machine = os.uname().machine
    return _MACHINES.get(machine, machine)


def default_mirror(system: str, folder: str = "/etc/apt") -> str:
    """Where this machine has the system's packages from, else where everybody has."""
    for line in _source_lines(folder):
        for word in line.split():
            if word.startswith(("http://", "https://")) and word.rstrip("/").endswith(f"/{system}"):
                return word.rstrip("/")
    return SYSTEMS[system].mirror


def _source_lines(folder: str) -> Iterator[str]:
    """The lines of apt's sources that name addresses (sources.list(5))."""
    places = [f"{folder}/sources.list"]
    try:
        places += sorted(f"{folder}/sources.list.d/{name}" for name in os.listdir(f"{folder}/sources.list.d"))
    except OSError:
        pass
    for place in places:
        if not place.endswith((".list", ".sources")):
            continue
        try:
            with open(place, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        yield from (line for line in lines if line.startswith(("deb ", "URIs:")))


def check_keyring(recipe: Recipe) -> None:
    """Finds the keys. Raises CliError that says what to install."""
    if recipe.insecure:
        return
    if recipe.keyring:
        if not os.path.exists(recipe.keyring):
            raise CliError(f"no such keyring: {recipe.keyring}")
        return
    system = SYSTEMS[recipe.system]
    for name in (system.keyring, system.keyring.replace(".gpg", ".pgp")):
        if os.path.exists(f"{KEYRINGS}/{name}"):
            recipe.keyring = f"{KEYRINGS}/{name}"
            return
    raise CliError(
        f"{recipe.system}'s packages can't be checked without its keys: apt-get install {system.package}, "
        "or name a file with --keyring (--insecure takes what comes)"
    )


def release_time(mirror: str, suite: str) -> int:
    """When the mirror's suite was last changed, in seconds. Raises CliError if it doesn't answer."""
    from urllib.error import URLError
    from urllib.request import urlopen

    failure = ""
    for name in ("InRelease", "Release"):
        address = f"{mirror}/dists/{suite}/{name}"
        try:
            with urlopen(address, timeout=TIMEOUT_S) as answer:
                text = answer.read(MAX_RELEASE_BYTES).decode("utf-8", "replace")
        except (URLError, OSError, ValueError) as error:
            failure = f"{address}: {getattr(error, 'reason', None) or error}"
            continue
        for line in text.splitlines():
            if line.startswith("Date:"):
                return calendar.timegm(time.strptime(line[5:].strip(), "%a, %d %b %Y %H:%M:%S %Z"))
        failure = f"{address} has no date"
    raise CliError(f"the mirror has no suite {suite}: {failure}")


def root_archive(program: str, recipe: Recipe) -> Iterator[bytes]:
    """The tar. If the program fails, so does this, before the end of the stream."""
    if os.path.basename(program) == "mmdebstrap":
        yield from _by_mmdebstrap(program, recipe)
    else:
        yield from _by_debootstrap(program, recipe)


def _environment(recipe: Recipe) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PERL", "PYTHON"))}
    return {**kept, "SOURCE_DATE_EPOCH": str(recipe.epoch), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _by_mmdebstrap(program: str, recipe: Recipe) -> Iterator[bytes]:
    argv = [program, "--format=tar", f"--variant={recipe.variant}", f"--architectures={recipe.architecture}"]
    argv += [f"--mode={'root' if os.geteuid() == 0 else 'auto'}", f"--components={recipe.components}"]
    if recipe.include:
        argv.append(f"--include={','.join(recipe.include)}")
    if recipe.keyring:
        argv.append(f"--keyring={recipe.keyring}")
    if recipe.insecure:
        argv += ['--aptopt=Acquire::AllowInsecureRepositories "true"', '--aptopt=APT::Get::AllowUnauthenticated "true"']
    if recipe.quiet:
        argv.append("--quiet")
    if recipe.cache:
        # mmdebstrap(1), "EXAMPLES": packages that are there aren't fetched; those that were are kept.
        argv += ["--skip=download/empty", "--skip=essential/unlink"]
        argv += ['--setup-hook=mkdir -p "$1/var/cache/apt/archives/"']
        argv += [f"--setup-hook=sync-in {_quoted(recipe.cache)} /var/cache/apt/archives/"]
        argv += [f"--customize-hook=sync-out /var/cache/apt/archives {_quoted(recipe.cache)}"]
    for name in ("resolv.conf", "hostname"):
        argv.append(f'--customize-hook=rm -f "$1/etc/{name}"')
    argv += [recipe.suite, "-", recipe.mirror]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=_environment(recipe))
    assert process.stdout is not None
    try:
        while piece := process.stdout.read(256 << 10):
            yield piece
        if process.wait() != 0:
            raise CliError(f"mmdebstrap failed with status {process.returncode}: nothing was imported")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _quoted(path: str) -> str:
    import shlex

    return shlex.quote(path)


def _by_debootstrap(program: str, recipe: Recipe) -> Iterator[bytes]:
    if os.geteuid() != 0:
        raise CliError("debootstrap must be run as root; mmdebstrap need not: apt-get install mmdebstrap")
    _end_tidily()
    with tempfile.TemporaryDirectory(prefix="tare-bootstrap-", dir="/var/tmp") as directory:
        root = os.path.join(directory, "root")
        # It mounts /proc and /sys below the new root: in a namespace of its own they go with it, whatever happens.
        argv = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            program,
            f"--arch={recipe.architecture}",
            f"--components={recipe.components}",
        ]
        if recipe.variant not in ("", "-"):
            argv.append(f"--variant={recipe.variant}")
        if recipe.include:
            argv.append(f"--include={','.join(recipe.include)}")
        argv.append("--no-check-gpg" if recipe.insecure else f"--keyring={recipe.keyring}")
        if recipe.cache:
            argv.append(f"--cache-dir={os.path.abspath(recipe.cache)}")
        argv += [recipe.suite, root, recipe.mirror]
        told = subprocess.DEVNULL if recipe.quiet else 2
        process = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=told, env=_environment(recipe))
        if process.returncode != 0:
            raise CliError(f"debootstrap failed with status {process.returncode}: nothing was imported")
        _clean(root)
        yield from pack_tree(root, LEFT_OUT, recipe.epoch * 10**9)


def _end_tidily() -> None:
    """A signal that ends the command ends it as an error does: a half root of hundreds of megabytes doesn't stay."""
    import signal

    def leave(number: int, _frame: object) -> None:
        raise CliError(f"ended by {signal.Signals(number).name}", 128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def _clean(root: str) -> None:
    """What is the building machine's own goes."""
    for name in EMPTIED:
        path = os.path.join(root, name)
        if os.path.lexists(path):
            os.unlink(path)
            if name == "etc/machine-id":  # there, but empty: made at the first boot (machine-id(5))
                open(path, "w").close()
