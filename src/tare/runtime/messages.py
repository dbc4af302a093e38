"""The messages between tared, the launcher and the monitors, and how they travel. Imports nothing heavy.

Every message is one SEQPACKET datagram: MessagePack of a tagged record, with file descriptors beside it (SCM_RIGHTS).

    tared ──StartRequest + [report socket, netns?, attach streams…]──▶ launcher ──fork──▶ monitor
    tared ──NamespaceRequest──▶ launcher ──NamespaceReply + [netns, netlink socket]──▶ tared
    tared ──InsideRequest + [netns]──▶ launcher ──InsideReply + [netlink socket, more sockets]──▶ tared
    tared ──ViewRequest + [report socket]──▶ launcher ──fork──▶ worker ──ViewReply + [root, mount namespace]──▶ tared
    tared ──MountRequest + [report socket, root, mount namespace]──▶ launcher ──fork──▶ worker ──MountReply──▶ tared
    monitor ──Started | Failed … LogGrew … Exited──▶ tared       on the report socket, and on each later connection
    tared ──Attach + [stream] | Resize | WatchLog | ClearLog──▶ monitor

A monitor that dies before it reports is seen as the end of its report socket.
"""

from __future__ import annotations

import array
import os
import socket

import msgspec

MAX_MESSAGE_BYTES = 96 * 1024
"""Larger messages travel in a memfd: a datagram must fit the socket's send buffer (socket(7), wmem_default)."""

MAX_DESCRIPTORS = 200


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


class StreamWish(Message, frozen=True, array_like=True):
    """Which of a process's streams an attached stream carries."""

    stdin: bool
    stdout: bool
    stderr: bool


class StartRequest(Message, frozen=True, array_like=True, tag="start"):
    """Fork a monitor that runs a container (or, with is_exec, a process in one).

    plan: the encoded plan. directory: where the monitor keeps its socket and status. cgroup: path of the container's
    cgroup, "" for none. Descriptors: the report socket, the network namespace if has_netns, one stream for each of
    attached. log_path "" means no log; log_max_bytes 0 means unbounded; log_attributes: JSON that every entry gets;
    log_compress, log_counted: see JsonLog.
    """

    name: str
    directory: str
    plan: bytes
    is_exec: bool = False
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    cgroup: str = ""
    log_path: str = ""
    log_max_bytes: int = 0
    log_max_files: int = 1
    log_attributes: bytes = b""
    has_netns: bool = False
    attached: tuple[StreamWish, ...] = ()
    log_compress: bool = False
    log_counted: bool = False


class NamespaceRequest(Message, frozen=True, array_like=True, tag="netns"):
    """Make a network namespace; with the maps, one that belongs to a new user namespace."""

    uid_map: str = ""
    gid_map: str = ""


class NamespaceReply(Message, frozen=True, array_like=True, tag="netns-made"):
    """The answer to NamespaceRequest; error is "" if the descriptors came along."""

    error: str = ""


class InsideRequest(Message, frozen=True, array_like=True, tag="inside"):
    """Open sockets inside the network namespace that comes along: what `tare.kernel.netns.open_inside` says."""

    resolver_address: str = ""
    ipv6: bool = False


class InsideReply(Message, frozen=True, array_like=True, tag="inside-open"):
    """The answer to InsideRequest; error is "" if the descriptors came along."""

    error: str = ""


class ViewRequest(Message, frozen=True, array_like=True, tag="view"):
    """Mount a container's root where only descriptors reach it. steps: what `tare.runtime.view.plan_view` made."""

    steps: bytes


class ViewReply(Message, frozen=True, array_like=True, tag="view-made"):
    """The answer to ViewRequest; error is "" if the descriptors came along."""

    error: str = ""


class MountRequest(Message, frozen=True, array_like=True, tag="mount"):
    """Change a running container's mounts. change: what `tare.runtime.live_mounts` planned."""

    change: bytes


class MountReply(Message, frozen=True, array_like=True, tag="mounted"):
    """The answer to MountRequest. kind: the class of the error in `tare.errors`, "" if all went well."""

    kind: str = ""
    error: str = ""


class Started(Message, frozen=True, array_like=True, tag="started"):
    """The process runs. A pidfd of it comes along, since it may have ended by now.

    start_ticks: its start time as in /proc/PID/stat, to tell it from a later one of that pid.
    """

    pid: int
    start_ticks: int
    started_ns: int


