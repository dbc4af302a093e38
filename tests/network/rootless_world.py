"""An unprivileged user's engine beside an outside machine: the host, the user's namespaces, their uplink.

outside 198.51.100.2 ── wan0, 198.51.100.1 the host (this thread) ── uplink0, 10.0.2.100 the engine's ── containers
"""

from __future__ import annotations

import ipaddress
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import dnslib
from network_world import OUTSIDE, Outside, client_socket, listen
from rootless_host import NOBODY

from support.deadline import PATIENCE, wait_until
from tare.kernel import netlink_route as route
from tare.kernel.netlink_route import RouteSocket

T = TypeVar("T")
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
_PATIENCE_S = 15.0 * PATIENCE


def missing(program: str) -> str:
    """Why this machine can't show it; "" if it can."""
    if subprocess.run(["which", program], stdout=subprocess.DEVNULL).returncode:
        return f"client not installed: {program}"
    if not Path("/dev/net/tun").exists():
        return "the kernel has no tun devices"
    tried = subprocess.run(
        ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "unshare", "-Urn", "true"],
        capture_output=True,
        text=True,
    )
    return f"an ordinary user can't make namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


class Refused(Exception):
    """The engine's error."""


def begin(program: str) -> subprocess.Popen[str]:
    """Starts the user's processes."""
    script = Path(__file__).with_name("rootless_host.py")
    words = [sys.executable, str(script), program]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def processes_here() -> set[int]:
    """Whoever is in this thread's network namespace."""
    ours = os.stat("/proc/thread-self/ns/net")
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            theirs = entry.name.isdigit() and os.stat(entry / "ns/net")
        except OSError:
            continue
        if theirs and theirs.st_ino == ours.st_ino:
            found.add(int(entry.name))
    return found


class Rootless:
    """The user's processes. process: the keeper, which is the engine's parent."""

    def __init__(self, program: str) -> None:
        self.process = begin(program)
        assert self._answer() == program
        self._asked = 0
        self.engine_pid = next(pid for pid in self.children() if _title(pid).startswith("python"))

    def ask(self, verb: str, *arguments: object) -> object:
        """What one of rootless_host's verbs answers. Raises Refused."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb} {' '.join(map(str, arguments))}\n")
        self.process.stdin.flush()
        return self._answer()

    def attach(self, network: str = "bridge", *ports: str) -> tuple[str, str]:
        """A container with a server at port 80, TCP and UDP: its name and address."""
        self._asked += 1
        name = f"box{self._asked}"
        return name, str(self.ask("attach", name, network, *ports))

    def dial(self, name: str, protocol: str, address: str, port: int) -> object:
        """What a container is told at an address, as soon as somebody answers there."""

        def told_inside() -> object:
            try:
                return self.ask("dial", name, protocol, address, port, 2)
            except Refused:
                return None

        return eventually(told_inside)

    def children(self) -> list[int]:
        """The keeper's: the engine, and the program while it runs."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def program_pid(self) -> int:
        """Waits for one that runs."""
        return eventually(lambda: next((pid for pid in self.children() if pid != self.engine_pid), 0))

    @contextmanager
    def without_program(self, program: str) -> Iterator[None]:
        """While it is entered, the keeper finds nothing that it could run in the program's place."""
        path = shutil.which(program)
        assert path is not None
        there = ["nsenter", "-t", str(self.process.pid), "-m"]
        subprocess.run([*there, "mount", "--bind", "/dev/null", path], check=True, timeout=60)
        try:
            yield
        finally:
            subprocess.run([*there, "umount", path], check=True, timeout=60)

    def _answer(self) -> object:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], _PATIENCE_S)
        line = self.process.stdout.readline() if ready else "! it says nothing"
        if not line or line.startswith("!"):
            raise Refused(line.strip())
        return json.loads(line)

    def close(self) -> None:
        """Ends the engine in an orderly way, and sees to it that all the rest ends by itself."""
        assert self.process.stdin is not None and self.process.stdout is not None
        pids = [self.process.pid, *self.children()]
        with self.process.stdin, self.process.stdout:
            pass
        self.process.wait(_PATIENCE_S)
        for pid in pids:
            eventually(lambda pid=pid: is_gone(pid))  # type: ignore[misc]

    def kill(self, pid: int) -> None:
        """As `kill -9`."""
        os.kill(pid, signal.SIGKILL)


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def eventually(look: Callable[[], T]) -> T:
    """What `look` says as soon as that is true."""
    return wait_until(look, "what the test waits for", 15)


