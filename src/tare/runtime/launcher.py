"""The launcher: a single-threaded process with everything imported, from which monitors are forked.

Forked from tared before that has a thread or a loop, or started anew (`python -m tare.runtime.launcher FD`) if it was
killed. It must never start a thread, and never wait for a container.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys

import msgspec

from tare.errors import TareError, system_text
from tare.kernel import netns, process
from tare.runtime import live_mounts, messages, view
from tare.runtime.cgroups import known_hierarchies
from tare.runtime.spares import Spares

TITLE = "tare: launcher"


def fork_launcher() -> tuple[int, socket.socket]:
    """Forks the launcher. Returns its pid and tared's end of the connection. Call it before any thread exists."""
    ours, theirs = messages.socket_pair()
    gc.collect()
    gc.freeze()  # neither side's collector writes to pages that both share
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            serve(theirs)
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    return pid, ours


def spawn_launcher() -> tuple[int, socket.socket]:
    """Starts a launcher as a new program: what a tared with threads can do when its launcher died."""
    ours, theirs = messages.socket_pair()
    try:
        fd = theirs.fileno()
        os.set_inheritable(fd, True)
        arguments = [sys.executable, "-m", "tare.runtime.launcher", str(fd)]
        pid = os.posix_spawn(sys.executable, arguments, dict(os.environ))
    finally:
        theirs.close()
    return pid, ours


def serve(connection: socket.socket) -> None:
    """Serves tared's requests until it is gone."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # monitors are reaped by the kernel (waitpid(2), notes)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    process.set_name("tare-launcher")
    process.set_command_line(process.find_title_area(), TITLE)
    known_hierarchies()  # remembered, so that no monitor has to look
    gc.disable()
    gc.freeze()
    spares = Spares()
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    while True:
        events = poller.poll(0 if spares.may_refill else spares.quiet_ms)
        if not events:
            spares.refill() if spares.may_refill else spares.shrink()
        for fd, _ in events:
            if fd != connection.fileno():
                poller.unregister(fd)
                spares.is_over(fd)
            elif not _serve_request(connection, spares, poller):
                return


def _serve_request(connection: socket.socket, spares: Spares, poller: select.poll) -> bool:
    """Serves one request; False at the end of the connection."""
    try:
        received = messages.receive(connection)
    except msgspec.DecodeError:
        return True
    if received is None:
        return False
    message, fds = received
    try:
        if isinstance(message, messages.StartRequest):
            try:
                poller.register(spares.start(message, fds), 0)  # a hang-up is always told (poll(2))
            except OSError as error:
                _refuse(fds[0], error)
        elif isinstance(message, messages.NamespaceRequest):
            _make_namespace(connection, message)
        elif isinstance(message, messages.InsideRequest):
            _open_inside(connection, message, fds)
        elif isinstance(message, messages.ViewRequest | messages.MountRequest):
            _fork_worker(connection, message, fds)
    finally:
        for fd in fds:
            os.close(fd)
    return True


def _refuse(report_fd: int, error: OSError) -> None:
    report = socket.socket(fileno=os.dup(report_fd))
    try:
        messages.send(report, messages.Failed(f"fork: {system_text(error.errno or 0)}", 125))
    except OSError:
        pass
    finally:
        report.close()


def _fork_worker(
    connection: socket.socket, request: messages.ViewRequest | messages.MountRequest, fds: list[int]
) -> None:
    try:
        pid = os.fork()
    except OSError:
        return  # the end of the report socket tells
    if pid:
        return
    try:
        connection.close()
        report = socket.socket(fileno=fds[0])
        if isinstance(request, messages.MountRequest):
            live_mounts.run_worker(request, report, fds[1], fds[2])
        else:
            view.run_worker(request, report)
    finally:
        os._exit(0)


def _make_namespace(connection: socket.socket, request: messages.NamespaceRequest) -> None:
    try:
        made = netns.create(uid_map=request.uid_map, gid_map=request.gid_map)
    except (TareError, OSError) as error:
        messages.send(connection, messages.NamespaceReply(str(error)))
        return
    fds = (made.namespace_fd, made.rtnetlink_socket_fd)
    try:
        messages.send(connection, messages.NamespaceReply(), fds)
    finally:
        for fd in fds:
            os.close(fd)


def _open_inside(connection: socket.socket, request: messages.InsideRequest, fds: list[int]) -> None:
    try:
        opened = netns.open_inside(fds[0], request.resolver_address, request.ipv6)
    except (TareError, OSError) as error:
        messages.send(connection, messages.InsideReply(str(error)))
        return
    try:
        messages.send(connection, messages.InsideReply(), tuple(opened))
    finally:
        for fd in opened:
            os.close(fd)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
