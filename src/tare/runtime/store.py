"""The state of tare-runtime's containers: `<root>/<id>/state.json`, written aside and renamed. Mirrors no kernel state.

Whether a container runs is asked of the kernel each time: its process (pid and start time), its gate, its freezer.
"""

from __future__ import annotations

import errno
import os
import shutil

import msgspec

from tare import faults
from tare.errors import Conflict, KernelError, NotFound
from tare.oci.runtime_spec import OCI_VERSION, Spec
from tare.runtime.check import check_container_id

GATE_NAME = "exec.fifo"


class ContainerRecord(msgspec.Struct, frozen=True, rename="camel"):
    """What is kept of a container. start_ticks: with pid the identity of its first process."""

    id: str
    bundle: str
    pid: int
    start_ticks: int
    created: str
    cgroup: str
    spec: Spec


class RuntimeState(msgspec.Struct, rename="camel"):
    """What `state` and `list` print; the OCI state and what runc adds."""

    oci_version: str
    id: str
    pid: int
    status: str
    bundle: str
    rootfs: str
    created: str
    annotations: dict[str, str] = {}
    owner: str = ""


_decoder = msgspec.json.Decoder(ContainerRecord)


class ContainerStore:
    """The containers below one root directory."""

    def __init__(self, root: str) -> None:
        self.root = root

    def directory(self, container_id: str) -> str:
        """The directory of one container."""
        return f"{self.root}/{check_container_id(container_id)}"

    def reserve(self, container_id: str) -> str:
        """Makes the directory of a new container; Conflict if there is one."""
        os.makedirs(self.root, 0o700, exist_ok=True)
        directory = self.directory(container_id)
        try:
            os.mkdir(directory, 0o711)
        except FileExistsError:
            raise Conflict("container with given ID already exists") from None
        return directory

    def note_cgroup(self, container_id: str, path: str) -> None:
        """Notes the cgroup of a container that is about to be made, so that `delete --force` finds its processes."""
        with open(f"{self.directory(container_id)}/cgroup", "w", encoding="utf-8") as file:
            file.write(path)

    def noted_cgroup(self, container_id: str) -> str:
        """What `note_cgroup` noted; empty if nothing."""
        try:
            with open(f"{self.directory(container_id)}/cgroup", encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def save(self, record: ContainerRecord) -> None:
        """Writes a record; a reader sees the old one or the new one."""
        directory = self.directory(record.id)
        text = msgspec.json.encode(record)
        temporary = f"{directory}/.state.json.new"
        with open(temporary, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        faults.point("runtime.state.write")
        os.rename(temporary, f"{directory}/state.json")

    def load(self, container_id: str) -> ContainerRecord:
        """The record of a container; NotFound if there is none."""
        try:
            with open(f"{self.directory(container_id)}/state.json", "rb") as file:
                return _decoder.decode(file.read())
        except FileNotFoundError:
            raise NotFound("container does not exist") from None

    def remove(self, container_id: str) -> None:
        """Forgets a container."""
        shutil.rmtree(self.directory(container_id), ignore_errors=True)

    def list(self) -> list[ContainerRecord]:
        """All containers; one that is being made or removed right now is left out."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        records = []
        for name in names:
            try:
                records.append(self.load(name))
            except NotFound:
                continue
        return records

    def status(self, record: ContainerRecord) -> str:
        """`created`, `running`, `paused` or `stopped`."""
        if not is_alive(record.pid, record.start_ticks):
            return "stopped"
        if os.path.exists(f"{self.directory(record.id)}/{GATE_NAME}"):
            return "created"
        if record.cgroup:
            from tare.runtime.cgroups import open_cgroup

            if open_cgroup(record.cgroup).frozen():
                return "paused"
        return "running"

    def state(self, record: ContainerRecord) -> RuntimeState:
        """What is known of a container now."""
        status = self.status(record)
        root = record.spec.root.path if record.spec.root is not None else ""
        return RuntimeState(
            oci_version=OCI_VERSION,
            id=record.id,
            pid=0 if status == "stopped" else record.pid,
            status=status,
            bundle=record.bundle,
            rootfs=root if root.startswith("/") else f"{record.bundle}/{root}",
            created=record.created,
            annotations=record.spec.annotations or {},
        )


def read_stat(pid: int) -> tuple[str, int]:
    """The state letter and the start time in ticks of a process (/proc/PID/stat); KernelError if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, "open", f"/proc/{pid}/stat") from error
    return fields[0].decode(), int(fields[19])


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether the very process is there and no zombie."""
    try:
        letter, ticks = read_stat(pid)
    except KernelError:
        return False
    return letter not in ("Z", "X") and ticks == start_ticks
