"""`--ipc container:NAME`: one container's queues, semaphores and shared memory are another's, too."""

from __future__ import annotations

from support.engine import Engine


def test_shared_memory_is_shared(engine: Engine) -> None:
    """What one writes into /dev/shm the other reads; the size is the donor's."""
    donor = engine.start(flags=["--ipc", "shareable", "--shm-size", "3m"])
    script = "echo x > /dev/shm/x; df -k /dev/shm | tail -1; readlink /proc/self/ns/ipc; rm -r /dev/shm 2>/dev/null"
    done = engine.docker("run", "--rm", "--ipc", f"container:{donor}", engine.image, "sh", "-c", script, check=False)
    words = done.out.split()
    inside = engine.docker("exec", donor, "sh", "-c", "cat /dev/shm/x 2>/dev/null; readlink /proc/self/ns/ipc").out
    assert words[1] == "3072" and inside.split()[-1] == words[-1]
    engine.docker("exec", donor, "sh", "-c", "echo y > /dev/shm/y")
    reading = ("run", "--rm", "--ipc", f"container:{donor}", engine.image, "cat", "/dev/shm/y")
    assert engine.docker(*reading).out == "y\n"


def test_only_a_shareable_donor(engine: Engine) -> None:
    """By default nobody can join: Docker's words say what to do."""
    donor = engine.start(flags=["--ipc", "private"])
    done = engine.docker("run", "--rm", "--ipc", f"container:{donor}", engine.image, "true", check=False)
    assert done.code == 125
    before = "failed to join IPC namespace: container" if engine.release > 20 else "can't join IPC of container"
    assert f"{before} {donor}: non-shareable IPC (hint: use IpcMode:shareable" in done.err
