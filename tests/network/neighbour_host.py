"""The other host of network_topology.py: a process in a network namespace, with an engine and a container of its own.

Its container tells everyone who connects to port 80, published as 8080, by which address it sees them. On its input
`dial ADDRESS PORT` lets the container connect, and prints what it was told.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from pathlib import Path

from network_world import Engine, client_socket, listen

from tare.kernel.namespaces import CLONE_NEWNET, setns
from tare.network.records import NetworkSettings, PortRequest


def tell(server: socket.socket) -> None:
    server.settimeout(None)
    while True:
        try:
            accepted, seen = server.accept()
        except OSError:
            return
        with accepted:
            accepted.sendall(str(seen[0]).encode())


def dial(namespace_fd: int | None, address: str, port: int) -> str:
    try:
        with client_socket(namespace_fd, timeout=3, to=address) as client:
            client.connect((address, port))
            return client.recv(64).decode()
    except OSError as error:
        return type(error).__name__


async def life(namespace_fd: int, path: str) -> None:
    setns(namespace_fd, CLONE_NEWNET)
    async with Engine(Path(path), NetworkSettings(bridge_name="tn0", table="tn", subnet="172.30.0.0/24")) as engine:
        box = await engine.attach(PortRequest(80, host_port=8080))
        with listen(box.namespace_fd, 80) as server:
            threading.Thread(target=tell, args=(server,), daemon=True).start()
            print("ready", box.ip, flush=True)
            while line := await asyncio.to_thread(sys.stdin.readline):
                _verb, address, port = line.split()
                print(await asyncio.to_thread(dial, box.namespace_fd, address, int(port)), flush=True)


if __name__ == "__main__":
    asyncio.run(life(int(sys.argv[1]), sys.argv[2]))
