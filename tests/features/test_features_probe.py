"""The probes, on this kernel."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tare.kernel.features import probe


def test_probe_changes_nothing() -> None:
    """No link, mount, descriptor or process is made by looking."""

    def state() -> tuple[object, ...]:
        links = [name for _, name in socket.if_nameindex()]
        return len(os.listdir("/proc/self/fd")), links, Path("/proc/self/mountinfo").read_text(errors="surrogateescape")

    before = state()
    probe()
    assert state() == before


def test_probe_tells_what_can_be_checked_otherwise(tmp_path: Path) -> None:
    """Findings agree with the files and calls that also show them."""
    features = probe(str(tmp_path / "not" / "there" / "yet"))
    assert features.kernel_release == os.uname().release
    assert features.root == (os.geteuid() == 0)
    assert {"mnt", "pid", "net"} <= features.namespaces
    assert not any(name.endswith("_for_children") for name in features.namespaces)
    assert features.bridge and features.veth and features.nftables
    assert features.overlay == ("overlay" in Path("/proc/filesystems").read_text())
    assert features.data_filesystem in Path("/proc/filesystems").read_text()
    assert "CAP_SYS_ADMIN" in features.capabilities
    assert features.seccomp and {"openat2", "clone3", "pidfd_open", "close_range", "fsopen"} <= features.calls


def test_probe_without_rights_finds_less_and_does_not_fail() -> None:
    """As nobody in a child: no network devices, no capability, and still an answer."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            features = probe()
            code = 0 if not (features.root or features.bridge or features.nftables or features.capabilities) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
