"""One cgroup in all of v1's hierarchies; runs between fork and exec too, so it imports nothing heavy."""

from __future__ import annotations

import errno
import os
import signal as signals
import time

import msgspec

from tare import faults
from tare.errors import Internal, KernelError, Unsupported
from tare.kernel import cgroupfs
from tare.oci.runtime_spec import LinuxCPU, LinuxResources
from tare.runtime.cgroups import alike
from tare.runtime.cgroups import v1_controllers as controllers
from tare.runtime.cgroups.hierarchies import Hierarchies
from tare.runtime.cgroups.stats import CgroupStats
from tare.runtime.cgroups.v1_stats import read_stats

FREEZE_TIMEOUT_S = 10.0
KILL_FREEZE_TIMEOUT_S = 0.5
REMOVE_TIMEOUT_S = 10.0
MAKE_TIMEOUT_S = 2.0


def single_threaded() -> bool:
    """Whether this process has one thread: /proc/self/task then has ., .. and one directory."""
    return os.stat("/proc/self/task").st_nlink == 3


class CgroupV1:
    """The directories of one path, `/tare/<id>`, below every v1 mount."""

    def __init__(self, path: str, hierarchies: Hierarchies) -> None:
        self._bases = {hierarchy.base + path: hierarchy.base for hierarchy in hierarchies.v1}
        self._directories = {
            controller: hierarchy.base + path for hierarchy in hierarchies.v1 for controller in hierarchy.controllers
        }

    def _directory(self, controller: str, what: str) -> str:
        directory = self._directories.get(controller)
        if directory is None:
            raise Unsupported(f"Your kernel does not support {what} or the cgroup is not mounted.")
        return directory

    def create(self) -> None:
        """Makes the cgroup in every hierarchy. One that exists is kept; a failure removes what this call made."""
        made: list[str] = []
        try:
            for directory, base in self._bases.items():
                faults.point("cgroups.create.mkdir")
                if self._make(directory, base):
                    made.append(directory)
            if "cpuset" in self._directories:
                directory = self._directories["cpuset"]
                _inherit_cpuset(directory, self._bases[directory])
        except BaseException:
            for directory in made:
                cgroupfs.remove(directory, 0)
            raise

    def _make(self, directory: str, base: str) -> bool:
        """Makes one directory; again if another engine removed the shared parent, empty for a moment, meanwhile."""
        deadline = time.monotonic() + MAKE_TIMEOUT_S
        while True:
            try:
                self._make_parents(directory, base)
                return cgroupfs.make(directory)
            except KernelError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV) or time.monotonic() > deadline:
                    raise

    def _make_parents(self, directory: str, base: str) -> None:
        parent = directory.rpartition("/")[0]
        if parent == base or os.path.isdir(parent):
            return
        self._make_parents(parent, base)
        if cgroupfs.make(parent) and directory == self._directories.get("cpuset"):
            _inherit_cpuset(parent, base)
            # The kernel then fills the children's cpusets itself, which saves each container six calls.
            cgroupfs.write(parent + "/cgroup.clone_children", "1")

    def apply(self, resources: LinuxResources) -> None:
        """Sets what `resources` names; a limit that no mounted controller carries raises Unsupported."""
        faults.point("cgroups.apply.write")
        if resources.devices:
            controllers.apply_devices(self._directory("devices", "the devices cgroup"), resources.devices)
        if resources.memory:
            directory = self._directory("memory", "memory limit capabilities")
            controllers.apply_memory(directory, resources.memory)
        if resources.cpu:
            if resources.cpu.cpus or resources.cpu.mems:
                alike.apply_cpuset(self._directory("cpuset", "cpuset"), resources.cpu)
            if msgspec.structs.replace(resources.cpu, cpus="", mems="") != LinuxCPU():
                controllers.apply_cpu(self._directory("cpu", "CPU shares"), resources.cpu)
        if resources.pids:
            alike.apply_pids(self._directory("pids", "PIDs limit capabilities"), resources.pids)
        if resources.block_io:
            controllers.apply_blkio(self._directory("blkio", "Block I/O weight"), resources.block_io)
        self._apply_rare(resources)

    def _apply_rare(self, resources: LinuxResources) -> None:
        if resources.hugepage_limits:
            directory = self._directory("hugetlb", "huge page limits")
            controllers.apply_hugetlb(directory, resources.hugepage_limits)
        network = resources.network
        if network and network.class_id is not None:
            controllers.apply_network_class(self._directory("net_cls", "network classes"), network)
        if network and network.priorities:
            controllers.apply_network_priorities(self._directory("net_prio", "network priorities"), network)
        if resources.rdma:
            controllers.apply_rdma(self._directory("rdma", "RDMA limits"), resources.rdma)
        if resources.unified:
            raise Unsupported("cannot use unified cgroup settings on cgroup v1")

    def join(self) -> None:
        """Moves the calling process in.

        Writing 0 to `tasks` moves only the calling thread, which is all of a single-threaded process, and spares the
        wait of 5 to 30 ms for RCU that moving a whole process costs (kernel/cgroup/cgroup.c, cgroup_procs_write_start).
        """
        name = "/tasks" if single_threaded() else "/cgroup.procs"
        for directory in self._bases:
            faults.point("cgroups.join.attach")
            cgroupfs.write(directory + name, "0")

    def attach(self, pid: int) -> None:
        """Moves another process in, with all its threads."""
        for directory in self._bases:
            cgroupfs.write(directory + "/cgroup.procs", str(pid))

    def clone_fd(self) -> int | None:
        """None: v1 knows no CLONE_INTO_CGROUP; the child joins by itself."""
        return None

    def exists(self) -> bool:
        """Whether the cgroup is there in any hierarchy."""
        return any(os.path.isdir(directory) for directory in self._bases)

    def pids(self) -> list[int]:
        """All processes of the cgroup and of those below it, as the hierarchy of one controller has them."""
        return sorted(_processes(self._directories.get("pids") or next(iter(self._bases))))

    def _pids_anywhere(self) -> set[int]:
        """Those of every hierarchy: with the host's rights a process may have left one of them."""
        found: set[int] = set()
        for directory in self._bases:
            found.update(_processes(directory))
        return found

    def kill(self, signal: int) -> None:
        """Signals every process. They are frozen meanwhile where possible, so that none can fork away from it."""
        freezable = self._freezer_present()
        was_frozen = freezable and self.frozen()
        try:
            if freezable and not was_frozen:
                try:
                    self._set_frozen("FROZEN", KILL_FREEZE_TIMEOUT_S)
                except Internal:  # a process in an uninterruptible sleep; the signal waits for it
                    pass
            for pid in self._pids_anywhere():
                try:
                    os.kill(pid, signal)
                except ProcessLookupError:
                    pass
        finally:
            # A frozen v1 process does not even die of SIGKILL before it is thawed.
            if freezable and (not was_frozen or signal == signals.SIGKILL):
                self.thaw()

    def _freezer_present(self) -> bool:
        return os.path.isdir(self._directories.get("freezer", "/nonexistent"))

    def freeze(self) -> None:
        """Freezes every process; waits until all are."""
        self._set_frozen("FROZEN")

    def thaw(self) -> None:
        """Lets every process go on."""
        self._set_frozen("THAWED")

    def _set_frozen(self, state: str, timeout_s: float = FREEZE_TIMEOUT_S) -> None:
        path = self._directory("freezer", "the freezer cgroup") + "/freezer.state"
        deadline = time.monotonic() + timeout_s
        pause = 0.0001
        while True:
            # Written again at each turn: a fork may slip in while the state is FREEZING (cgroup-v1/freezer-subsystem).
            cgroupfs.write(path, state)
            if cgroupfs.read(path) == state:
                return
            if time.monotonic() > deadline:
                cgroupfs.write(path, "THAWED")
                raise Internal(f"cgroup did not become {state} within {timeout_s:g} s: {path}")
            time.sleep(pause)  # v1's freezer reports its progress by no event
            pause = min(pause * 2, 0.02)

    def frozen(self) -> bool:
        """Whether it is, or is becoming, frozen."""
        directory = self._directories.get("freezer")
        state = cgroupfs.read_if_present(directory + "/freezer.state") if directory else None
        return state in ("FROZEN", "FREEZING")

    def stats(self) -> CgroupStats:
        """All counters now."""
        return read_stats(self._directories)

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for want of memory here (0 on kernels before 4.13)."""
        directory = self._directories.get("memory")
        text = cgroupfs.read_if_present(directory + "/memory.oom_control") if directory else None
        return cgroupfs.parse_flat(text or "").get("oom_kill", 0)

    def remove(self) -> None:
        """Removes it from every hierarchy, with what is below; waits until it is empty."""
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        for directory in self._bases:
            faults.point("cgroups.remove.rmdir")
            cgroupfs.remove(directory, deadline - time.monotonic())

    def remove_if_empty(self) -> None:
        """Removes it where nothing is below or in it."""
        for directory in self._bases:
            cgroupfs.remove_if_empty(directory)


def _processes(directory: str) -> set[int]:
    return {pid for cgroup in cgroupfs.descendants(directory) for pid in cgroupfs.read_pids(cgroup)}


def _inherit_cpuset(directory: str, base: str) -> None:
    """Fills an empty cpuset from its parent's: a v1 cpuset without processors takes no process (man 7 cpuset)."""
    if cgroupfs.read(directory + "/cpuset.cpus") and cgroupfs.read(directory + "/cpuset.mems"):
        return
    parent = directory.rpartition("/")[0]
    if directory == base or not parent:
        raise KernelError(errno.ENOSPC, "read", directory + "/cpuset.cpus", "the root cpuset is empty")
    _inherit_cpuset(parent, base)
    for name in ("/cpuset.cpus", "/cpuset.mems"):
        if not cgroupfs.read(directory + name):
            cgroupfs.write(directory + name, cgroupfs.read(parent + name))
