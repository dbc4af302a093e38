"""An engine behind TLS with certificates that `tare cert` made, and an `ssh` that stays on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from far_engines import FILES, SSH, TARE, TlsEngine, free_port, issue, write_program

from support.tared import Tared


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, server-cert.pem, cert.pem and their keys, for localhost."""
    directory = tmp_path_factory.mktemp("certificates") / "made"
    issue(directory, "localhost")
    return directory


@pytest.fixture(scope="session")
def tls_engine(certificates: Path, nothing_left_at_the_end: None) -> Iterator[TlsEngine]:
    """One for the session."""
    port = free_port()
    files = [f"--tls{name}={certificates / path}" for name, path in FILES.items()]
    daemon = Tared("--tlsverify", *files, "-H", f"tcp://0.0.0.0:{port}")
    try:
        daemon.start()
        daemon.engine.prepare()
        yield TlsEngine(daemon, port, certificates)
    finally:
        daemon.stop()


@pytest.fixture
def ssh(tmp_path: Path) -> Path:
    """A directory for PATH with an `ssh`, and the `tare` that is found at its other end."""
    directory = tmp_path / "bin"
    directory.mkdir()
    write_program(directory / "ssh", SSH)
    write_program(directory / "tare", f'#!/bin/sh\nexec {" ".join(TARE)} "$@"\n')
    return directory
