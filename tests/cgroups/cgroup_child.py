"""Child processes that are in a cgroup and do one thing."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from tare.runtime.cgroups import Cgroup


class Child:
    """A forked process that joins `cgroup`, runs `action`, tells its result and waits to be killed."""

    def __init__(self, cgroup: Cgroup | None, action: Callable[[], object] = lambda: None) -> None:
        self._read_fd, write_fd = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                if cgroup is not None:
                    cgroup.join()
                os.write(write_fd, f"{action()!r}\n".encode())
                signal.pause()
            except BaseException as error:
                os.write(write_fd, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(1)
        os.close(write_fd)

    def result(self, timeout_s: float = 80.0) -> str:
        """What the action returned, printed; empty if the child died first."""
        assert select.select([self._read_fd], [], [], timeout_s)[0], "the child said nothing"
        return os.read(self._read_fd, 65536).decode().strip()

    def wait(self, timeout_s: float = 80.0) -> int:
        """Exit code, or -signal."""
        pidfd = os.pidfd_open(self.pid)
        try:
            assert select.select([pidfd], [], [], timeout_s)[0], "the child did not end"
        finally:
            os.close(pidfd)
        os.close(self._read_fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def stop(self) -> int:
        """Kills and reaps it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()
