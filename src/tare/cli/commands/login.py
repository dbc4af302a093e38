"""`tare login`: checks credentials with a registry, and keeps them where Docker's command line does."""

from __future__ import annotations

import os
import sys

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.session import describe
from tare.client.credentials import HUB_KEY, server_key, store_credentials, stored_credentials
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session

NOT_A_TERMINAL = "Error: Cannot perform an interactive login from a non TTY device"
NEW_ACCOUNT = "\n Info -> To login with a different account, run 'tare logout' followed by 'tare login'\n\n"


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    username, password = _given(session, flags)
    key = server_key(arguments[0]) if arguments else HUB_KEY
    if not username and not password:
        kept = stored_credentials(key)
        if kept and _again(session, key, kept):
            return 0
        username = kept.get("username", "") if kept else ""
        username, password = _ask(username, "")
    elif not password:
        username, password = _ask("", username)
    answer = _check(session, key, {"username": username, "password": password})
    _keep(session, key, username, password, answer.get("IdentityToken") or "")
    session.out("Login Succeeded")
    return 0


def _given(session: Session, flags: Values) -> tuple[str, str]:
    username, password = flags.text("username"), flags.text("password")
    if password:
        if flags.on("password-stdin"):
            raise CliError("conflicting options: cannot specify both --password and --password-stdin")
        session.err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if flags.on("password-stdin"):
        if not username:
            raise CliError("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    return username, password


def _again(session: Session, key: str, kept: dict[str, str]) -> bool:
    """Whether what is kept still works."""
    shown = f" [Username: {kept['username']}]" if kept.get("username") else ""
    session.err(f"Authenticating with existing credentials...{shown}")
    session.err(NEW_ACCOUNT)
    try:
        answer = _check(session, key, kept)
    except ApiError as error:
        if error.status == 401:
            session.err("Stored credentials invalid or expired")
        else:
            session.err(f"Login did not succeed, error: {describe(error)}")
        return False
    token = answer.get("IdentityToken") or ""
    if token and token != kept.get("identitytoken"):
        _keep(session, key, kept.get("username", ""), kept.get("password", ""), token)
    session.out("Login Succeeded")
    return True


def _check(session: Session, key: str, credentials: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = session.engine.post("/auth", body={**credentials, "serveraddress": key})
    return found


def _keep(session: Session, key: str, username: str, password: str, token: str) -> None:
    before = stored_credentials(key)
    if store_credentials(key, username, password, token) or before == stored_credentials(key):
        return
    from tare.client.config_file import config_directory

    path = os.path.join(config_directory(), "config.json")
    session.err(
        f"\nWARNING! Your credentials are stored unencrypted in '{path}'.\n"
        "Configure a credential helper to remove this warning. See\n"
        "https://docs.docker.com/go/credential-store/\n"
    )


def _ask(default: str, username: str) -> tuple[str, str]:
    """The name (default is shown) and the password, which isn't echoed."""
    if not os.isatty(0):
        raise CliError(NOT_A_TERMINAL)
    import getpass

    if not username:
        sys.stdout.write(f"Username ({default}): " if default else "Username: ")
        sys.stdout.flush()
        username = sys.stdin.readline().strip() or default
        if not username:
            raise CliError("Error: Non-null Username Required")
    password = getpass.getpass("Password: ")
    if not password:
        raise CliError("Error: Password Required")
    return username, password


COMMAND = Command(
    "[SERVER]",
    run,
    (
        Flag("password", "p", "string", "The password, or an access token in its place", ""),
        Flag("password-stdin", "", "bool", "Read the password from STDIN"),
        Flag("username", "u", "string", "The user's name at the registry", ""),
    ),
    most=1,
)
