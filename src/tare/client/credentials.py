"""Registry credentials in the user's config.json, shared with Docker's command line, or in the helpers that it names.

Must never print a secret, give one to another registry than it was stored for, or drop a key that it doesn't know.

    {"auths": {SERVER: {"auth": base64 of user:password, "identitytoken": …}}}
    {"credsStore": NAME, "credHelpers": {SERVER: NAME}}    the program docker-credential-NAME keeps them

A helper is run with one of get, store, erase, list as its argument and gets its input on stdin: for get and erase the
server, for store {"ServerURL", "Username", "Secret"}; get answers such a document. The user name <token> marks an
identity token.
"""

from __future__ import annotations

from tare.client.config_file import read_config, write_config_key
from tare.client.errors import CredentialsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB_KEY = "https://index.docker.io/v1/"
TOKEN_USER = "<token>"
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
_NOT_FOUND = "credentials not found in native keychain"


def server_key(registry: str) -> str:
    """Under what name a registry's credentials are kept: its host and port, the hub's under an old address."""
    host = registry.partition("://")[2] or registry
    host = host.partition("/")[0]
    return HUB_KEY if not host or host in _HUB_NAMES else host


def registry_auth(full_name: str) -> dict[str, str]:
    """The header for pulling or pushing `docker.io/library/x`; empty credentials if none are stored."""
    found = stored_credentials(server_key(full_name.partition("/")[0]))
    if found:
        found["serveraddress"] = full_name.partition("/")[0]
    return {"X-Registry-Auth": encode_header(found)}


def encode_header(credentials: dict[str, str]) -> str:
    """Credentials as the engine wants them in a header."""
    import binascii

    from tare.client.jsontext import format_json

    raw = binascii.b2a_base64(format_json(credentials).encode(), newline=False).decode()
    return raw.replace("+", "-").replace("/", "_")


def stored_credentials(key: str) -> dict[str, str]:
    """username and password, or identitytoken, kept for a server; nothing if there are none."""
    config = read_config()
    helper = _helper_of(config, key)
    entry = _plain_entry(config, key)
    if helper:
        kept = _from_helper(helper, key)
        return kept if kept else _decoded(entry)
    return _decoded(entry)


def store_credentials(key: str, username: str, password: str, identity_token: str) -> str:
    """Keeps them as config.json says; returns the name of the helper that has them, "" for config.json itself."""
    config = read_config()
    helper = _helper_of(config, key)
    entry: dict[str, Any] = {}
    if helper:
        from tare.client.jsontext import format_json

        secret = {
            "ServerURL": key,
            "Username": TOKEN_USER if identity_token else username,
            "Secret": identity_token or password,
        }
        _run_helper(helper, "store", format_json(secret))
    elif identity_token:
        entry = {"auth": _pair(username, ""), "identitytoken": identity_token}
    else:
        entry = {"auth": _pair(username, password)}
    _write_entry(config, key, entry)
    return helper


def erase_credentials(key: str) -> None:
    """Forgets them, in the helper too."""
    config = read_config()
    helper = _helper_of(config, key)
    if helper:
        try:
            _run_helper(helper, "erase", key)
        except CredentialsError as error:
            if _NOT_FOUND not in str(error):
                raise
    auths = config.get("auths")
    names = [name for name in auths if server_key(name) == key] if isinstance(auths, dict) else []
    if isinstance(auths, dict) and names:
        write_config_key("auths", {name: entry for name, entry in auths.items() if name not in names})


def _write_entry(config: dict[str, Any], key: str, entry: dict[str, Any]) -> None:
    auths = config.get("auths")
    kept = {name: value for name, value in auths.items() if server_key(name) != key} if isinstance(auths, dict) else {}
    try:
        write_config_key("auths", {**kept, key: entry})
    except (OSError, ValueError) as error:
        raise CredentialsError(f"Error saving credentials: {error}") from error


def _helper_of(config: dict[str, Any], key: str) -> str:
    helpers = config.get("credHelpers")
    name = helpers.get(key) if isinstance(helpers, dict) else None
    name = name or config.get("credsStore") or ""
    if not isinstance(name, str) or "/" in name or name.startswith("-"):
        raise CredentialsError(f"config.json names no proper credential helper: {name!r}")
    return name


def _plain_entry(config: dict[str, Any], key: str) -> dict[str, Any]:
    """The entry of auths: by its name, else by the host in an older one (https://host/v1/)."""
    auths = config.get("auths")
    if not isinstance(auths, dict):
        return {}
    for name in [key, *(other for other in auths if server_key(other) == key)]:
        if isinstance(auths.get(name), dict) and auths[name]:
            found: dict[str, Any] = auths[name]
            return found
    return {}


def _decoded(entry: dict[str, Any]) -> dict[str, str]:
    import binascii

    found: dict[str, str] = {}
    if isinstance(entry.get("auth"), str) and entry["auth"]:
        try:
            user, _, password = binascii.a2b_base64(entry["auth"]).decode("utf-8", "replace").partition(":")
        except binascii.Error:
            raise CredentialsError("config.json has credentials that aren't base64") from None
        found = {"username": user, "password": password.rstrip("\0")}
    elif entry.get("username"):
        found = {"username": str(entry["username"]), "password": str(entry.get("password") or "")}
    for name in ("identitytoken", "registrytoken"):
        if entry.get(name):
            found[name] = str(entry[name])
    return found


def _pair(username: str, password: str) -> str:
    import binascii

    return binascii.b2a_base64(f"{username}:{password}".encode(), newline=False).decode()


def _from_helper(helper: str, key: str) -> dict[str, str]:
    from tare.client.jsontext import parse_json

    try:
        answer = parse_json(_run_helper(helper, "get", key))
    except ValueError as error:
        raise CredentialsError(f"docker-credential-{helper}: {error}") from None
    except CredentialsError as error:
        if _NOT_FOUND in str(error):
            return {}
        raise
    if not isinstance(answer, dict) or not answer.get("Secret"):
        return {}
    user, secret = str(answer.get("Username") or ""), str(answer["Secret"])
    return {"identitytoken": secret} if user == TOKEN_USER else {"username": user, "password": secret}


def _run_helper(helper: str, verb: str, text: str) -> bytes:
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, verb], input=text.encode(), stdout=subprocess.PIPE, check=False)
    except FileNotFoundError:
        raise CredentialsError(
            f'error getting credentials - err: exec: "{program}": executable file not found in $PATH, out: ``'
        ) from None
    except OSError as error:
        raise CredentialsError(f"error getting credentials - err: {program}: {error.strerror}, out: ``") from None
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace").strip()
        what = {"get": "getting", "store": "storing", "erase": "erasing"}[verb]
        raise CredentialsError(f"error {what} credentials - err: exit status {done.returncode}, out: `{said}`")
    return done.stdout
