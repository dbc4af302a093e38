"""tared's side of the launcher: asks it for monitors and network namespaces; starts another one if it was killed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from tare.errors import Internal, Unavailable
from tare.kernel.netns import Netns
from tare.runtime import messages
from tare.runtime.launcher import spawn_launcher
from tare.runtime.live_mounts import raise_answer
from tare.runtime.monitor_client import MonitorLink


class Launcher:
    """The connection to the launcher. Use it from the event loop's thread only."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        """pid, connection: as `tare.runtime.launcher.fork_launcher` gave them."""
        self.pid = pid
        self._namespaces: deque[asyncio.Future[Netns]] = deque()
        self._insides: deque[asyncio.Future[list[int]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsent: deque[tuple[messages.Message, tuple[int, ...]]] = deque()
        self._connection = connection
        self._closed = False
        self.on_restart: Callable[[], None] | None = None

    def start(self) -> None:
        """Begins to listen to the launcher, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._connection.setblocking(False)
        self._loop.add_reader(self._connection.fileno(), self._readable)

    def close(self) -> None:
        """Lets the launcher go; monitors stay."""
        self._closed = True
        if self._loop is not None and self._connection.fileno() >= 0:
            self._stop_listening(self._loop)
        self._connection.close()
        self._drop_unsent()
        self._fail_waiters("the engine shuts down")

    def launch(
        self, request: messages.StartRequest, *, netns_fd: int | None = None, streams: Sequence[socket.socket] = ()
    ) -> MonitorLink:
        """Has a monitor forked; returns at once with the link on which it will report.

        Raises Unavailable if the launcher can't take it. The caller keeps its descriptors.
        """
        ours, theirs = messages.socket_pair()
        fds = [theirs.fileno()]
        if netns_fd is not None:
            fds.append(netns_fd)
        fds.extend(stream.fileno() for stream in streams)
        try:
            self._send(request, tuple(fds))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return MonitorLink(ours)

    async def make_netns(self, uid_map: str = "", gid_map: str = "") -> Netns:
        """A fresh network namespace with its loopback up, and a netlink socket inside it. The caller owns both.

        uid_map, gid_map: of a new user namespace that it belongs to, as in /proc/PID/uid_map. Raises Internal if the
        kernel refuses.
        """
        assert self._loop is not None
        future: asyncio.Future[Netns] = self._loop.create_future()
        self._send(messages.NamespaceRequest(uid_map, gid_map), ())
        self._namespaces.append(future)
        return await future

    async def open_inside(self, namespace_fd: int, resolver_address: str = "", ipv6: bool = False) -> list[int]:
        """Descriptors of sockets inside a network namespace, as `tare.kernel.netns.open_inside` says; the caller's.

        Raises Internal if the kernel refuses.
        """
        assert self._loop is not None
        future: asyncio.Future[list[int]] = self._loop.create_future()
        self._send(messages.InsideRequest(resolver_address, ipv6), (namespace_fd,))
        self._insides.append(future)
        return await future

    async def make_view(self, steps: bytes) -> tuple[int, int]:
        """(root, mount namespace): descriptors of a view that `tare.runtime.view.plan_view` planned; the caller's.

        Raises Internal if it can't be mounted, Unavailable if the launcher can't take it.
        """
        received = await self._ask_worker(messages.ViewRequest(steps))
        if received is None:
            raise Internal("the container's root could not be mounted: its worker was killed")
        message, fds = received
        if isinstance(message, messages.ViewReply) and len(fds) == 2:
            return fds[0], fds[1]
        raise Internal(f"the container's root could not be mounted: {getattr(message, 'error', '')}")

    async def change_mounts(self, change: bytes, root_fd: int, namespace_fd: int) -> None:
        """Adds or takes away a running container's mount, as `tare.runtime.live_mounts` planned it.

        Raises what the change's planner says, Unavailable if the launcher can't take it.
        """
        received = await self._ask_worker(messages.MountRequest(change), root_fd, namespace_fd)
        if received is None or not isinstance(received[0], messages.MountReply):
            raise Internal("the container's mounts could not be changed: the worker was killed")
        raise_answer(received[0])

    async def _ask_worker(self, request: messages.Message, *fds: int) -> tuple[messages.AnyMessage, list[int]] | None:
        """What a process that the launcher forks for this request alone answers; None if it died."""
        assert self._loop is not None
        ours, theirs = messages.socket_pair()
        with ours:
            try:
                self._send(request, (theirs.fileno(), *fds))
            finally:
                theirs.close()
            readable = asyncio.Event()
            self._loop.add_reader(ours.fileno(), readable.set)
            try:
                await readable.wait()
            finally:
                self._loop.remove_reader(ours.fileno())
            return messages.receive(ours)

    def _send(self, message: messages.Message, fds: tuple[int, ...]) -> None:
        """Sends a message, or keeps it until the launcher has taken those before: a socket holds only a few plans."""
        if self._unsent:
            self._unsent.append((message, _duplicate(fds)))
            return
        for attempt in (1, 2):
            try:
                messages.send(self._connection, message, fds)
                return
            except BlockingIOError:
                assert self._loop is not None
                self._unsent.append((message, _duplicate(fds)))
                self._loop.add_writer(self._connection.fileno(), self._send_kept)
                return
            except OSError as error:
                if attempt == 2 or self._closed:
                    raise Unavailable(f"the launcher is gone: {error.strerror}") from error
                self._respawn()

    def _send_kept(self) -> None:
        assert self._loop is not None
        while self._unsent:
            message, fds = self._unsent[0]
            try:
                messages.send(self._connection, message, fds)
            except BlockingIOError:
                return
            except OSError:
                self._respawn()
                return
            self._unsent.popleft()
            _close_all(fds)
        self._loop.remove_writer(self._connection.fileno())

    def _drop_unsent(self) -> None:
        """Who asked sees the end of its socket."""
        while self._unsent:
            _close_all(self._unsent.popleft()[1])

    def _stop_listening(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._connection.fileno())
        loop.remove_writer(self._connection.fileno())

    def _readable(self) -> None:
        try:
            received = messages.receive(self._connection)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._respawn()
            return
        message, fds = received
        if isinstance(message, messages.NamespaceReply) and self._namespaces:
            future = self._namespaces.popleft()
            if len(fds) == 2 and not future.done():
                future.set_result(Netns(fds[0], fds[1]))
                return
            if not future.done():
                future.set_exception(Internal(f"no network namespace: {message.error}"))
        elif isinstance(message, messages.InsideReply) and self._insides:
            opened = self._insides.popleft()
            if fds and not opened.done():
                opened.set_result(fds)
                return
            if not opened.done():
                opened.set_exception(Internal(f"no sockets in a container's network: {message.error}"))
        for fd in fds:
            os.close(fd)

    def _respawn(self) -> None:
        """The launcher was killed: containers don't notice, and the next start finds a new one."""
        if self._closed:
            return
        assert self._loop is not None
        self._stop_listening(self._loop)
        self._connection.close()
        self._drop_unsent()
        self._fail_waiters("the launcher was killed")
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pass
        self.pid, self._connection = spawn_launcher()
        self.start()
        if self.on_restart is not None:
            self.on_restart()

    def _fail_waiters(self, why: str) -> None:
        while self._namespaces:
            future = self._namespaces.popleft()
            if not future.done():
                future.set_exception(Unavailable(f"no network namespace: {why}"))
        while self._insides:
            opened = self._insides.popleft()
            if not opened.done():
                opened.set_exception(Unavailable(f"no sockets in a container's network: {why}"))


def _duplicate(fds: tuple[int, ...]) -> tuple[int, ...]:
    """Copies that outlive the caller's. Raises OSError as dup(2)."""
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))
    except OSError:
        _close_all(tuple(copies))
        raise
    return tuple(copies)


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
