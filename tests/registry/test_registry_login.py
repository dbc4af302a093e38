"""Credentials: passwords, tokens, TLS, the user's config.json and helper programs, with Docker's client and ours."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from scripted_registry import Exchange, ScriptedRegistry, build, tar_of
from test_pull_and_push import layer_tar, statuses

from support.engine import Engine, Result, clean_environment, run
from support.registry import PASSWORD, USER, Registry
from support.tared import Tared
from support.terminal import Terminal

RegistryOf = Callable[..., Registry]
TARE = [sys.executable, "-m", "tare.cli.main"]
HELPER = """#!/bin/sh
# docker-credential-test: keeps what it is given in files beside itself
here=$(dirname "$0")/kept
mkdir -p "$here"
case $1 in
store) cat >"$here/new"
    mv "$here/new" "$here/$(sed 's/.*"ServerURL": *"\\([^"]*\\)".*/\\1/' "$here/new" | tr /: __)" ;;
get) name=$(cat | tr /: __); [ -e "$here/$name" ] || { echo 'credentials not found in native keychain'; exit 1; }
    cat "$here/$name" ;;
erase) rm -f "$here/$(cat | tr /: __)" ;;
esac
"""


@pytest.fixture(params=["docker", "tare"])
def client(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> Callable[..., Result]:
    """A command line with a config directory of its own, and a credential helper on its PATH."""
    if request.param == "docker" and shutil.which("docker") is None:
        pytest.skip("client not installed: docker")
    program = [engine.client_program] if request.param == "docker" else TARE
    helper = tmp_path / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    environment = {
        "DOCKER_CONFIG": str(tmp_path / "config"),
        "PATH": f"{tmp_path}:/usr/local/bin:/usr/bin:/bin:/sbin:/usr/sbin",
    }

    def call(*args: str, input: str | None = None) -> Result:
        argv = [*program, "-H", f"unix://{engine.socket}", *args]
        return run(argv, input=input, check=False, env=environment)

    return call


def test_login_pull_push_logout(
    client: Callable[..., Result], engine: Engine, registry_of: RegistryOf, tmp_path: Path
) -> None:
    """Without credentials nothing goes; with them in config.json it does, as long as they are there."""
    registry = registry_of(engine, passwords=True)
    name = registry.reference(f"{engine.unique()}/x")
    engine.import_image(f"{name}:1", layer_tar(engine.unique()))
    refused = client("push", f"{name}:1")
    assert refused.code == 1 and "no basic auth credentials" in refused.err
    wrong = client("login", "-u", USER, "-p", "wrong", registry.host)
    assert wrong.code == 1
    assert f"login attempt to http://{registry.host}/v2/ failed with status: 401 Unauthorized" in wrong.err
    assert not (tmp_path / "config" / "config.json").exists()
    done = client("login", "-u", USER, "--password-stdin", registry.host, input=PASSWORD)
    assert done.code == 0 and done.out.endswith("Login Succeeded\n"), done
    kept = json.loads((tmp_path / "config" / "config.json").read_text())
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert kept["auths"] == {registry.host: {"auth": pair}}
    assert (tmp_path / "config" / "config.json").stat().st_mode & 0o777 == 0o600
    again = client("login", registry.host)
    assert again.code == 0 and f"Authenticating with existing credentials... [Username: {USER}]" in again.err
    pushed = client("push", f"{name}:1")
    assert pushed.code == 0, pushed
    engine.api.request("DELETE", f"/images/{name}:1", query={"trash": "0"}, check=False)
    assert client("pull", "-q", f"{name}:1").out == f"{name}:1\n"
    assert client("logout", registry.host).out == f"Removing login credentials for {registry.host}\n"
    assert json.loads((tmp_path / "config" / "config.json").read_text())["auths"] == {}
    refused = client("pull", f"{name}:2")
    assert refused.code == 1 and refused.err.rstrip().endswith("no basic auth credentials")
    engine.api.request("DELETE", f"/images/{name}:1", check=False)


def test_a_helper_keeps_the_password(
    client: Callable[..., Result], engine: Engine, registry_of: RegistryOf, tmp_path: Path
) -> None:
    """credsStore and credHelpers: config.json has no secret, pull asks the helper, logout makes it forget."""
    registry = registry_of(engine, passwords=True)
    config = tmp_path / "config" / "config.json"
    config.parent.mkdir(mode=0o700)
    config.write_text(json.dumps({"credsStore": "test", "detachKeys": "ctrl-a", "HttpHeaders": {"X-A": "b"}}))
    name = registry.reference(f"{engine.unique()}/x")
    engine.import_image(f"{name}:1", layer_tar(engine.unique()))
    done = client("login", "-u", USER, "--password-stdin", registry.host, input=PASSWORD)
    assert done.code == 0 and "unencrypted" not in done.err, done
    text = config.read_text()
    assert PASSWORD not in text and base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode() not in text
    assert json.loads(text)["auths"] == {registry.host: {}} and json.loads(text)["detachKeys"] == "ctrl-a"
    file = tmp_path / "kept" / registry.host.replace(":", "_")
    assert json.loads(file.read_text()) == {"ServerURL": registry.host, "Username": USER, "Secret": PASSWORD}
    assert client("push", f"{name}:1").code == 0
    assert client("logout", registry.host).code == 0
    assert not file.exists()
    assert "no basic auth credentials" in client("pull", f"{name}:1").err
    config.write_text(json.dumps({"credHelpers": {registry.host: "test"}}))
    assert client("login", "-u", USER, "-p", PASSWORD, registry.host).code == 0
    assert client("pull", "-q", f"{name}:1").code == 0
    engine.api.request("DELETE", f"/images/{name}:1", check=False)


def test_the_password_is_asked_for_without_echo(tare: Engine, tmp_path: Path) -> None:
    """On a terminal name and password are asked for, and the password is never seen."""
    registry = Registry(tmp_path / "registry", passwords=True).start()
    try:
        environment = clean_environment({"DOCKER_CONFIG": str(tmp_path / "config")})
        argv = [*TARE, "-H", f"unix://{tare.socket}", "login", registry.host]
        with Terminal(argv, env=environment) as screen:
            screen.expect(b"Username: ")
            screen.send(f"{USER}\n".encode())
            screen.expect(b"Password: ")
            screen.send(f"{PASSWORD}\n".encode())
            screen.expect(b"Login Succeeded")
            assert screen.wait() == 0
            assert PASSWORD.encode() not in screen.seen
    finally:
        registry.stop()


def test_a_pull_on_a_terminal_shows_bars(tare: Engine, scripted: ScriptedRegistry) -> None:
    """One line a layer, which changes in place; in a pipe there are whole lines only."""
    scripted.put_image("bars", "1", build(tar_of(a=b"bars" * 100_000)))
    argv = [*TARE, "-H", f"unix://{tare.socket}", "pull", f"{scripted.host}/bars:1"]
    with Terminal(argv, env=clean_environment()) as screen:
        screen.expect(b": Pulling fs layer")
        screen.expect(b"\x1b[1A")
        assert b"Downloading [" in screen.expect(b"Pull complete")
        screen.expect(b"Status: Downloaded newer image")
        assert screen.wait() == 0
    tare.api.request("DELETE", f"/images/{scripted.host}/bars:1", query={"trash": "0"})
    lines = run(argv).out.splitlines()
    assert [line.partition(": ")[2] for line in lines[1:5]] == [
        "Pulling fs layer",
        "Verifying Checksum",
        "Download complete",
        "Pull complete",
    ]
    tare.api.request("DELETE", f"/images/{scripted.host}/bars:1", query={"trash": "0"})


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class TokenService:
    """Guards a scripted registry with tokens that name their scopes."""

    def __init__(self, registry: ScriptedRegistry) -> None:
        self.registry = registry
        self.realm = f"http://{registry.host}/token"
        self.forms: list[dict[str, list[str]]] = []
        registry.script["/token"] = self.give
        registry.script["/v2/"] = self.guard

    def give(self, exchange: Exchange) -> None:
        query = self.registry.heard[-1].query
        if exchange.command == "POST":
            form = parse_qs(exchange.body.decode())
            self.forms.append(form)
            good, query = form.get("refresh_token") == ["kept-token"], form
        else:
            wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            good = exchange.headers.get("Authorization") == wanted
        if not good:
            return exchange.refuse(401, "UNAUTHORIZED", "incorrect username or password")
        scopes = " ".join(query.get("scope", []))
        body = json.dumps(
            {"token": f"for:{scopes.replace(' ', '+')}", "refresh_token": "kept-token", "expires_in": 300}
        )
        exchange.answer(200, body.encode(), Content_Type="application/json")

    def guard(self, exchange: Exchange) -> None:
        path = exchange.path.partition("?")[0].removeprefix("/v2/")
        name = path.rpartition("/manifests/")[0] or path.rpartition("/blobs/")[0]
        scope = f"repository:{name}:pull" if name else ""
        said = exchange.headers.get("Authorization", "")
        if said.startswith("Bearer for:") and scope in said:
            return self.registry.serve(exchange)
        asked = f'Bearer realm="{self.realm}",service="tests"' + (f',scope="{scope}"' if scope else "")
        exchange.refuse(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=asked)


def pull(engine: Engine, name: str, tag: str, **credentials: str) -> tuple[int, str]:
    """(status, the last thing said) of a pull."""
    header = base64.urlsafe_b64encode(json.dumps(credentials).encode()).decode()
    answer = engine.api.request(
        "POST",
        "/images/create",
        query={"fromImage": name, "tag": tag},
        headers={"X-Registry-Auth": header},
        check=False,
    )
    if answer.status != 200:
        return answer.status, answer.message
    last = json.loads(answer.body.splitlines()[-1])
    return answer.status, last.get("error") or last["status"]


def test_tokens(tare: Engine, scripted: ScriptedRegistry, tmp_path: Path) -> None:
    """A token for the scope that is wanted, by password or by refresh token; login hands out the refresh token."""
    service = TokenService(scripted)
    scripted.put_image("a/b", "1", build(tar_of(a=b"1")))
    name = f"{scripted.host}/a/b"
    status, text = pull(tare, name, "1")
    assert (status, text) == (
        404,
        f"pull access denied for {name}, repository does not exist or may require 'docker login':"
        " unauthorized: incorrect username or password",
    )
    assert pull(tare, name, "1", username=USER, password=PASSWORD)[1].startswith("Status: Downloaded newer image")
    asked = scripted.asked("/token")[-1].query
    assert (asked["service"], asked["scope"], asked["account"]) == (["tests"], ["repository:a/b:pull"], [USER])
    tare.api.request("DELETE", f"/images/{name}:1", query={"trash": "0"})
    assert pull(tare, name, "1", identitytoken="kept-token")[1].startswith("Status: Downloaded newer image")
    assert service.forms[-1]["grant_type"] == ["refresh_token"] and service.forms[-1]["scope"] == [
        "repository:a/b:pull"
    ]
    tare.api.request("DELETE", f"/images/{name}:1", query={"trash": "0"})

    environment = {"DOCKER_CONFIG": str(tmp_path / "config")}
    argv = [*TARE, "-H", f"unix://{tare.socket}", "login", "-u", USER, "-p", PASSWORD, scripted.host]
    assert run(argv, env=environment).out.endswith("Login Succeeded\n")
    kept = json.loads((tmp_path / "config" / "config.json").read_text())["auths"][scripted.host]
    assert kept["identitytoken"] == "kept-token" and base64.b64decode(kept["auth"]).decode() == f"{USER}:"


def test_nothing_secret_goes_elsewhere(tare: Engine, scripted: ScriptedRegistry) -> None:
    """A redirect to another host gets no Authorization (CVE-2020-15157)."""
    elsewhere = ScriptedRegistry()
    try:
        service = TokenService(scripted)
        built = build(tar_of(a=b"elsewhere"))
        scripted.put_image("a/b", "1", built)
        layer = built.manifest["layers"][0]["digest"]
        elsewhere.blobs |= built.blobs
        where = f"http://{elsewhere.host}/v2/other/blobs/{layer}"

        def redirect(exchange: Exchange) -> None:
            exchange.answer(307, Location=where)

        scripted.script = {f"/blobs/{layer}": redirect, **scripted.script}
        assert pull(tare, f"{scripted.host}/a/b", "1", username=USER, password=PASSWORD)[1].startswith("Status: Down")
        assert [set(one.headers) & {"authorization", "cookie"} for one in elsewhere.asked("/blobs/")] == [set()]
        assert service.realm
        tare.api.request("DELETE", f"/images/{scripted.host}/a/b:1", query={"trash": "0"})
    finally:
        elsewhere.stop()


# ── TLS and mirrors ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, server-cert.pem, server-key.pem for localhost."""
    directory = tmp_path_factory.mktemp("registry-tls") / "made"
    run([*TARE, "cert", "-o", str(directory), "localhost"])
    return directory


