"""Netlink framing: messages, attributes, batches and their acknowledgements (man 7 netlink).

It must never know what a message means (that is `netlink_route.py`, `netlink_conntrack.py` and `nftables.py`), and
never wait for an event: the kernel carries a request out before `sendmsg` returns, so every answer is there to read.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from tare.errors import KernelError

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
_NLM_F_ACK_TLVS = 0x200
_NLM_F_CAPPED = 0x100

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NLMSGERR_ATTR_MSG = 1
_BUFFER_BYTES = 4 << 20
_RECEIVE_BYTES = 1 << 18
_DUMP_TRIES = 8
# A guard, never reached while the kernel works as documented: better an error than a daemon that hangs.
_RECEIVE_TIMEOUT = struct.pack("@ll", 5, 0)

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute: length, type, payload, padding to four bytes."""
    size = len(payload)
    if size > 0xFFFF - 4:
        raise ValueError(f"netlink attribute {kind} of {size} bytes is longer than 16 bits can say")
    return _ATTRIBUTE.pack(size + 4, kind) + payload + _PADDING[size & 3]


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, bytes((value,)))


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in the machine's byte order (rtnetlink)."""
    return attribute(kind, _U32.pack(value))


def be32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network byte order (nfnetlink)."""
    return attribute(kind, value.to_bytes(4, "big"))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def parse_text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")


def parse_u32(payload: bytes) -> int:
    return int(_U32.unpack_from(payload)[0])


def iterate_attributes(buffer: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes in `buffer` from `offset`, in order; stops at one that doesn't fit."""
    end = len(buffer)
    while offset + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(buffer, offset)
        if size < 4 or offset + size > end:
            return
        yield kind & _NLA_TYPE_MASK, buffer[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def parse_attributes(buffer: bytes, offset: int = 0) -> dict[int, bytes]:
    return dict(iterate_attributes(buffer, offset))


class Request(NamedTuple):
    """One message to the kernel.

    call: how an error names it, e.g. "RTM_NEWLINK". path: what it is about, e.g. a link's name.
    tolerate: error numbers that mean "already as asked" to this caller.
    """

    kind: int
    flags: int
    body: bytes
    call: str
    path: str | None = None
    tolerate: tuple[int, ...] = ()


class Reply(NamedTuple):
    """One message from the kernel, without its header."""

    kind: int
    body: bytes


class NetlinkSocket:
    """A netlink socket; the namespace it was opened in stays the one it speaks to, whoever holds it later."""

    def __init__(self, protocol: int, fd: int | None = None) -> None:
        """Opens a socket in the caller's network namespace, or takes over `fd` (then closes it with this object)."""
        if fd is None:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            self._socket.bind((0, 0))
        else:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol, fileno=fd)
        self._sequence = 0
        self._big = False
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            try:
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            except OSError:
                pass  # kernels before 4.12: error texts are then only the errno's

    def fileno(self) -> int:
        return self._socket.fileno()

    def detach(self) -> int:
        """Gives the descriptor away; this object can't be used afterwards."""
        return self._socket.detach()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def execute(self, requests: Sequence[Request]) -> list[list[Reply]]:
        """Sends all requests in one datagram and returns each one's replies; raises the first error not tolerated.

        rtnetlink goes on after a failed message: the requests after it may have been carried out.
        """
        first = self._sequence + 1
        self._send(requests, NLM_F_ACK)
        replies: list[list[Reply]] = [[] for _ in requests]
        missing = len(requests)
        failure: KernelError | None = None
        while missing:
            for kind, flags, sequence, body in self._receive():
                index = sequence - first
                if not 0 <= index < len(requests):
                    continue  # an answer to a request that failed half-way earlier
                if kind != NLMSG_ERROR:
                    replies[index].append(Reply(kind, body))
                    continue
                missing -= 1
                error = _error(requests[index], body, flags)
                if error is not None and failure is None:
                    failure = error
        if failure is not None:
            raise failure
        return replies

    def dump(self, request: Request) -> list[Reply]:
        """All objects of one kind; starts again when the table changed meanwhile (NLM_F_DUMP_INTR)."""
        for _ in range(_DUMP_TRIES):
            replies = self._dump_once(request)
            if replies is not None:
                return replies
        raise KernelError(errno.EAGAIN, request.call, request.path)

    def _dump_once(self, request: Request) -> list[Reply] | None:
        self._send((request,), NLM_F_DUMP)
        sequence_sent = self._sequence
        replies: list[Reply] = []
        interrupted = False
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != sequence_sent:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_DONE:
                    return None if interrupted else replies
                if kind == NLMSG_ERROR:
                    error = _error(request, body, flags)
                    if error is not None:
                        raise error
                    return replies
                replies.append(Reply(kind, body))

    def transact(self, requests: Sequence[Request]) -> None:
        """Sends an nfnetlink batch (first and last request are its brackets): all of it happens, or nothing.

        Only failed messages are answered, and the last one inside the brackets, which is the sign that it is done.
        """
        first = self._sequence + 1
        self._send(requests, 0, acknowledge=len(requests) - 2)
        failure: KernelError | None = None
        while True:
            try:
                messages = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            for kind, flags, sequence, body in messages:
                index = sequence - first
                if kind == NLMSG_ERROR and 0 <= index < len(requests):
                    failure = failure or _error(requests[index], body, flags)
        if failure is not None:
            raise failure

    def _send(self, requests: Iterable[Request], flags: int, acknowledge: int = -1) -> None:
        parts: list[bytes] = []
        for number, request in enumerate(requests):
            self._sequence += 1
            size = len(request.body)
            own = request.flags | flags | NLM_F_REQUEST | (NLM_F_ACK if number == acknowledge else 0)
            parts.append(_HEADER.pack(size + 16, request.kind, own, self._sequence, 0))
            parts.append(request.body)
            parts.append(_PADDING[size & 3])
        data = b"".join(parts)
        if len(data) > 100_000 and not self._big:
            self._enlarge_buffers()
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelError(error.errno or 0, "sendmsg(AF_NETLINK)") from error

    def _enlarge_buffers(self) -> None:
        """A transaction of thousands of elements is one datagram; beyond the limit only with CAP_NET_ADMIN outside."""
        so_sndbufforce, so_rcvbufforce = 32, 33  # asm-generic/socket.h; not in Python's socket module
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, so_sndbufforce, _BUFFER_BYTES)
            self._socket.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, _BUFFER_BYTES)
        except PermissionError:  # root of a user namespace: as far as net.core.wmem_max, then the send says EMSGSIZE
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._big = True

    def _receive(self, flags: int = 0) -> list[tuple[int, int, int, bytes]]:
        try:
            data = self._socket.recv(_RECEIVE_BYTES, flags)
        except OSError as error:
            if flags & socket.MSG_DONTWAIT and error.errno == errno.EAGAIN:
                raise
            raise KernelError(error.errno or 0, "recvmsg(AF_NETLINK)") from error
        messages = []
        offset = 0
        while offset + 16 <= len(data):
            size, kind, own, sequence, _port = _HEADER.unpack_from(data, offset)
            if size < 16 or offset + size > len(data):
                break
            messages.append((kind, own, sequence, data[offset + 16 : offset + size]))
            offset += (size + 3) & ~3
        return messages


def _error(request: Request, body: bytes, flags: int) -> KernelError | None:
    number = -int.from_bytes(body[:4], "little" if _LITTLE else "big", signed=True)
    if number == 0 or number in request.tolerate:
        return None
    context = None
    if flags & _NLM_F_ACK_TLVS:
        # struct nlmsgerr: error, then the header of the failed message, and its body unless capped
        failed_size = _U32.unpack_from(body, 4)[0]
        start = 4 + (16 if flags & _NLM_F_CAPPED else (failed_size + 3) & ~3)
        said = parse_attributes(body, start).get(_NLMSGERR_ATTR_MSG)
        context = parse_text(said) if said else None
    return KernelError(number, request.call, request.path, context)


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def is_missing(error: KernelError) -> bool:
    """Whether the kernel said that the object isn't there."""
    return error.errno in (errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL)
