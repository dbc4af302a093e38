"""What who answers for a registry can't make the client do: give credentials away, leave TLS unchecked, wait."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from scripted_registry import Exchange, ScriptedRegistry, build, tar_of

from tare.registry import endpoints
from tare.registry.endpoints import Endpoint
from tare.registry.partials import KEPT_S, Partials
from tare.registry.patience import Watch
from tare.registry.records import Credentials, NotAllowed, RegistrySettings
from tare.registry.repository import Repository
from tare.registry.transport import Transport


@pytest.mark.parametrize("challenge", ['Bearer realm="http://{host}/token"', "Basic"])
def test_a_host_that_a_redirect_leads_to_asks_in_vain(scripted: ScriptedRegistry, challenge: str) -> None:
    """Where blobs are stored elsewhere, that place's 401 is no challenge: who holds it would get the password."""
    elsewhere = ScriptedRegistry()
    try:
        digest = build(tar_of(a=b"a")).manifest["layers"][0]["digest"]
        asks = challenge.format(host=elsewhere.host)

        def redirect(exchange: Exchange) -> None:
            exchange.answer(307, Location=f"http://{elsewhere.host}/store")

        scripted.script["/blobs/"] = redirect
        elsewhere.script["/store"] = lambda exchange: exchange.answer(401, WWW_Authenticate=asks)
        elsewhere.script["/token"] = lambda exchange: exchange.answer(200, b'{"token": "t"}')
        transport = Transport(RegistrySettings())
        endpoint = Endpoint(f"http://{scripted.host}", scripted.host, checked=False)
        repository = Repository(transport, endpoint, Credentials(username="me", password="secret"), "x")
        with pytest.raises(NotAllowed):
            repository.open_blob(digest)
        transport.close()
        assert not any("authorization" in one.headers for one in (*elsewhere.heard, *scripted.heard))
    finally:
        elsewhere.stop()


def test_a_connection_that_comes_about_too_late_is_shut() -> None:
    """A registry that took the whole time to be reached has none left to trickle its answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch = Watch()
        watch.expire()
        watch.adopt(ours)
        theirs.settimeout(60)
        assert theirs.recv(1) == b""


@pytest.mark.parametrize(
    ("addresses", "secure"),
    [(["127.0.0.1"], False), (["127.0.0.1", "203.0.113.7"], True), (["203.0.113.7"], True), ([], True)],
)
def test_one_loopback_address_among_others_lifts_no_check(
    addresses: list[str], secure: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who answers for a name must not lift the check of certificates by adding 127.0.0.1 to his own address."""
    monkeypatch.setattr(
        endpoints, "_addresses", lambda host: [endpoints.ipaddress.ip_address(one) for one in addresses]
    )
    assert endpoints.is_secure("registry.example", RegistrySettings(certs_root=tmp_path)) == secure


def test_parts_of_blobs_are_given_up_while_the_engine_runs(tmp_path: Path) -> None:
    """What nobody has gone on with for a day goes with the next download, not only with the next start."""
    partials = Partials(tmp_path / "partial")
    old, new = (f"sha256:{letter * 64}" for letter in "ab")
    with partials.opened(old) as fd:
        os.write(fd, b"half")
    before = time.time() - KEPT_S - 60
    os.utime(partials.path(old), (before, before))
    with partials.opened(new):
        assert not partials.path(old).exists()
    assert partials.path(new).exists()