@contextmanager
def machine() -> Iterator[Outside]:
    """The outside machine, which is also the host's router."""
    world = Outside()
    try:
        with RouteSocket() as sock:
            wan = sock.link("wan0")
            assert wan is not None
            near = ipaddress.ip_interface("172.17.9.1/24")  # in what would be the first subnet for a network
            sock.execute((route.new_address(wan.ifindex, near),))
            sock.execute((route.new_default_route(ipaddress.ip_address(OUTSIDE)),))
        yield world
    finally:
        world.close()


def told(namespace_fd: int | None, kind: int, address: str, port: int, *, speaks: bool = True) -> str:
    """By which address a server of ours sees us; "" if there is none. speaks: we say something first."""
    try:
        with client_socket(namespace_fd, kind, 0.7, address) as client:
            client.connect((address, port))
            if speaks:
                client.send(b"?")
            return client.recv(64).decode()
    except OSError:
        return ""


def reached(namespace_fd: int | None, kind: int, address: str, port: int, *, speaks: bool = True) -> str:
    """As `told`, as soon as there is one: a first packet can be lost, and some ports open only soon."""
    return eventually(lambda: told(namespace_fd, kind, address, port, speaks=speaks))


@contextmanager
def telling(namespace_fd: int | None, port: int, address: str = "0.0.0.0") -> Iterator[None]:
    """A server, TCP and UDP, that tells everyone by which address it sees them."""
    servers = [listen(namespace_fd, port, kind, address) for kind in (TCP, UDP)]
    try:
        with _serving(lambda ending_fd: _tell(servers[0], servers[1], ending_fd)):
            yield
    finally:
        for server in servers:
            server.close()


@contextmanager
def _serving(serve: Callable[[int], None]) -> Iterator[None]:
    """A thread that serves until the descriptor that it is given can be read."""
    ending_fds = os.pipe()
    thread = threading.Thread(target=serve, args=(ending_fds[0],))
    thread.start()
    try:
        yield
    finally:
        os.close(ending_fds[1])
        thread.join()
        os.close(ending_fds[0])


def _tell(stream: socket.socket, datagrams: socket.socket, ending_fd: int) -> None:
    while True:
        ready = select.select([stream.fileno(), datagrams.fileno(), ending_fd], [], [])[0]
        if ending_fd in ready:
            return
        if stream.fileno() in ready:
            accepted, seen = stream.accept()
            with accepted, suppress(OSError):
                accepted.sendall(str(seen[0]).encode())
                accepted.shutdown(socket.SHUT_WR)
                accepted.settimeout(60)
                accepted.recv(64)  # what is left unread would turn the end into a reset
        if datagrams.fileno() in ready:
            _data, seen = datagrams.recvfrom(64)
            datagrams.sendto(str(seen[0]).encode(), seen)


@contextmanager
def naming(name: str, address: str) -> Iterator[None]:
    """A server of names on the host's loopback that knows one name."""
    with listen(None, 53, UDP, "127.0.0.1") as server:

        def serve(ending_fd: int) -> None:
            while ending_fd not in select.select([server.fileno(), ending_fd], [], [])[0]:
                data, seen = server.recvfrom(512)
                reply = dnslib.DNSRecord.parse(data).reply()
                if str(reply.q.qname).rstrip(".") == name and reply.q.qtype == dnslib.QTYPE.A:
                    reply.add_answer(dnslib.RR(name, dnslib.QTYPE.A, rdata=dnslib.A(address), ttl=1))
                server.sendto(reply.pack(), seen)

        with _serving(serve):
            yield
