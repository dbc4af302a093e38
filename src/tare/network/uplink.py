"""How an engine's network namespace meets the outside: what needs another program where there is no root.

It must never be asked from a container's path: forwards come and go with published ports, which the room decides. Nor
may a keeper that hangs hold the engine up more than once: until it has answered, no other answer is waited for. With
root the host's own namespace is the room's, and there is nothing to do (`HostUplink`). Without, the engine lives in
namespaces of its own, and a program outside carries packets and takes connections for it; `uplink_keeper.py` starts and
watches that one, and `KeptUplink` speaks to it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import select
import socket
from ipaddress import IPv4Network, ip_address
from typing import Protocol

import msgspec

from tare import faults
from tare.errors import ResourceExhausted, TareError, Unavailable, Unsupported
from tare.network.uplink_messages import (
    Back,
    Done,
    Ended,
    Forward,
    Message,
    Refused,
    Request,
    Start,
    Stop,
    Unforward,
    receive,
    send,
)

_log = logging.getLogger(__name__)

_START_S, _FORWARD_S = 20.0, 5.0


class _NoAnswerError(Unavailable):
    """The keeper hangs."""


_ERRORS: dict[str, type[TareError]] = {"taken": ResourceExhausted, "unsupported": Unsupported}


class Uplink(Protocol):
    """The room's way out and in. resolver: who answers there for resolvers that only the host reaches ("": nobody)."""

    @property
    def resolver(self) -> str: ...

    async def start(self) -> None:
        """Connects the room's namespace; does nothing if it is connected. Raises Unavailable, and why."""

    async def stop(self, *, remove: bool) -> None:
        """Lets go of it. remove: and disconnects the namespace, with all forwards."""

    def inside(self, host_ip: str) -> str:
        """The address in the room's namespace at which packets for a host address arrive; "": that address itself."""

    def forward(self, protocol: str, host_ip: str, port: int) -> None:
        """Lets packets to a host port in; may be repeated. Raises ResourceExhausted if it is taken, Unsupported."""

    def unforward(self, protocol: str, host_ip: str, port: int) -> None:
        """Ends a forward, if it is one."""

    def warnings(self) -> list[str]:
        """What is wrong with it now."""

    def reached(self) -> list[IPv4Network]:
        """Subnets behind it that a network of containers would hide."""


class HostUplink:
    """With root: the room's namespace is the host's."""

    resolver = ""

    async def start(self) -> None:
        pass

    async def stop(self, *, remove: bool) -> None:
        pass

    def inside(self, host_ip: str) -> str:
        return ""

    def forward(self, protocol: str, host_ip: str, port: int) -> None:
        pass

    def unforward(self, protocol: str, host_ip: str, port: int) -> None:
        pass

    def warnings(self) -> list[str]:
        return []

    def reached(self) -> list[IPv4Network]:
        return []


class KeptUplink:
    """Without root: a program in the host's namespace, held by a keeper at the other end of a connection.

    program: `slirp4netns`, `pasta`, or "" for the first of them that is there. The connection (SOCK_SEQPACKET) is ours.
    """

    def __init__(self, connection: socket.socket, program: str = "") -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # the keeper may not have said so yet
        self._connection = connection
        self._program = program
        self._started = Done()
        self._serials = itertools.count(1)
        self._hangs = False
        self._unsent: list[Unforward] = []
        self._reading = False
        self._trouble = ""

    @property
    def program(self) -> str:
        """Which one it is, once it runs."""
        return self._started.program

    @property
    def resolver(self) -> str:
        return self._started.resolver

    async def start(self) -> None:
        if self._reading:
            return
        self._started = await asyncio.to_thread(self._ask, Start(self._program), _START_S)
        faults.point("network.uplink.started")
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._read)
        self._reading = True
        _log.info("the uplink is %s", self.program)

    async def stop(self, *, remove: bool) -> None:
        if self._reading:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._reading = False
        try:
            if remove:
                await asyncio.to_thread(self._ask, Stop())
        except Unavailable as error:
            _log.warning("%s", error)
        finally:
            self._connection.close()

    def inside(self, host_ip: str) -> str:
        if host_ip in ("0.0.0.0", "::") or (self._started.keeps_loopback and ip_address(host_ip).is_loopback):
            return ""
        return "::" if ":" in host_ip else self._started.address

    def forward(self, protocol: str, host_ip: str, port: int) -> None:
        if self._hangs:
            raise self._hung()
        try:
            self._ask(Forward(protocol, host_ip, port))
        except _NoAnswerError:
            self.unforward(protocol, host_ip, port)  # it may still do what it was asked
            raise

    def unforward(self, protocol: str, host_ip: str, port: int) -> None:
        request = Unforward(protocol, host_ip, port)
        try:
            if self._hangs:
                self._unsent.append(request)
                self._send_unforwards()
            else:
                self._ask(request)
        except TareError as error:
            _log.warning("%s port %s:%d may stay open: %s", protocol, host_ip, port, error)

    def warnings(self) -> list[str]:
        return [text for text in (self._trouble, str(self._hung()) if self._hangs else "") if text]

    def reached(self) -> list[IPv4Network]:
        return [IPv4Network(text) for text in self._started.reached]

    def _ask(self, request: Request, timeout_s: float = _FORWARD_S) -> Done:
        """Sends a request and waits for its answer; what is told meanwhile is heard."""
        serial = next(self._serials)
        try:
            send(self._connection, msgspec.structs.replace(request, serial=serial), wait=False)
            while True:
                if not select.select([self._connection], [], [], timeout_s)[0]:
                    self._hangs = True
                    raise self._hung()
                answer = self._receive()
                if isinstance(answer, Refused) and answer.serial == serial:
                    raise _ERRORS.get(answer.kind, Unavailable)(answer.text)
                if isinstance(answer, Done) and answer.serial == serial:
                    return answer
                self._hear(answer)
        except BlockingIOError as error:
            self._hangs = True
            raise self._hung() from error
        except OSError as error:
            raise self._gone() from error

    def _send_unforwards(self) -> None:
        """What a keeper that hangs is to do then; nothing waits for its answers."""
        try:
            while self._unsent:
                send(self._connection, msgspec.structs.replace(self._unsent[0], serial=next(self._serials)), wait=False)
                self._unsent.pop(0)
        except BlockingIOError:
            pass  # there is room again when it answers
        except OSError:
            self._gone()

    @staticmethod
    def _hung() -> _NoAnswerError:
        return _NoAnswerError("the uplink's keeper doesn't answer: no port can be published")

    def _receive(self) -> Message:
        received = receive(self._connection)
        if received is None:
            raise self._gone()
        return received[0]

    def _gone(self) -> Unavailable:
        self._trouble = "the uplink's keeper is gone: containers reach nothing outside, and published ports are closed"
        return Unavailable(self._trouble)

    def _read(self) -> None:
        try:
            self._hear(self._receive())
        except (OSError, Unavailable):
            self._gone()
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            _log.error("%s", self._trouble)

    def _hear(self, news: Message) -> None:
        self._hangs = False
        self._send_unforwards()
        if isinstance(news, Ended):
            self._trouble = f"{self.program} ended, containers reach nothing outside: {news.text}"
            _log.error("%s", self._trouble)
        elif isinstance(news, Back):
            self._trouble = f"{self.program} runs again, but without {news.lost}" if news.lost else ""
            _log.warning("%s runs again%s", self.program, f", without {news.lost}" if news.lost else "")
