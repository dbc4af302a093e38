"""A unix socket before an engine's: counts what goes there, and can be cut after so many bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from support.engine import Engine


class Relay:
    """address: what to give a client. sent: bytes from clients to the engine so far."""

    def __init__(self, directory: Path, target: Path) -> None:
        self.path = directory / "relay.sock"
        self.address = f"unix://{self.path}"
        self.sent = 0
        self.cut_after: int | None = None
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._target))
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counted:
                    self.sent += len(data)
                    if self.cut_after is not None and self.sent > self.cut_after:
                        break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay(directory: Path, engine: Engine) -> Iterator[Relay]:
    """A relay before an engine while the block lasts."""
    made = Relay(directory, engine.socket)
    try:
        yield made
    finally:
        made.close()