class Failed(Message, frozen=True, array_like=True, tag="failed"):
    """The process could not be started; exit_code is 125, 126 or 127."""

    message: str
    exit_code: int


class Exited(Message, frozen=True, array_like=True, tag="exited"):
    """The process ended. memory_peak_bytes: the most that its cgroup used, if it was killed for want of memory."""

    exit_code: int
    oom_killed: bool
    finished_ns: int
    memory_peak_bytes: int = 0


class LogGrew(Message, frozen=True, array_like=True, tag="log"):
    """The log has more bytes than the watcher knew of."""

    written_bytes: int


class Attach(Message, frozen=True, array_like=True, tag="attach"):
    """Connect the stream that comes along to the process."""

    wish: StreamWish


class Resize(Message, frozen=True, array_like=True, tag="resize"):
    """Set the terminal's size."""

    height: int
    width: int


class WatchLog(Message, frozen=True, array_like=True, tag="watch"):
    """Tell once when the log has more than written_bytes (counted over the monitor's life)."""

    written_bytes: int


class ClearLog(Message, frozen=True, array_like=True, tag="clear"):
    """Empty the log."""


class Handover(Message, frozen=True, array_like=True, tag="handover"):
    """From a creator to its monitor: this runs now. request: without the plan.

    Descriptors, in a datagram before: the report socket, the socket to listen on, a pidfd of the process; its terminal,
    or the pipes of its output, error and (if open_stdin) input; one stream for each of request.attached.
    """

    request: StartRequest
    started: Started


class InitRequest(Message, frozen=True, array_like=True, tag="init"):
    """From a creator to a first process that waits: carry this out. Descriptors: standard input, output and error if
    has_stdio, the network namespace if has_netns."""

    plan: bytes
    has_stdio: bool
    has_netns: bool


class _InMemfd(Message, frozen=True, array_like=True, tag="memfd"):
    """The real message is in the last descriptor."""


AnyMessage = (
    StartRequest
    | NamespaceRequest
    | NamespaceReply
    | InsideRequest
    | InsideReply
    | ViewRequest
    | ViewReply
    | MountRequest
    | MountReply
    | Started
    | Failed
    | Exited
    | LogGrew
    | Attach
    | Resize
    | WatchLog
    | ClearLog
    | Handover
    | InitRequest
    | _InMemfd
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyMessage).decode
_CMSG_SPACE = socket.CMSG_SPACE((MAX_DESCRIPTORS + 1) * 4)


def send(sock: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> None:
    """Sends one message. Raises OSError (EPIPE, ECONNRESET) if the other side is gone, BlockingIOError if it's full."""
    data = _encode(message)
    memfd = -1
    if len(data) > MAX_MESSAGE_BYTES:
        memfd = os.memfd_create("tare-message", os.MFD_CLOEXEC)
        with open(memfd, "wb", closefd=False) as file:
            file.write(data)
        data, fds = _encode(_InMemfd()), (*fds, memfd)
    try:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
    finally:
        if memfd >= 0:
            os.close(memfd)


def receive(sock: socket.socket) -> tuple[AnyMessage, list[int]] | None:
    """The next message and its descriptors (close-on-exec), or None at the end of the connection.

    Raises OSError as recvmsg(2), msgspec.DecodeError for a datagram that is no message.
    """
    try:
        data, ancillary, _, _ = sock.recvmsg(MAX_MESSAGE_BYTES + 4096, _CMSG_SPACE, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
            fds.extend(received)
    if not data:
        return None
    message = _decode(data)
    if isinstance(message, _InMemfd):
        memfd = fds.pop()
        with open(memfd, "rb") as file:
            file.seek(0)
            message = _decode(file.read())
    return message, fds


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected SEQPACKET sockets."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def listen_in(directory: str, name: str) -> socket.socket:
    """A SEQPACKET socket that listens as directory/name, mode 0600.

    The path goes through a descriptor, since a socket's path holds only 107 bytes (unix(7)).
    """
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        old = os.umask(0o177)
        try:
            listener.bind(f"/proc/self/fd/{directory_fd}/{name}")
        finally:
            os.umask(old)
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory_fd)
    return listener


def connect_in(directory: str, name: str) -> socket.socket:
    """A connection to the socket directory/name. Raises OSError as connect(2) (ECONNREFUSED: nobody listens)."""
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(f"/proc/self/fd/{directory_fd}/{name}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(directory_fd)
    return connection