@pytest.fixture
def tls_registry(certificates: Path, tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path / "tls", certificates=certificates, passwords=True)
    try:
        yield made.start()
    finally:
        made.stop()


def test_tls_by_certs_directory(daemon: Tared, tls_registry: Registry, certificates: Path, tmp_path: Path) -> None:
    """With its authority in --registry-certs a registry is checked; with another's it is refused, loopback or not."""
    certs = tmp_path / "certs.d" / tls_registry.host
    certs.mkdir(parents=True)
    shutil.copy(certificates / "ca.pem", certs / "ca.crt")
    daemon.args += ["--registry-certs", str(certs.parent)]
    engine = daemon.start().engine
    name = tls_registry.reference("tls/x")
    engine.import_image(f"{name}:1", layer_tar("tls"))
    header = base64.urlsafe_b64encode(json.dumps({"username": USER, "password": PASSWORD}).encode()).decode()
    answer = engine.api.request("POST", f"/images/{name}/push", query={"tag": "1"}, headers={"X-Registry-Auth": header})
    assert "Pushed" in statuses([json.loads(line) for line in answer.body.splitlines()])
    run([*TARE, "cert", "-o", str(tmp_path / "other"), "localhost"])
    shutil.copy(tmp_path / "other" / "ca.pem", certs / "ca.crt")
    status, text = pull(engine, name, "1", username=USER, password=PASSWORD)
    assert status == 500 and "x509: " in text, text


