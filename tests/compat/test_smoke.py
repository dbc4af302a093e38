"""The shortest way through an engine: what everything else stands on."""

from __future__ import annotations

import pytest

from support.engine import Engine, docker_clients


@pytest.mark.parametrize("client", docker_clients())
def test_run_prints_and_exits_with_every_official_client(engine: Engine, client: str) -> None:
    """`docker run --rm` of each installed client prints the program's output and nothing else."""
    engine.client_program, before = client, engine.client_program
    try:
        result = engine.docker("run", "--rm", engine.image, "echo", "hello")
        assert (result.out, result.err) == ("hello\n", "")
        assert engine.docker("version", "--format", "{{.Server.Os}}").out == "linux\n"
        assert engine.docker("ps", "-q").code == 0 and not engine.containers()
    finally:
        engine.client_program = before


def test_ping_tells_versions(engine: Engine) -> None:
    """_ping answers OK with the negotiation headers, by GET and by HEAD, with and without a version."""
    for method in ("GET", "HEAD"):
        for prefix in ("", "/v1.41"):
            answer = engine.api.request(method, f"{prefix}/_ping")
            assert answer.status == 200
            assert answer.body == (b"OK" if method == "GET" else b"")
            assert answer.headers["api-version"].startswith("1.")
            assert answer.headers["ostype"] == "linux"
            assert answer.headers["cache-control"] == "no-cache, no-store, must-revalidate"
            assert answer.headers["pragma"] == "no-cache"


@pytest.mark.parametrize("client", docker_clients())
def test_every_client_speaks_the_main_verbs(engine: Engine, client: str) -> None:
    """One life of a container and an image by each installed client, a terminal included."""
    engine.client_program, before = client, engine.client_program
    name, image = engine.unique(), engine.unique("image")
    try:
        engine.docker("run", "-d", "-it", "--name", name, "--memory", "64m", "-p", "80", engine.image, "sh")
        assert engine.docker("exec", "-i", name, "cat", input="piped").out == "piped"
        with engine.terminal("attach", name) as terminal:
            terminal.send(b"\necho $((40+2)); touch /new\n")
            terminal.expect(b"42\r\n")
            terminal.send(b"\x10\x11")
            terminal.wait()
        with engine.terminal("exec", "-it", name, "sh") as terminal:
            terminal.expect(b"/ # ")
            terminal.send(b"exit 3\n")
            assert terminal.wait() == 3
        assert "A /new" in engine.docker("diff", name).out
        assert "42" in engine.docker("logs", name).out
        assert engine.docker("stats", "--no-stream", "--format", "{{.PIDs}}", name).out == "1\n"
        assert engine.docker("port", name, "80").out.startswith("0.0.0.0:")
        assert "sh" in engine.docker("top", name).out
        assert engine.docker("update", "--memory", "96m", "--memory-swap", "192m", name).out == f"{name}\n"
        engine.docker("commit", "--change", 'CMD ["ls", "/new"]', name, image)
        assert engine.docker("run", "--rm", image).out == "/new\n"
        assert len(engine.docker("history", "-q", image).out.split()) == 2
        engine.docker("restart", "-t", "0", name)
        engine.docker("rename", name, f"{name}-x")
        engine.docker("stop", "-t", "0", f"{name}-x")
        assert engine.docker("wait", f"{name}-x").out == "137\n"
        engine.docker("rm", f"{name}-x")
        engine.docker("rmi", image)
        assert engine.docker("info", "--format", "{{.OSType}}").out == "linux\n"
    finally:
        engine.client_program = before
