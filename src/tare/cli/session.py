"""What a running command has at hand: its name as typed, the engine, and how to say things.

One per process. Connects only when a command first asks for the engine.
"""

from __future__ import annotations

import os
import sys

from tare.cli.command import CliError
from tare.client.endpoint import choose_endpoint
from tare.client.engine import Engine
from tare.client.errors import ApiError, BadHost, CannotConnect, ClientError
from tare.client.host import Host, default_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterable
    from typing import TextIO

    from tare.client.endpoint import TlsWish

ENOENT, EACCES, ECONNREFUSED = 2, 13, 111


class AutostartHost(Host):
    """The default address: who finds nobody there starts the engine."""

    __slots__ = ()

    def connect(self, timeout_s: float | None = None) -> _socket.socket:
        try:
            return super().connect(timeout_s)
        except CannotConnect as error:
            if error.errno not in (ENOENT, ECONNREFUSED):
                raise
        from tare.cli.autostart import start_engine

        return start_engine(super().connect, self.target)


def choose_host(flag: str | None, context: str | None = None, tls: TlsWish | None = None) -> Host:
    """The engine's address as flags, environment and contexts say, or the default socket (started if need be)."""
    try:
        chosen = choose_endpoint(flag, context, tls)
    except BadHost:
        raise
    except ClientError as error:  # a context that isn't there
        raise CliError(f"Failed to initialize: {error}") from error
    if chosen is not None:
        return chosen
    host = default_host()
    if os.environ.get("TARE_AUTOSTART", "1") == "0":
        return host
    return AutostartHost(host.text, host.unix, host.target)


def describe(error: Exception) -> str:
    """The sentence about an error that users of Docker know."""
    if isinstance(error, ApiError):
        return f"Error response from daemon: {error.message}"
    if isinstance(error, CannotConnect):
        if error.errno == EACCES:
            return f"permission denied while trying to connect to the Tare daemon socket at {error.host}"
        reason = "" if error.errno in (ENOENT, ECONNREFUSED) else f" ({error.reason})"
        return f"Cannot connect to the Tare daemon at {error.host}. Is tared running?{reason}"
    return str(error)


def shown(text: str, stream: TextIO) -> str:
    """Text that may have foreign words in it, for one of our streams."""
    if not stream.isatty():
        return text
    from tare.cli.visible import visible  # not loaded for pipes: scripts start `tare` often

    return visible(text)


class Session:
    """path: the command as typed ("ps", "container ls"). host, context, tls: what the global flags said."""

    def __init__(self, host: str | None, context: str | None = None, tls: TlsWish | None = None) -> None:
        self.path = ""
        self.headers: dict[str, str] = {}
        self.host = host
        self.context = context
        self.tls = tls
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            version = os.environ.get("DOCKER_API_VERSION")
            self._engine = Engine(choose_host(self.host, self.context, self.tls), version or None, self.headers)
        return self._engine

    def out(self, text: str) -> None:
        """One line, or several, on stdout; nothing in it acts on a terminal."""
        sys.stdout.write(shown(text, sys.stdout) + "\n")

    def out_as_is(self, text: str) -> None:
        """The same, where the user asked for what acts on a terminal."""
        sys.stdout.write(text + "\n")

    def err(self, text: str) -> None:
        sys.stdout.flush()
        sys.stderr.write(shown(text, sys.stderr) + "\n")
        sys.stderr.flush()

    def require(self, version: str, what: str) -> None:
        """Refuse what the engine's API is too old for, as Docker's command line does."""
        if not self.engine.at_least(version):
            raise CliError(
                f"{what} requires API version {version}, but the engine API version is {self.engine.version}"
            )

    def for_each(self, names: Iterable[str], act: Callable[[str], object]) -> int:
        """Do it to each, print the names that worked, then the errors of those that didn't."""
        failures = []
        for name in names:
            try:
                act(name)
            except ClientError as error:
                if isinstance(error, CannotConnect):
                    raise
                failures.append(describe(error))
            else:
                self.out(name)
        for failure in failures:
            self.err(failure)
        return 1 if failures else 0

    def for_all(
        self, method: str, names: list[str], path: Callable[[str], str], query: dict[str, str | list[str]] | None = None
    ) -> int:
        """The same call on all of them at once; prints as `for_each`."""
        failures = []
        outcomes = self.engine.call_all(method, [(path(name), query or {}) for name in names])
        for name, outcome in zip(names, outcomes, strict=True):
            if outcome is None:
                self.out(name)
            else:
                failures.append(describe(outcome))
        for failure in failures:
            self.err(failure)
        return 1 if failures else 0

    def confirm(self, question: str) -> bool:
        """A yes/no question; anything but y or yes, and no terminal to ask on, is no."""
        sys.stdout.write(f"{question} [y/N] ")
        sys.stdout.flush()
        answer = sys.stdin.readline().strip().lower()
        return answer in ("y", "yes")


def container_path(name: str, verb: str = "") -> str:
    """`/containers/NAME/verb` with the name made safe for a path."""
    from tare.client.engine import quote

    if not name.strip():
        raise CliError("invalid container name or ID: value is empty")
    return f"/containers/{quote(name)}{'/' + verb if verb else ''}"


def image_path(name: str, verb: str = "") -> str:
    from tare.client.engine import quote

    if not name.strip():
        raise CliError("invalid image name or ID: value is empty")
    return f"/images/{quote(name, '/:@')}{'/' + verb if verb else ''}"