def test_mirrors_come_first_and_get_no_credentials(daemon: Tared, scripted: ScriptedRegistry) -> None:
    """Images of the hub, or of another registry, are pulled from --registry-mirror; no password is told to it."""
    scripted.put_image("library/box", "1", build(tar_of(a=b"mirror")))
    scripted.put_image("team/app", "1", build(tar_of(a=b"other")))
    daemon.args += ["--registry-mirror", f"http://{scripted.host}"]
    daemon.args += ["--registry-mirror", f"registry.invalid=http://{scripted.host}"]
    engine = daemon.start().engine
    assert pull(engine, "box", "1", username=USER, password=PASSWORD) == (
        200,
        "Status: Downloaded newer image for box:1",
    )
    status, text = pull(engine, "registry.invalid/team/app", "1", username=USER, password=PASSWORD)
    assert (status, text) == (200, "Status: Downloaded newer image for registry.invalid/team/app:1")
    assert not [one for one in scripted.heard if "authorization" in one.headers]
    assert engine.api.request("GET", "/images/box:1/json").json["RepoDigests"][0].startswith("box@sha256:")


def test_a_proxy_is_honoured(daemon: Tared, scripted: ScriptedRegistry) -> None:
    """HTTP_PROXY of tared's environment stands between it and registries; NO_PROXY and loopback go past it."""
    scripted.put_image("team/app", "1", build(tar_of(a=b"proxy")))
    host = "registry.invalid:5000"
    daemon.args += ["--insecure-registry", host]
    daemon.env |= {"HTTP_PROXY": f"http://{scripted.host}", "http_proxy": f"http://{scripted.host}"}
    engine = daemon.start().engine
    assert pull(engine, f"{host}/team/app", "1") == (200, f"Status: Downloaded newer image for {host}/team/app:1")
    assert scripted.asked("/v2/team/app/manifests/1")[-1].headers["host"] == host
    daemon.env |= {"NO_PROXY": ".invalid", "no_proxy": ".invalid"}
    daemon.restart()
    status, text = pull(engine, f"{host}/team/app", "1")
    assert status == 500 and "no such host" in text, text


def test_bad_options_are_refused(daemon: Tared) -> None:
    """A mirror with a path, an insecure registry with a scheme: tared says so and doesn't start."""
    for option, value, text in (
        ("--registry-mirror", "ftp://x", 'invalid mirror: unsupported scheme "ftp"'),
        ("--registry-mirror", "a.invalid=https://x/y", "invalid mirror: path, query, or fragment"),
        ("--insecure-registry", "http://x", "insecure registry http://x should not contain '://'"),
    ):
        done = run([*daemon.argv(), option, value], check=False, timeout=20)
        assert done.code != 0 and text in done.err, done
