"""Engines on another machine, reached through the `ssh` program: `ssh://[user@]host[:port][/path/of/the/socket]`.

Each connection is one ssh that runs `tare system dial-stdio` (or docker's) over there. Keys, agents, jump hosts and
known hosts are ssh's own business: nothing of them is read here. Words of an address never become options of ssh.
"""

from __future__ import annotations

import _socket

from tare.client.errors import BadHost, CannotConnect, ProtocolError
from tare.client.host import Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

CONNECT_TIMEOUT_S = 30
# Whoever has Tare over there gets Tare; a Docker host needs nothing of ours. A path in the address is a socket's.
REMOTE = "if command -v tare >/dev/null 2>&1; then exec tare{0} system dial-stdio; fi; exec docker{0} system dial-stdio"
NEVER = frozenset("\0\n\r'\"\\$`;&|<>() \t*?[]{}!#~")


class SshHost(Host):
    """An engine behind ssh. target: the machine."""

    __slots__ = ("path", "user")
    most_connections = 8  # sshd turns away more that log in at once (man 5 sshd_config, MaxStartups)

    def __init__(self, text: str, user: str, target: str, port: int, path: str) -> None:
        super().__init__(text, False, target, port)
        self.user = user
        self.path = path

    @property
    def http_name(self) -> str:
        return "api.tare.localhost"

    def command(self) -> list[str]:
        """What is run here."""
        argv = ["ssh", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}", "-T"]
        if self.user:
            argv += ["-l", self.user]
        if self.port:
            argv += ["-p", str(self.port)]
        option = f" --host unix://{self.path}" if self.path else ""
        return [*argv, "--", self.target, f"sh -c '{REMOTE.format(option)}'"]

    def connect(self, timeout_s: float | None = None) -> SshPlug:
        import subprocess

        ours, theirs = _socket_pair()
        try:
            process = subprocess.Popen(
                self.command(), stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE
            )
        except OSError as error:
            ours.close()
            raise CannotConnect(self.text, 0, f"can't run ssh: {error.strerror}") from error
        finally:
            theirs.close()
        plug = SshPlug(ours.detach(), process, self.text)
        plug.settimeout(timeout_s)
        return plug


def _socket_pair() -> tuple[_socket.socket, _socket.socket]:
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)


class SshPlug(_socket.socket):
    """Our end of one ssh's standard input and output."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes], text: str) -> None:
        super().__init__(fileno=fd)
        self.process = process
        self._text = text
        self._heard = False

    def recv(self, size: int, flags: int = 0) -> bytes:
        try:
            data = super().recv(size, flags)
        except ConnectionResetError:  # it ended without reading what we had sent
            data = b""
        if not data and not self._heard:
            raise ProtocolError(self.epitaph())
        self._heard = True
        return data

    def epitaph(self) -> str:
        """Why ssh ended before a byte came."""
        self.process.terminate()
        _, said = self.process.communicate()
        words = said.decode("utf-8", "replace").strip()
        return f"{self._text}: ssh ended with status {self.process.returncode}" + (f": {words}" if words else "")

    def close(self) -> None:
        super().close()
        if self.process.stderr is not None:
            self.process.stderr.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def parse_ssh_host(text: str, rest: str) -> SshHost:
    """`rest` is what follows ssh://."""
    authority, _, path = rest.partition("/")
    user, at, place = authority.rpartition("@")
    name, port_text = place, ""
    if place.startswith("["):
        name, _, tail = place[1:].partition("]")
        port_text = tail.removeprefix(":")
    elif ":" in place:
        name, _, port_text = place.partition(":")
    if ":" in user:
        raise BadHost(f"invalid host {text}: plain-text password is not supported")
    if at and not user:
        raise BadHost(f"invalid host {text}: the user is empty")
    if not name or name.startswith("-") or user.startswith("-") or set(rest) - set("[]") & NEVER:
        raise BadHost(f"invalid host {text}: that is no machine's name")
    if "?" in path or "#" in path:
        raise BadHost(f"invalid host {text}: nothing may follow the path")
    if port_text and not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
        raise BadHost(f"invalid host {text}: bad port {port_text!r}")
    return SshHost(text, user, name, int(port_text) if port_text else 0, f"/{path}" if path else "")
