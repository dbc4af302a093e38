"""What engines could leave in the kernel and on disk, listed before and after; only looks, never cleans."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.deadline import PATIENCE
from support.processes import marked

PLACES = ("/run", "/run/docker", "/run/netns", "/run/lock", "/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue")
KERNELS = ("dummy0", "ifb0", "ifb1")
"""Links that are there as soon as the kernel has the module of their kind."""
# The machine is ours alone: every new thing counts, not only what bears a mark.
EXCLUSIVE = os.environ.get("CI") == "true" or os.environ.get("TARE_TEST_EXCLUSIVE") == "1"


def mounts() -> set[str]:
    """One line for each mount in this namespace."""
    made = set()
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        made.add(f"mount {fields[4]} ({right}, root {fields[3]})")
    return made


def cgroups() -> set[str]:
    """Every cgroup in every hierarchy."""
    return {f"cgroup {path}" for path, _, _ in os.walk("/sys/fs/cgroup") if path.count("/") > 4 or _is_v2(path)}


def _is_v2(path: str) -> bool:
    return path.count("/") == 4 and Path("/sys/fs/cgroup/cgroup.controllers").exists()


def links() -> set[str]:
    """Network devices of this namespace, with the ids of the networks that engines made them for."""
    return {f"link {name} {alias(name)}".rstrip() for name in os.listdir("/sys/class/net") if name not in KERNELS}


def alias(link: str) -> str:
    """The id of the network that an engine made a link for; empty: it is no such link."""
    try:
        text = Path(f"/sys/class/net/{link}/ifalias").read_text().strip()
    except OSError:
        return ""  # it is gone
    return text.removeprefix("tare network ") if text.startswith("tare network ") else ""


def rules() -> set[str]:
    """Lines of the nftables rule set, counters cut out; nothing where the tool isn't there."""
    nft = shutil.which("nft") or ("/usr/sbin/nft" if os.access("/usr/sbin/nft", os.X_OK) else None)
    if nft is None:
        return set()
    listed = subprocess.run([nft, "-s", "list", "ruleset"], capture_output=True, text=True).stdout
    return {f"nft {line.strip()}" for line in listed.splitlines() if line.strip(" }\t")}


def files() -> set[str]:
    """Names in the places where run-time files go."""
    made = set()
    for place in PLACES:
        if os.path.isdir(place):
            made |= {f"file {place}/{name}" for name in os.listdir(place)}
    return made


def snapshot() -> set[str]:
    """All of the above."""
    return mounts() | cgroups() | links() | rules() | files()


def _relevant(item: str, marks: Iterable[str], everything: bool) -> bool:
    if any(mark in item for mark in marks):
        return True
    if not everything:
        return False
    # pytest's own directories and other programs' temporary files are not an engine's
    return not item.startswith("file ") or "tare" in item or "docker" in item or "containerd" in item


def remaining(before: set[str], marks: Iterable[str], *, everything: bool = EXCLUSIVE) -> list[str]:
    """What is there now and was not before, of those with a mark (or all), and marked processes."""
    marks = tuple(marks)
    new = {item for item in snapshot() - before if _relevant(item, marks, everything)}
    for mark in marks:
        new |= {f"process {pid} {argv}" for pid, argv in marked(mark).items()}
    return sorted(new)


def assert_none(before: set[str], marks: Iterable[str], *, everything: bool = EXCLUSIVE, timeout_s: float = 8) -> None:
    """AssertionError with a list of what is left, once the kernel had timeout_s to clean up by itself."""
    marks = tuple(marks)
    end = time.monotonic() + timeout_s * PATIENCE
    while left := remaining(before, marks, everything=everything):
        if time.monotonic() > end:
            raise AssertionError("left behind:\n  " + "\n  ".join(left))
        time.sleep(0.05)


@contextmanager
def nothing_left(*marks: str, everything: bool = EXCLUSIVE) -> Iterator[None]:
    """The block must leave nothing behind that bears one of the marks."""
    before = snapshot()
    yield
    assert_none(before, marks, everything=everything)
