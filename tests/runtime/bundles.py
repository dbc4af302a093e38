"""Containers for tests of the runtime alone: a busybox root below tmp_path, specs with Docker's defaults."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from support.busybox import busybox_rootfs
from tare.oci.runtime_spec import (
    Capabilities,
    Linux,
    LinuxNamespace,
    Mount,
    Process,
    Root,
    Spec,
)
from tare.runtime.cgroups import Hierarchies, detect_hierarchies, open_cgroup
from tare.runtime.create import Created, create_container
from tare.runtime.enter import build_exec_plan, enter_container
from tare.runtime.plan import build_plan, decode_exec_plan, decode_plan, encode_plan
from tare.runtime.seccomp import default_profile, resolve_profile

CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
    "CAP_AUDIT_WRITE",
)
QUIET = ("nosuid", "noexec", "nodev")
MOUNTS = (
    Mount("/proc", "proc", "proc", QUIET),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    Mount(
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    Mount("/sys", "sysfs", "sysfs", (*QUIET, "ro")),
    Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*QUIET, "ro")),
    Mount("/dev/mqueue", "mqueue", "mqueue", QUIET),
    Mount("/dev/shm", "tmpfs", "shm", (*QUIET, "mode=1777", "size=67108864")),
)
MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"),
    "/sys/devices/virtual/powercap",
)
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
NAMESPACES = ("mount", "network", "uts", "pid", "ipc")
ENVIRONMENT = ("PATH=/usr/bin:/bin", "TERM=xterm")
DEADLINE_S = 80


def default_spec(rootfs: Path, *args: str, cgroup: str = "") -> Spec:
    """A spec as Docker makes it by default."""
    return Spec(
        "1.2.0",
        Root(str(rootfs)),
        Process(
            cwd="/",
            args=args or ("true",),
            env=ENVIRONMENT,
            capabilities=Capabilities(CAPABILITIES, CAPABILITIES, None, CAPABILITIES, None),
        ),
        "box",
        mounts=MOUNTS,
        linux=Linux(
            namespaces=tuple(LinuxNamespace(name) for name in NAMESPACES),  # type: ignore[arg-type]
            cgroups_path=cgroup,
            masked_paths=MASKED,
            readonly_paths=READONLY,
            seccomp=resolve_profile(default_profile(), frozenset(CAPABILITIES)),
        ),
    )


def changed(
    spec: Spec, *, process: dict[str, Any] | None = None, linux: dict[str, Any] | None = None, **own: Any
) -> Spec:
    """A copy of a spec with some fields replaced."""
    assert spec.process is not None and spec.linux is not None
    return msgspec.structs.replace(
        spec,
        process=msgspec.structs.replace(spec.process, **(process or {})),
        linux=msgspec.structs.replace(spec.linux, **(linux or {})),
        **own,
    )


def with_mounts(spec: Spec, *mounts: Mount) -> Spec:
    """A copy of a spec with more mounts."""
    return msgspec.structs.replace(spec, mounts=(*(spec.mounts or ()), *mounts))


def read_all(fd: int) -> str:
    """All that comes out of a pipe or terminal until its other end is closed; closes it."""
    chunks = []
    while True:
        try:
            chunk = os.read(fd, 65536)
        except OSError:  # EIO: the last process has left the terminal
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(fd)
    return b"".join(chunks).decode("utf-8", "replace")


class Machine:
    """Runs containers with a root of their own; forgets none."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rootfs = busybox_rootfs(directory / "rootfs")
        self.id = "rt" + uuid.uuid4().hex[:12]
        self.cgroup = f"/tare-test-{self.id}"
        self.hierarchies: Hierarchies = detect_hierarchies()

    def spec(self, *args: str) -> Spec:
        """A default spec for this machine's root."""
        return default_spec(self.rootfs, *args, cgroup=self.cgroup)

    def shell(self, script: str) -> Spec:
        """A default spec that runs a script."""
        return self.spec("sh", "-c", script)

    def start(
        self, spec: Spec, *, hold: bool = False, stdio: tuple[int, int, int] | None = None, **options: Any
    ) -> Created:
        """Starts a container; the plan goes through its encoded form."""
        plan = build_plan(spec, container_id=self.id, hierarchies=self.hierarchies, **options)
        return create_container(decode_plan(encode_plan(plan)), stdio=stdio, hold=hold)

    def run(self, spec: Spec, **options: Any) -> tuple[int, str]:
        """Runs a container to its end: exit code and what it wrote to stdout and stderr."""
        read_fd, write_fd = os.pipe()
        null_fd = os.open("/dev/null", os.O_RDONLY)
        try:
            created = self.start(spec, stdio=(null_fd, write_fd, write_fd), **options)
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
            os.close(null_fd)
        output = read_all(read_fd if created.terminal_fd is None else created.terminal_fd)
        if created.terminal_fd is not None:
            os.close(read_fd)
        return self.end(created), output

    def end(self, created: Created) -> int:
        """Waits for a container's end and removes its cgroup."""
        code = os.waitstatus_to_exitcode(os.waitpid(created.pid, 0)[1])
        open_cgroup(self.cgroup).remove()
        return code

    @contextmanager
    def running(self, spec: Spec | None = None, **options: Any) -> Iterator[Created]:
        """A container that sleeps while the block runs."""
        created = self.start(spec or self.spec("sleep", "1000"), **options)
        try:
            yield created
        finally:
            os.kill(created.pid, signal.SIGKILL)
            self.end(created)

    def execute(
        self, created: Created, spec: Spec, *args: str, user: str | None = None, **process: Any
    ) -> tuple[int, str]:
        """Runs one more process in a container: exit code and output."""
        assert spec.process is not None
        changes: dict[str, Any] = {"args": args, "env": ENVIRONMENT, **process}
        plan = build_exec_plan(
            msgspec.structs.replace(spec.process, **changes), container_pid=created.pid, spec=spec, user=user
        )
        read_fd, write_fd = os.pipe()
        null_fd = os.open("/dev/null", os.O_RDONLY)
        try:
            entered = enter_container(decode_exec_plan(encode_plan(plan)), stdio=(null_fd, write_fd, write_fd))
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
            os.close(null_fd)
        output = read_all(read_fd if entered.terminal_fd is None else entered.terminal_fd)
        if entered.terminal_fd is not None:
            os.close(read_fd)
        return os.waitstatus_to_exitcode(os.waitpid(entered.pid, 0)[1]), output
