"""An engine on TCP with mutual TLS: Docker's client, ours and the library get in, strangers don't."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from far_engines import FILES, TARE, TlsEngine, call, free_port, issue

import tare
from support.engine import clean_environment, docker_clients
from support.tared import Tared

CLIENTS = {"docker": docker_clients()[:1] or ["docker"], "tare": TARE}


@pytest.fixture(params=["docker", "tare"])
def client(request: pytest.FixtureRequest) -> list[str]:
    """Docker's command line and ours."""
    return CLIENTS[request.param]


def test_a_command_with_input_behind_tls(client: list[str], tls_engine: TlsEngine) -> None:
    """run -i passes 8 MiB and the end of input through encryption, and gets all of it back."""
    data = os.urandom(4 << 20).hex().encode()
    line = [*client, "run", "--rm", "-i", tls_engine.image, "sh", "-c", "cat; echo end"]
    done = call(line, clean_environment(tls_engine.environment()), data)
    assert (done.code, done.err) == (0, "")
    assert done.out == data.decode() + "end\n"


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""}, [], ""),
        ({"DOCKER_CERT_PATH": "", "DOCKER_TLS_VERIFY": ""}, ["--tls"], ""),
        ({"DOCKER_CERT_PATH": "/nonexistent"}, [], "/nonexistent/ca.pem"),
        ({"DOCKER_HOST": "tcp://127.0.0.2:{port}"}, [], "certificate"),
        ({}, ["--tlscacert", "{other}/ca.pem"], "certificate"),
        ({}, ["--tlscert", "{other}/cert.pem", "--tlskey", "{other}/key.pem"], ""),
    ],
    ids=["plain", "no certificate", "no files", "wrong name", "wrong authority", "a stranger's certificate"],
)
def test_who_is_turned_away(
    client: list[str],
    tls_engine: TlsEngine,
    tmp_path: Path,
    changes: dict[str, str],
    options: list[str],
    reason: str,
) -> None:
    """A client that the engine doesn't know stays outside, and a client says nothing to a strange engine."""
    issue(tmp_path / "other", "localhost")
    words = {"port": str(tls_engine.port), "other": str(tmp_path / "other")}
    changed = {name: value.format(**words) for name, value in changes.items()}
    line = [*client, *(option.format(**words) for option in options), "ps"]
    done = call(line, clean_environment(tls_engine.environment(**changed)))
    assert (done.code, done.out) == (1, "")
    assert reason in done.err


