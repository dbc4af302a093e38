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
        assert engine.docker("ps", "-aq").out.strip() == ""
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
