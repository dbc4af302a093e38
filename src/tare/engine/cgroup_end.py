"""Removes what a container's monitor would have removed of its cgroup, had it lived."""

from __future__ import annotations

import signal

from tare.engine.engine import Engine
from tare.errors import KernelError
from tare.runtime.cgroups import open_cgroup


def clear_cgroup(engine: Engine, container_id: str) -> None:
    """Kills what is left in a container's cgroup and removes it; a monitor that is gone couldn't."""
    container = engine.containers.get(container_id)
    parent = container.host.cgroup_parent if container is not None else ""
    cgroup = open_cgroup(engine.cgroup_path(container_id, parent))
    try:
        if cgroup.exists():
            cgroup.kill(signal.SIGKILL)
            cgroup.remove()
    except (OSError, KernelError):
        pass  # a process that can't die yet; the next start of the engine looks again
