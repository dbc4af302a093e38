#!/usr/bin/env python3
"""Throughput and latency of containers' networks, Docker's and Tare's in turn, and of the bare host's loopback.

python3 bench/network.py [--rounds N]. Standard library only; root. Sockets are opened inside the containers' network
namespaces, so that no program in an image has a share in what is measured.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import busybox_archive, remove_place
from engines import Engine

CLONE_NEWNET = 0x40000000
PORT, HOST_PORT = 7001, 17001
SECONDS, PINGS = 0.7, 3000
WAYS = ("container to container", "container to host", "host to a published port")


@contextmanager
def inside(path: str | None) -> Iterator[None]:
    """This thread in another network namespace."""
    if path is None:
        yield
        return
    home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(path, os.O_RDONLY)
    try:
        _setns(there)
        yield
    finally:
        _setns(home)
        os.close(home)
        os.close(there)


def _setns(fd: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def serve(listener: socket.socket) -> None:
    """Echoes what begins with 'e', swallows the rest."""
    connection, _ = listener.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray(1 << 20)
        while size := connection.recv_into(buffer):
            if size == 1 and buffer[:1] == b"e":
                connection.sendall(b"e")


def measure(
    server: str | None, client: str | None, listen: tuple[str, int], to: tuple[str, int]
) -> tuple[float, float]:
    """(gigabits a second, microseconds there and back) of one TCP connection."""
    with inside(server):
        listener = socket.create_server(listen)
    thread = threading.Thread(target=serve, args=(listener,), daemon=True)
    thread.start()
    with listener, inside(client), socket.create_connection(to, 5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trips = []
        for _ in range(PINGS):
            begin = time.perf_counter()
            sock.sendall(b"e")
            sock.recv(1)
            trips.append(time.perf_counter() - begin)
        block, sent, begin = bytes(1 << 20), 0, time.perf_counter()
        while time.perf_counter() - begin < SECONDS:
            sock.sendall(block)
            sent += len(block)
        sock.shutdown(socket.SHUT_WR)
        thread.join()
        return sent * 8 / (time.perf_counter() - begin) / 1e9, statistics.median(trips) * 1e6


def start(engine: Engine) -> dict[str, tuple[Any, ...]]:
    """Two containers on the default network, the second with a published port; the ways to measure between them."""
    body = {"Image": "busybox:latest", "Cmd": ["sleep", "1000"], "Labels": {"tare-bench": "1"}}
    published = {"PortBindings": {f"{PORT}/tcp": [{"HostPort": str(HOST_PORT)}]}}
    found = []
    for host in ({}, published):
        made = engine.call(
            "POST", "/containers/create", body | {"HostConfig": host, "ExposedPorts": {f"{PORT}/tcp": {}}}
        )
        engine.call("POST", f"/containers/{made['Id']}/start")
        found.append(engine.call("GET", f"/containers/{made['Id']}/json"))
    one, two = (f"/proc/{item['State']['Pid']}/ns/net" for item in found)
    settings = found[1]["NetworkSettings"]
    host_namespace = f"/run/netns/{engine.netns}" if engine.netns else None
    here = ("0.0.0.0", PORT)
    return {
        WAYS[0]: (two, one, here, (settings["IPAddress"], PORT)),
        WAYS[1]: (host_namespace, one, here, (settings["Gateway"], PORT)),
        WAYS[2]: (two, host_namespace, here, (settings["Gateway"], HOST_PORT)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tared", default=str(Path(sys.executable).parent / "tared"))
    parser.add_argument("--work", default="/var/tmp")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="tare-bench-", dir=options.work))
    engines = [Engine("docker", "dockerd", place, 5, "dockerd"), Engine("tare", "tared", place, 6, options.tared)]
    for engine in engines:
        engine.netns = engine.bridge  # both alike: the machine's own rules have no share in what is measured
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    try:
        ways = {}
        for engine in engines:
            engine.start()
            engine.call("POST", "/images/create", busybox_archive(), fromSrc="-", repo="busybox", tag="latest")
            ways[engine.name] = start(engine)
        for _ in range(options.rounds):
            for way in WAYS:
                for engine in engines:
                    results.setdefault((way, engine.name), []).append(measure(*ways[engine.name][way]))
            bare = measure(None, None, ("127.0.0.1", PORT), ("127.0.0.1", PORT))
            results.setdefault(("the bare host's loopback", "host"), []).append(bare)
    finally:
        for engine in engines:
            engine.stop()
        remove_place(place)
    print("| way | where | Gbit/s (median) | there and back, µs (median) |\n|---|---|--:|--:|")
    for (way, name), samples in results.items():
        speed, trip = (statistics.median(sample[number] for sample in samples) for number in (0, 1))
        print(f"| {way} | {name} | {speed:.1f} | {trip:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
