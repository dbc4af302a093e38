"""What the steps of one container's first process share while they run: descriptors, the channel to the creator.

Runs inside the container's namespaces; imports nothing heavy.
"""

from __future__ import annotations

import os
import socket
import stat

from tare.errors import InvalidArgument
from tare.kernel.fds import open_in_root
from tare.runtime.cgroups import Cgroup


class Init:
    """Mutable state of the process that executes a plan. All descriptors are close-on-exec."""

    __slots__ = (
        *("cgroup", "cgroup_joined", "channel", "devpts_fd", "gate_fd", "null_fd", "proc_fd", "root_fd", "stdio"),
        *("terminal", "title_area", "trees", "user_fd"),
    )

    def __init__(self, channel: socket.socket, stdio: tuple[int, int, int] | None, gate_fd: int = -1) -> None:
        self.channel = channel
        self.stdio = stdio
        self.gate_fd = gate_fd
        self.cgroup: Cgroup | None = None
        self.root_fd = -1
        self.proc_fd = -1
        self.devpts_fd = -1
        self.null_fd = -1
        self.terminal = False
        self.title_area = (0, 0)
        self.trees: dict[int, int] = {}
        self.cgroup_joined = False
        self.user_fd = -1  # the user namespace that mounts are to be mapped to

    def open_null(self) -> int:
        """A null device, checked to be one (CVE-2025-31133): that which we made in the container, or the host's."""
        if self.null_fd < 0:
            self.take_null(os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
        return self.null_fd

    def take_null(self, fd: int) -> None:
        """Keeps an O_PATH descriptor as the null device, after a look at what it is."""
        facts = os.fstat(fd)
        if not stat.S_ISCHR(facts.st_mode) or facts.st_rdev != os.makedev(1, 3):
            raise InvalidArgument("/dev/null is not the null device")
        self.null_fd = fd

    def enter_root(self) -> None:
        """After the pivot: the root is `/` now."""
        os.close(self.root_fd)
        self.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def resolve(self, path: str, resolve: int = 0) -> int:
        """An O_PATH descriptor of `path` inside the container's root."""
        return open_in_root(self.root_fd, path, resolve=resolve)

    def tell(self, message: bytes) -> bool:
        """Sends the creator a message; False if there is none any more (a held container outlives it)."""
        try:
            self.channel.send(message)
            return True
        except (BrokenPipeError, ConnectionResetError, ConnectionRefusedError):
            return False

    def ask(self, question: bytes) -> bytes:
        """Sends the creator a message and waits for its answer."""
        self.tell(question)
        return self.wait_answer()

    def wait_answer(self) -> bytes:
        """Waits for an answer that another process may have asked for."""
        answer = self.channel.recv(64)
        if not answer:
            os._exit(1)  # the creator died: there is nobody to report to
        return answer

    def join_cgroup(self) -> None:
        """Waits until the creator has made our cgroup and set its limits, and moves into it."""
        if self.cgroup is None or self.cgroup_joined:
            return
        self.ask(b"cgroup")
        self.cgroup.join()
        self.cgroup_joined = True
