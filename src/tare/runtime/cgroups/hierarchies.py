"""Finds the cgroup hierarchies of this machine by parsing mount tables; changes nothing.

v1      one mount for each controller (or a few joined: cpu,cpuacct)
v2      one mount of type cgroup2 with all controllers
hybrid  v1 mounts, and a cgroup2 mount that has only the controllers left over
"""

from __future__ import annotations

import os

import msgspec

from tare.errors import InvalidArgument

V1_CONTROLLERS = frozenset(
    (
        *("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"),
        *("net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc"),
    )
)

# Where v2's rule against processes in inner cgroups makes us move those of our base, ourselves among them.
REFUGE = "/tare-engine"


class Hierarchy(msgspec.Struct, frozen=True):
    """One mounted hierarchy. base: the directory below which we make our cgroups."""

    version: int
    base: str
    controllers: tuple[str, ...]


class Hierarchies(msgspec.Struct, frozen=True):
    """All hierarchies that are mounted where we can see them."""

    v1: tuple[Hierarchy, ...]
    v2: Hierarchy | None

    @property
    def mode(self) -> str:
        """`v1`, `v2`, `hybrid` or, where no cgroup file system is mounted, `none`."""
        if self.v1:
            return "hybrid" if self.v2 else "v1"
        return "v2" if self.v2 else "none"

    def find(self, controller: str) -> Hierarchy | None:
        """The hierarchy that carries a controller."""
        for hierarchy in self.v1:
            if controller in hierarchy.controllers:
                return hierarchy
        if self.v2 and controller in self.v2.controllers:
            return self.v2
        return None


def _unescape(path: str) -> str:
    """Undoes the octal escapes of mountinfo (man 5 proc)."""
    if "\\" not in path:
        return path
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escaped, plain)
    return path


def _v1_controllers(super_options: str) -> tuple[str, ...]:
    names = super_options.split(",")
    return tuple(name for name in names if name in V1_CONTROLLERS or name.startswith("name="))


def _v2_base(mount_point: str, self_cgroup: str) -> str:
    """Where in a cgroup2 we may make cgroups: its visible root, or our own cgroup if only that was delegated to us.

    Our own cgroup is what systemd's `Delegate=` (and a rootless user's session) hands over; cgroups(7), "delegation".
    """
    if os.access(mount_point + "/cgroup.procs", os.W_OK):
        return mount_point
    for line in self_cgroup.split("\n"):
        if line.startswith("0::/"):
            own = (mount_point + line[3:]).rstrip("/").removesuffix(REFUGE)
            if os.access(own + "/cgroup.procs", os.W_OK):
                return own
    return mount_point


def _read_text(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def detect_hierarchies(mountinfo: str = "/proc/self/mountinfo", self_cgroup: str = "/proc/self/cgroup") -> Hierarchies:
    """The hierarchies that a mount table lists (of several mounts of one hierarchy, the first)."""
    v1: list[Hierarchy] = []
    v2: Hierarchy | None = None
    seen: set[str] = set()
    for line in _read_text(mountinfo).split("\n"):
        left, separator, right = line.partition(" - ")
        if not separator:
            continue
        mount_point = _unescape(left.split(" ")[4])
        file_system, _, super_options = right.split(" ", 2)
        if file_system == "cgroup2" and v2 is None:
            controllers = tuple(_read_text(mount_point + "/cgroup.controllers").split())
            v2 = Hierarchy(2, _v2_base(mount_point, _read_text(self_cgroup)), controllers)
        elif file_system == "cgroup":
            controllers = _v1_controllers(super_options)
            if controllers and seen.isdisjoint(controllers):
                seen.update(controllers)
                v1.append(Hierarchy(1, mount_point, controllers))
    return Hierarchies(tuple(v1), v2)


_known: Hierarchies | None = None


def known_hierarchies() -> Hierarchies:
    """This machine's hierarchies, looked for once; forked children inherit the answer."""
    global _known
    if _known is None:
        _known = detect_hierarchies()
    return _known


def validate_path(path: str) -> str:
    """A cgroup path that is safe below any hierarchy: absolute, not the root, with no `.` or `..` and no odd bytes."""
    parts = path.split("/")
    if len(path) > 1024 or len(parts) < 2 or parts[0] != "":
        raise InvalidArgument(f"invalid cgroup path: {path!r}")
    for part in parts[1:]:
        # '\n' would let a name break out of /proc/PID/cgroup's lines; the rest is what mkdir(2) takes.
        if part in ("", ".", "..") or not part.isprintable() or len(part) > 255:
            raise InvalidArgument(f"invalid cgroup path: {path!r}")
    return path
