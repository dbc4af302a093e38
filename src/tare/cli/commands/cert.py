"""`tare cert`: makes the certificates with which an engine can listen on TCP, and says how to use them."""

from __future__ import annotations

import os

from tare.cli.command import CliError, Command, Flag, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session

DEFAULT_DIRECTORY = "tare-certs"
DEFAULT_DAYS = 825
SERVER_TEXT = """
Start the engine with them (client certificates are required):

  tared --tlsverify --tlscacert {0}/ca.pem --tlscert {0}/server-cert.pem --tlskey {0}/server-key.pem \\
    -H unix:///run/tare/tare.sock -H tcp://0.0.0.0:2376
"""
CLIENT_TEXT = """
A client needs ca.pem, cert.pem and key.pem of {0}:

  export DOCKER_HOST=tcp://{1}:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={0}

or, as a context:

  tare context create {2} --docker host=tcp://{1}:2376,ca={0}/ca.pem,cert={0}/cert.pem,key={0}/key.pem

Who has a client's key is root on the engine's machine. Keep ca-key.pem away from both.
"""


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    directory = os.path.abspath(flags.text("output") or DEFAULT_DIRECTORY)
    client = flags.text("client")
    if client and arguments:
        raise CliError("tare: machines are named when the engine's certificate is made, not with --client")
    hosts = list(dict.fromkeys([*arguments, "localhost", "127.0.0.1", "::1"]))
    if not arguments and not client:
        hosts.insert(0, os.uname().nodename)
    made = issue(directory, hosts, client, flags["days"] or DEFAULT_DAYS)
    session.out(made)
    if not client:
        session.err(SERVER_TEXT.format(directory).rstrip())
    session.err(CLIENT_TEXT.format(made, hosts[0] if not client else "HOST", client or "remote").rstrip())
    return 0


def issue(directory: str, hosts: list[str], client: str, days: int) -> str:
    """Makes the files and returns the directory that a client needs."""
    try:
        from tare.certificates.issue import issue_all, issue_client
    except ModuleNotFoundError as error:
        if error.name != "cryptography":
            raise
        raise CliError("tare: making certificates needs one more package: pip install cryptography") from None
    from pathlib import Path

    from tare.errors import TareError

    try:
        if client:
            return str(issue_client(Path(directory), client, days))
        issue_all(Path(directory), hosts, days)
    except TareError as error:
        raise CliError(f"tare: {error}") from error
    except OSError as error:
        raise CliError(f"tare: {error.filename}: {error.strerror}") from error
    return directory


COMMAND = Command(
    "[HOST...]",
    run,
    (
        Flag("client", "", "string", "Make one more client's certificate, signed by the authority in the directory"),
        Flag("days", "", "uint16", f"How long the certificates are valid (default {DEFAULT_DAYS})"),
        Flag("output", "o", "string", f"The directory to write to (default ./{DEFAULT_DIRECTORY})"),
    ),
)
