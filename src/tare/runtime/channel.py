"""The creator's end of the channel to a container's first process, or to one that is exec'd: answers and outcomes."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable

from tare.errors import TareError
from tare.runtime.failure import StartFailed, decode_failure, sentence
from tare.runtime.plan import ExecPlan, Plan
from tare.runtime.steps.execute import Execute

_MESSAGE_BYTES = 65536


class Channel:
    """terminal_fd: the terminal's master, once it came. pid: the process at the other end."""

    def __init__(self, link: socket.socket, plan: Plan | ExecPlan, pid: int) -> None:
        self.link = link
        self.plan = plan
        self.terminal_fd: int | None = None
        self.pid = pid
        self.executing = False

    def close(self) -> None:
        """Closes the channel (not the terminal: if that is not taken, `drop_terminal`)."""
        self.link.close()

    def drop_terminal(self) -> None:
        """Closes the terminal of a process that failed."""
        if self.terminal_fd is not None:
            os.close(self.terminal_fd)
            self.terminal_fd = None

    def serve(
        self, answers: dict[bytes, Callable[[], None]], after: tuple[bytes, Callable[[], None]] | None = None
    ) -> str:
        """Answers questions until the process is `ready` or `executed`. Raises StartFailed when it failed.

        after: a question, and what there is to be done once it is answered, while the process goes on.
        """
        while True:
            message, fds, _, _ = socket.recv_fds(self.link, _MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            if message == b"terminal":
                self.terminal_fd = fds[0]
            elif message == b"executing":
                self.executing = True
            elif message == b"ready":
                return "ready"
            elif message == b"rlimits":
                self._answer(self._set_limits)
            elif message.startswith(b"pid "):
                self.pid = int(message[4:])
                self._answer(answers[b"pid"])
            elif message.startswith(b"failed"):
                raise decode_failure(message)
            elif message:
                self._answer(answers[message])
                if after is not None and message == after[0]:
                    after[1]()
            elif self.executing:
                return "executed"
            else:
                raise StartFailed("unable to start container process: it was killed before it could start")

    def _answer(self, action: Callable[[], None]) -> None:
        try:
            action()
        except StartFailed:
            raise
        except TareError as error:
            raise StartFailed(f"unable to start container process: {sentence(error)}") from error
        self.link.send(b"go")

    def _set_limits(self) -> None:
        last = self.plan.steps[-1]
        if not isinstance(last, Execute):
            return
        for limit in last.rlimits:
            try:
                resource.prlimit(self.pid, limit.number, (limit.soft, limit.hard))
            except (OSError, ValueError) as error:
                reason = "operation not permitted" if "not allowed" in str(error) else sentence(error)
                raise StartFailed(
                    "unable to start container process: error during container init: "
                    "error setting rlimits for ready process: "
                    f"error setting rlimit type {limit.number}: {reason}"
                ) from error
