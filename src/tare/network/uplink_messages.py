"""What an engine without root and its uplink's keeper say to each other: a JSON record in each packet.

It must never carry a command line: the keeper is outside the engine's namespaces, and chooses itself what it runs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import msgspec

_LONGEST = 1 << 14


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Connect the namespaces whose descriptors come along (user, network); what runs already goes on."""

    program: str = ""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Disconnect."""


class Forward(msgspec.Struct, frozen=True, tag="forward"):
    """Let packets to a host port in."""

    protocol: str
    host_ip: str
    port: int


class Unforward(msgspec.Struct, frozen=True, tag="unforward"):
    """No more."""

    protocol: str
    host_ip: str
    port: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """It is so. After a start: which program, its address in the namespace, the resolver that it offers there."""

    program: str = ""
    address: str = ""
    resolver: str = ""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It isn't. kind: taken, unsupported, unavailable."""

    kind: str
    text: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The program ended by itself, with these last words; it is started again."""

    text: str


class Back(msgspec.Struct, frozen=True, tag="back"):
    """It runs again. lost: forwards that somebody else took meanwhile."""

    lost: str = ""


Message = Start | Stop | Forward | Unforward | Done | Refused | Ended | Back
_decoder = msgspec.json.Decoder(Message)


def send(connection: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """One packet, with descriptors."""
    socket.send_fds(connection, [msgspec.json.encode(message)], list(fds))


def receive(connection: socket.socket) -> tuple[Message, list[int]] | None:
    """The next packet; None at the end of the connection, or when it isn't one of ours."""
    data, fds, _flags, _address = socket.recv_fds(connection, _LONGEST, 4, socket.MSG_CMSG_CLOEXEC)
    try:
        return (_decoder.decode(data), fds) if data else None
    except msgspec.DecodeError:
        for fd in fds:
            os.close(fd)
        return None