def test_flags_and_contexts_do_the_same(client: list[str], tls_engine: TlsEngine, tmp_path: Path) -> None:
    """--tls… flags, and a context with the files inside, reach the engine as the environment does."""
    made = tls_engine.certificates
    flags = ["--tlsverify", f"--tlscacert={made}/ca.pem", f"--tlscert={made}/cert.pem", f"--tlskey={made}/key.pem"]
    environment = clean_environment({"DOCKER_CONFIG": str(tmp_path)})
    assert call([*client, "-H", tls_engine.address, *flags, "ps", "-q"], environment).err == ""
    endpoint = f"host={tls_engine.address},ca={made}/ca.pem,cert={made}/cert.pem,key={made}/key.pem"
    assert call([*client, "context", "create", "far", "--docker", endpoint], environment).code == 0
    for each in CLIENTS.values():
        assert call([*each, "--context", "far", "ps", "-q"], environment).err == ""


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_the_library_behind_tls(tls_engine: TlsEngine, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both faces carry input and its end through TLS 1.2 and 1.3."""
    wanted = ssl.TLSVersion[version]
    original = ssl.SSLContext.wrap_bio

    def limited(context: ssl.SSLContext, *args: Any, **options: Any) -> ssl.SSLObject:
        context.maximum_version = wanted
        made = original(context, *args, **options)
        return made

    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", limited)
    data = os.urandom(3 << 20)
    with tare.connect(tls_engine.address, certificates=tls_engine.certificates) as engine:
        assert engine.run(tls_engine.image, "cat", input=data).stdout == data
        assert engine.run(tls_engine.image, "echo again").output == "again\n"

    async def story() -> None:
        async with tare.AsyncClient(tls_engine.address, certificates=tls_engine.certificates) as engine:
            assert (await engine.run(tls_engine.image, "cat", input=data)).stdout == data
            with pytest.raises(tare.NotFound):
                await engine.containers.get("nosuch")

    asyncio.run(story())


def test_the_library_refuses_a_stranger(tls_engine: TlsEngine, tmp_path: Path) -> None:
    """An engine whose certificate another authority signed is an error, in both faces."""
    issue(tmp_path / "other", "localhost")
    with pytest.raises(tare.ClientError, match="certificate"):
        tare.connect(tls_engine.address, certificates=tmp_path / "other")

    async def story() -> None:
        async with tare.AsyncClient(tls_engine.address, certificates=tmp_path / "other") as engine:
            await engine.ping()

    with pytest.raises(tare.ClientError, match="certificate"):
        asyncio.run(story())


def test_nothing_is_said_in_the_clear(tls_engine: TlsEngine) -> None:
    """A plain request on the TLS port gets no answer of HTTP."""
    with socket.create_connection(("127.0.0.1", tls_engine.port)) as sock:
        sock.settimeout(60)
        sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            assert b"HTTP/1.1 200" not in sock.recv(1000)
        except ConnectionResetError:
            pass


def test_no_open_door_without_tls() -> None:
    """tared doesn't listen in the clear where other machines reach it; on loopback it does."""
    port = free_port()
    refused = Tared("-H", f"tcp://0.0.0.0:{port}", bridge=False)
    try:
        with pytest.raises(AssertionError, match="without TLS would make everyone who reaches it root"):
            refused.start()
    finally:
        refused.stop()


def test_certificates_are_for_their_purpose(certificates: Path) -> None:
    """OpenSSL agrees: the engine's certificate is for a server, the client's for a client, neither for both."""
    for name, purpose in (("server-cert.pem", "sslserver"), ("cert.pem", "sslclient")):
        for asked in ("sslserver", "sslclient"):
            line = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", "-purpose", asked, name]
            done = subprocess.run(line, cwd=certificates, capture_output=True)
            assert (done.returncode == 0) == (asked == purpose), (name, asked)


def test_certificates_are_private_and_never_replaced(certificates: Path) -> None:
    """All files are their owner's only; a second run refuses and changes nothing."""
    before = {path.name: path.read_bytes() for path in certificates.iterdir() if path.is_file()}
    assert {path.stat().st_mode & 0o777 for path in certificates.iterdir() if path.is_file()} == {0o600}
    assert certificates.stat().st_mode & 0o777 == 0o700
    done = issue(certificates, check=False)
    assert (done.code, done.out) == (1, "")
    assert "already has ca.pem" in done.err
    assert before == {path.name: path.read_bytes() for path in certificates.iterdir() if path.is_file()}


def test_one_more_client(tls_engine: TlsEngine) -> None:
    """--client makes a certificate of the same authority, in a directory that is all its user needs."""
    name = f"user{os.getpid()}"
    directory = Path(issue(tls_engine.certificates, "--client", name).out.strip())
    assert sorted(path.name for path in directory.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    with tare.connect(tls_engine.address, certificates=directory) as engine:
        engine.ping()
    assert issue(tls_engine.certificates, "--client", name, check=False).code == 1
    assert issue(tls_engine.certificates, "--client", "../up", check=False).code == 1
    assert issue(directory, "--client", "x", check=False).code == 1


@pytest.mark.parametrize("host", ["not a name", "a..b", "x" * 300, "a/b", "é"])
def test_names_that_machines_cannot_have(host: str, tmp_path: Path) -> None:
    """Nothing is written for a name that no client could check."""
    assert issue(tmp_path / "made", host, check=False).code == 1
    assert not (tmp_path / "made").exists()


def test_only_cert_needs_the_library() -> None:
    """No command but `tare cert` names the room of certificates, and no other room imports `cryptography`."""
    source = Path(tare.__file__).parent
    users = {path.relative_to(source).as_posix() for path in source.rglob("*.py") if "certificates" in imports(path)}
    assert users == {"cli/commands/cert.py"}
    foreign = {path.relative_to(source).as_posix() for path in source.rglob("*.py") if "cryptography" in imports(path)}
    assert foreign == {"certificates/issue.py"}


def imports(path: Path) -> set[str]:
    """Top names of what a module imports, of ours the room."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip().startswith(("from ", "import "))]
    names = [words[1].removeprefix("tare.").partition(".")[0] for words in lines if len(words) > 1]
    return set(names)


def test_the_files_are_named_once() -> None:
    """What tared is started with in these tests is what tare cert writes."""
    from tare.certificates.issue import FILES as WRITTEN

    assert set(FILES.values()) <= set(WRITTEN)
