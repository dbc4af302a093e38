"""One cgroup in a v2 hierarchy; runs between fork and exec too, so it imports nothing heavy."""

from __future__ import annotations

import errno
import os
import signal as signals
import time

from tare import faults
from tare.errors import Internal, KernelError, Unsupported
from tare.kernel import cgroupfs
from tare.oci.runtime_spec import LinuxResources
from tare.runtime.cgroups import alike
from tare.runtime.cgroups import v2_controllers as controllers
from tare.runtime.cgroups.device_program import restrict_devices
from tare.runtime.cgroups.hierarchies import REFUGE, Hierarchy
from tare.runtime.cgroups.stats import CgroupStats
from tare.runtime.cgroups.v1 import FREEZE_TIMEOUT_S, MAKE_TIMEOUT_S, REMOVE_TIMEOUT_S
from tare.runtime.cgroups.v1_controllers import apply_rdma
from tare.runtime.cgroups.v2_stats import read_stats


class CgroupV2:
    """The directory of one path, `/tare/<id>`, below the v2 mount (or below the cgroup that was delegated to us)."""

    def __init__(self, path: str, hierarchy: Hierarchy) -> None:
        self._base = hierarchy.base
        self._directory = hierarchy.base + path
        self._controllers = hierarchy.controllers

    def create(self) -> None:
        """Makes the cgroup, with every controller of the base enabled in it. One that exists is kept."""
        faults.point("cgroups.create.mkdir")
        parent = self._directory.rpartition("/")[0]
        deadline = time.monotonic() + MAKE_TIMEOUT_S
        while True:
            try:
                self._enable(parent)
                cgroupfs.make(self._directory)
                return
            except KernelError as error:
                # Another engine removed the shared parent, empty for a moment.
                if error.errno not in (errno.ENOENT, errno.ENODEV) or time.monotonic() > deadline:
                    raise

    def _enable(self, directory: str) -> None:
        """Makes `directory` pass its controllers on to its children, after all those above it."""
        if directory != self._base:
            self._enable(directory.rpartition("/")[0])
            cgroupfs.make(directory)
        path = directory + "/cgroup.subtree_control"
        missing = set(self._controllers) - set(cgroupfs.read(path).split())
        if not missing:
            return
        try:
            _pass_on(path, missing)
        except KernelError as error:
            # EBUSY: a cgroup other than the real root can't both have processes and pass controllers on
            # (cgroups(7), "no internal processes"): so it is in a container's own cgroup namespace.
            if error.errno != errno.EBUSY or directory != self._base:
                raise
            self._evacuate(directory)
            _pass_on(path, missing)

    def _evacuate(self, directory: str) -> None:
        """Moves the processes of our base into a child of it, as an entry script does for an engine in a container."""
        refuge = directory + REFUGE
        cgroupfs.make(refuge)
        for pid in cgroupfs.read_pids(directory):
            try:
                cgroupfs.write(refuge + "/cgroup.procs", str(pid))
            except KernelError as error:
                if error.errno != errno.ESRCH:
                    raise

    def _require(self, controller: str, what: str) -> None:
        if controller not in self._controllers:
            raise Unsupported(f"Your kernel does not support {what} or the cgroup is not mounted.")

    def apply(self, resources: LinuxResources) -> None:
        """Sets what `resources` names; a limit whose controller is missing raises Unsupported."""
        faults.point("cgroups.apply.write")
        if resources.devices:
            restrict_devices(self._directory, resources.devices)
        if resources.memory:
            self._require("memory", "memory limit capabilities")
            controllers.apply_memory(self._directory, resources.memory)
        cpu = resources.cpu
        if cpu:
            if cpu.cpus or cpu.mems:
                self._require("cpuset", "cpuset")
                alike.apply_cpuset(self._directory, cpu)
            if cpu.shares or cpu.quota or cpu.period or cpu.burst or cpu.idle is not None:
                self._require("cpu", "CPU shares")
            controllers.apply_cpu(self._directory, cpu)
        if resources.pids:
            self._require("pids", "PIDs limit capabilities")
            alike.apply_pids(self._directory, resources.pids)
        if resources.block_io:
            self._require("io", "Block I/O weight")
            controllers.apply_io(self._directory, resources.block_io)
        self._apply_rare(resources)

    def _apply_rare(self, resources: LinuxResources) -> None:
        if resources.hugepage_limits:
            self._require("hugetlb", "huge page limits")
            controllers.apply_hugetlb(self._directory, resources.hugepage_limits)
        network = resources.network
        if network and (network.class_id is not None or network.priorities):
            raise Unsupported("cgroup v2 has no network classes and priorities")
        if resources.rdma:
            self._require("rdma", "RDMA limits")
            apply_rdma(self._directory, resources.rdma)
        if resources.unified:
            controllers.apply_unified(self._directory, resources.unified)

    def join(self) -> None:
        """Moves the calling process in (a wait of 5 to 30 ms after idle; a child forked with `clone_fd` has none)."""
        faults.point("cgroups.join.attach")
        cgroupfs.write(self._directory + "/cgroup.procs", "0")

    def attach(self, pid: int) -> None:
        """Moves another process in, with all its threads."""
        cgroupfs.write(self._directory + "/cgroup.procs", str(pid))

    def clone_fd(self) -> int | None:
        """A descriptor of the cgroup for clone3(CLONE_INTO_CGROUP), whose child starts inside; the caller closes it."""
        try:
            return os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, "open", self._directory) from error

    def exists(self) -> bool:
        """Whether the cgroup is there."""
        return os.path.isdir(self._directory)

    def pids(self) -> list[int]:
        """All processes of the cgroup and of those below it."""
        found: set[int] = set()
        for cgroup in cgroupfs.descendants(self._directory):
            found.update(cgroupfs.read_pids(cgroup))
        return sorted(found)

    def kill(self, signal: int) -> None:
        """Signals every process; SIGKILL by cgroup.kill (Linux 5.14), which no fork can outrun."""
        if signal == signals.SIGKILL:
            try:
                cgroupfs.write(self._directory + "/cgroup.kill", "1")
                return
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
        for pid in self.pids():
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                pass

    def freeze(self) -> None:
        """Freezes every process; waits until all are."""
        self._set_frozen(1)

    def thaw(self) -> None:
        """Lets every process go on."""
        self._set_frozen(0)

    def _set_frozen(self, value: int) -> None:
        cgroupfs.write(self._directory + "/cgroup.freeze", str(value))
        events = self._directory + "/cgroup.events"
        if not cgroupfs.wait_event(events, "frozen", value, FREEZE_TIMEOUT_S):
            cgroupfs.write(self._directory + "/cgroup.freeze", "0")
            raise Internal(f"cgroup did not reach frozen={value} within {FREEZE_TIMEOUT_S:g} s: {self._directory}")

    def frozen(self) -> bool:
        """Whether it is, or is becoming, frozen."""
        return cgroupfs.read_if_present(self._directory + "/cgroup.freeze") == "1"

    def stats(self) -> CgroupStats:
        """All counters now."""
        return read_stats(self._directory)

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for want of memory, here and below."""
        text = cgroupfs.read_if_present(self._directory + "/memory.events")
        return cgroupfs.parse_flat(text or "").get("oom_kill", 0)

    def remove(self) -> None:
        """Removes it and what is below; waits until it is empty."""
        faults.point("cgroups.remove.rmdir")
        cgroupfs.remove(self._directory, REMOVE_TIMEOUT_S)

    def remove_if_empty(self) -> None:
        """Removes it where nothing is below or in it."""
        cgroupfs.remove_if_empty(self._directory)


def _pass_on(path: str, missing: set[str]) -> None:
    """Enables controllers; where not all together are accepted, each that is. A limit on one left out fails later."""
    names = [f"+{controller}" for controller in sorted(missing)]
    try:
        cgroupfs.write(path, " ".join(names))
        return
    except KernelError as error:
        # EINVAL: one can't be had just now (cpu, while a real-time process runs; cpuset below a threaded cgroup).
        if error.errno not in (errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):
            raise
    for name in names:
        try:
            cgroupfs.write(path, name)
        except KernelError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):
                raise
