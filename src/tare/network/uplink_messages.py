"""What an engine without root and its uplink's keeper say to each other: a JSON record in each packet.

Each request has a number, and so has its answer: one that comes too late is known. It must never carry a command line:
the keeper is outside the engine's namespaces, and chooses itself what it runs.
"""

from __future__ import annotations

import socket
import struct

import msgspec

_LONGEST = 1 << 14
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (man 7 unix)


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Connect the network namespace of the process that asks; what runs already goes on."""

    program: str = ""
    serial: int = 0


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Disconnect."""

    serial: int = 0


class Forward(msgspec.Struct, frozen=True, tag="forward"):
    """Let packets to a host port in."""

    protocol: str
    host_ip: str
    port: int
    serial: int = 0


class Unforward(msgspec.Struct, frozen=True, tag="unforward"):
    """No more."""

    protocol: str
    host_ip: str
    port: int
    serial: int = 0


class Done(msgspec.Struct, frozen=True, tag="done"):
    """It is so. After a start: which program, its address in the namespace, the resolver that it offers there.

    keeps_loopback: what comes to the host's loopback arrives at the namespace's. reached: the host's own subnets.
    """

    program: str = ""
    address: str = ""
    resolver: str = ""
    keeps_loopback: bool = False
    reached: tuple[str, ...] = ()
    serial: int = 0


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It isn't. kind: taken, unsupported, unavailable."""

    kind: str
    text: str
    serial: int = 0


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The program ended by itself, with these last words; it is started again."""

    text: str


class Back(msgspec.Struct, frozen=True, tag="back"):
    """It runs again. lost: forwards that somebody else took meanwhile."""

    lost: str = ""


Request = Start | Stop | Forward | Unforward
Answer = Done | Refused
Message = Request | Answer | Ended | Back
_decoder = msgspec.json.Decoder(Message)


def send(connection: socket.socket, message: Message, *, wait: bool = True) -> None:
    """One packet. Without wait BlockingIOError says that the other end has read none for long."""
    connection.send(msgspec.json.encode(message), 0 if wait else socket.MSG_DONTWAIT)


def receive(connection: socket.socket) -> tuple[Message, int] | None:
    """The next packet; None at the end of the connection, or when it isn't one of ours.

    And who sent it: the kernel's word, a pid as it is here, if the connection has SO_PASSCRED (else 0).
    """
    data, ancillary, _flags, _address = connection.recvmsg(_LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
    pid = 0
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(value) == _CREDENTIALS.size:
            pid = _CREDENTIALS.unpack(value)[0]
    try:
        return (_decoder.decode(data), pid) if data else None
    except msgspec.DecodeError:
        return None
