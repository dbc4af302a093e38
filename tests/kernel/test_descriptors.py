"""Closing what must not be inherited."""

from __future__ import annotations

import os

from tare.kernel.fds import close_others, set_cloexec_from


def test_all_descriptors_but_those_to_keep_are_closed() -> None:
    """Whatever lies between them."""
    child = os.fork()
    if child == 0:
        try:
            fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
            keep = {fds[3], fds[4], fds[19], -1}
            close_others(keep)
            left = {int(name) for name in os.listdir("/proc/self/fd")}
            assert left & set(fds) == keep - {-1}
            assert max(left) <= fds[19] + 1
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_descriptors_are_marked_from_a_number_on() -> None:
    """Those below stay inheritable."""
    child = os.fork()
    if child == 0:
        try:
            fd = os.dup(0)
            os.set_inheritable(fd, True)
            set_cloexec_from(fd)
            assert not os.get_inheritable(fd)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
