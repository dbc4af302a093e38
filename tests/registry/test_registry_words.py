"""What goes over the wire as values: challenges, addresses, headers, bars; and a transport that waits for nobody."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_registry import Exchange, ScriptedRegistry

from tare.api.registries import progress_bar
from tare.api.registry_credentials import header_credentials
from tare.errors import InvalidArgument
from tare.registry.challenge import choose_challenge, parse_challenges
from tare.registry.endpoints import Endpoint, check_mirror, endpoints, is_secure
from tare.registry.known import Known, Place
from tare.registry.lookups import domain_of
from tare.registry.packing import pack
from tare.registry.partials import KEPT_S, Partials
from tare.registry.records import Cancelled, Credentials, Interrupted, RegistrySettings
from tare.registry.transport import Transport, same_origin
from tare.storage.database import Database

NO_CERTS = RegistrySettings(certs_root=Path("/nonexistent"))


def test_challenges() -> None:
    """Several in one header, quoted commas and quotes, odd spacing; a token is preferred to a password."""
    header = 'Basic realm="a, b" , Bearer realm="https://t/x?y=1",service="s \\"q\\"",scope="repository:a/b:pull,push"'
    basic, bearer = parse_challenges(header)
    assert (basic.scheme, basic.parameters) == ("basic", {"realm": "a, b"})
    assert bearer.parameters["service"] == 's "q"' and bearer.parameters["scope"] == "repository:a/b:pull,push"
    assert choose_challenge([basic, bearer]) == bearer
    assert choose_challenge(parse_challenges('Negotiate, NTLM x="y"')) is None


@given(st.text(max_size=300))
def test_no_header_breaks_the_parser(header: str) -> None:
    """Any text is some list of challenges."""
    assert isinstance(parse_challenges(header), list)
    assert isinstance(header_credentials({"x-registry-auth": header, "x-registry-config": header}, "x"), Credentials)


@pytest.mark.parametrize(
    ("domain", "insecure", "schemes"),
    [
        ("registry.invalid", (), ["https"]),
        ("127.0.0.1:5000", (), ["https", "http"]),
        ("localhost:5000", (), ["https", "http"]),
        ("[::1]:5000", (), ["https", "http"]),
        ("10.9.8.7:5000", (), ["https"]),
        ("10.9.8.7:5000", ("10.0.0.0/8",), ["https", "http"]),
        ("registry.invalid:5000", ("registry.invalid:5000",), ["https", "http"]),
        ("registry.invalid:5001", ("registry.invalid:5000",), ["https"]),
        ("docker.io", ("docker.io",), ["https"]),
    ],
)
def test_only_what_is_insecure_is_spoken_to_without_tls(
    domain: str, insecure: tuple[str, ...], schemes: list[str]
) -> None:
    """Loopback addresses and what the administrator named; the hub never."""
    settings = RegistrySettings(certs_root=Path("/nonexistent"), insecure=insecure)
    found = endpoints(domain, settings)
    assert [one.url.partition("://")[0] for one in found] == schemes
    assert all(one.checked for one in found) == (schemes == ["https"])


def test_an_authority_of_its_own_is_always_asked(tmp_path: Path) -> None:
    """A *.crt for a loopback registry means that somebody wants it checked."""
    (tmp_path / "localhost:5000").mkdir()
    settings = RegistrySettings(certs_root=tmp_path)
    assert not is_secure("localhost:5000", settings)
    (tmp_path / "localhost:5000" / "ca.crt").write_text("")
    assert is_secure("localhost:5000", settings)


def test_names_of_servers() -> None:
    """The hub has several names; others are their host."""
    assert {domain_of(name) for name in ("", "docker.io", "https://index.docker.io/v1/", "index.docker.io")} == {
        "docker.io"
    }
    assert domain_of("https://registry.invalid:5000/v2/") == "registry.invalid:5000"
    assert same_origin("https://a/x", "https://a:443/y") and not same_origin("https://a/", "http://a/")
    for text in ("https://user@x", "https://x/path", "x"):
        with pytest.raises(InvalidArgument):
            check_mirror(text)


def test_credentials_in_headers() -> None:
    """Both alphabets, with and without padding; the config header serves its own registry only."""

    def encoded(document: object, url: bool) -> str:
        data = json.dumps(document).encode()
        return (base64.urlsafe_b64encode(data) if url else base64.b64encode(data)).decode()

    entry = {"username": "ü>?", "password": "ÿ~"}
    for url in (True, False):
        text = encoded(entry, url)
        for header in (text, text.rstrip("=")):
            found = header_credentials({"x-registry-auth": header}, "a")
            assert (found.username, found.password) == ("ü>?", "ÿ~")
    pair = base64.b64encode(b"me:pass:word").decode()
    config = encoded({"b.invalid:1": {"auth": pair}}, True)
    headers = {"x-registry-auth": "e30=", "x-registry-config": config}
    assert header_credentials(headers, "a").empty
    assert header_credentials(headers, "b.invalid:1").password == "pass:word"
    assert "word" not in repr(header_credentials(headers, "b.invalid:1"))


def test_bars() -> None:
    """As Docker draws them."""
    assert progress_bar(121, 121) == "[" + "=" * 50 + ">]     121B/121B"
    assert progress_bar(1_500_000, 3_000_000) == "[" + "=" * 25 + ">" + " " * 25 + "]    1.5MB/3MB"
    assert progress_bar(512, 5) == "[" + "=" * 50 + ">]     512B"


def test_packing_is_the_same_each_time(tmp_path: Path) -> None:
    """However the chunks are cut, and whenever."""
    data = os.urandom(1000) * 300
    found = []
    for size in (1, 7):
        with (tmp_path / str(size)).open("wb") as file:
            chunks = [data[at : at + 1000 * size] for at in range(0, len(data), 1000 * size)]
            found.append(pack(chunks, file.fileno(), lambda: None))
    assert found[0] == found[1]
    assert (tmp_path / "1").read_bytes() == (tmp_path / "7").read_bytes()


def test_what_nobody_goes_on_with_expires(tmp_path: Path) -> None:
    """A day after the last byte."""
    partials = Partials(tmp_path / "partial")
    old, young = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    for digest in (old, young):
        with partials.opened(digest) as fd:
            os.write(fd, b"x")
    past = time.time() - KEPT_S - 1
    os.utime(partials.path(old), (past, past))
    Partials(tmp_path / "partial")
    assert not partials.path(old).exists() and partials.path(young).exists()
    with pytest.raises(InvalidArgument):
        partials.path("sha256:../x")


def test_what_is_known_goes_with_what_it_is_about(tmp_path: Path) -> None:
    """Places of layers and manifests of images that are gone are forgotten; of one layer only the latest are kept."""
    database = Database(tmp_path / "db")
    known = Known(database)
    for number in range(60):
        known.saw_blob(
            Place(diff_id="d", digest=f"b{number}", size_bytes=1, media_type="t", domain="r", path=f"p{number}")
        )
    assert len(known.places("d")) == 50 and known.places("d")[0].digest == "b59"
    known.saw_manifest("i", "m", b"{}")
    known.forget_gone({"i"}, set())
    assert known.places("d") == [] and known.manifests("i") == [b"{}"]
    known.forget_gone(set(), set())
    assert known.manifests("i") == []
    database.close()


def test_a_head_that_trickles_has_its_time(scripted: ScriptedRegistry) -> None:
    """A byte now and then doesn't keep a request alive; nor does anything once it is called off."""

    def trickle(exchange: Exchange) -> None:
        try:
            while not exchange.registry.stopping.wait(0.05):
                exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX: y\r\n"[:1])
        except OSError:
            pass

    scripted.script["/"] = trickle
    endpoint = Endpoint(f"http://{scripted.host}", scripted.host, checked=False)
    transport = Transport(NO_CERTS)
    begun = time.monotonic()
    with pytest.raises(Interrupted, match="takes too long to answer"):
        transport.request(endpoint, "GET", f"http://{scripted.host}/", timeout_s=0.4)
    assert time.monotonic() - begun < 40, "another limit ended it"
    caught: list[Exception] = []

    def ask() -> None:
        try:
            transport.request(endpoint, "GET", f"http://{scripted.host}/", timeout_s=60)
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while len(scripted.heard) < 2 and thread.is_alive():
        thread.join(0.01)
    transport.cancel()
    thread.join(30)
    assert not thread.is_alive() and isinstance(caught[0], Cancelled)
    transport.close()
