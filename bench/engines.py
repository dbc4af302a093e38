"""Engines that the benchmark starts for itself, a client for their API, and what their processes cost in memory.

Standard library only. Each engine has its own data, and dockerd its own network namespace, since two engines in one
would rewrite each other's firewall.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

LABEL = "tare-bench"


class BenchError(Exception):
    """An engine did not do what the benchmark asked of it."""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("bench", timeout=120)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Engine:
    """One engine under test."""

    def __init__(self, name: str, kind: str, place: Path, number: int, program: str) -> None:
        self.name, self.kind, self.program = name, kind, program
        self.data, self.exec_root = place / name / "data", place / name / "exec"
        self.socket, self.pidfile = place / name / "engine.sock", place / name / "engine.pid"
        self.log = place / f"{name}.log"
        self.bip = f"172.31.{190 + number}.1/24"
        self.bridge = f"tarebench{number}"
        self.netns = self.bridge if kind == "dockerd" else None
        self.process: subprocess.Popen[bytes] | None = None
        self.local = threading.local()

    # ---- life

    def start(self) -> None:
        for folder in (self.data, self.exec_root):
            folder.mkdir(parents=True, exist_ok=True)
        command = [self.program, "--data-root", str(self.data), "--exec-root", str(self.exec_root)]
        command += ["--pidfile", str(self.pidfile), "-H", f"unix://{self.socket}", "--bip", self.bip]
        if self.kind == "tared":
            command += ["--bridge", self.bridge]
        else:
            command += ["--cgroup-parent", self.bridge]  # so that it can be told from another dockerd's, and removed
        if self.netns:
            subprocess.run(["ip", "netns", "add", self.netns], check=True)
            subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)
            command = ["nsenter", f"--net=/run/netns/{self.netns}", *command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, BenchError):
                self.call("GET", "/_ping")
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"{self.name} does not answer; see {self.log}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(OSError, BenchError):
            self.remove_all()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.netns:
            subprocess.run(["ip", "netns", "delete", self.netns], capture_output=True)
            for group in Path("/sys/fs/cgroup").glob(f"**/{self.bridge}"):
                with contextlib.suppress(OSError):
                    group.rmdir()
        else:
            subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True)

    # ---- API

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """One request on this thread's connection; returns the decoded JSON, or the bytes of another answer."""
        if not hasattr(self.local, "connection"):
            self.local.connection = UnixConnection(str(self.socket))
        connection = self.local.connection
        headers = {}
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        url = f"/v1.41{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        try:
            connection.request(method, url, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except BaseException:
            connection.close()
            raise
        if answer.status >= 400:
            raise BenchError(f"{self.name}: {method} {path}: {answer.status} {data[:200].decode(errors='replace')}")
        if "json" in answer.headers.get("Content-Type", "") and data:
            return json.loads(data.splitlines()[-1])
        return data

    def create(self, command: list[str], network: str = "none") -> str:
        body = {
            "Image": "busybox:latest",
            "Cmd": command,
            "Labels": {LABEL: "1"},
            "HostConfig": {"NetworkMode": network},
        }
        return str(self.call("POST", "/containers/create", body)["Id"])

    def started(self, image: str, script: str) -> str:
        """A container that has run a script and sleeps."""
        body = {"Image": image, "Cmd": ["sh", "-c", f"{script}; echo ready; exec sleep 3600"]}
        container = str(self.call("POST", "/containers/create", {**body, "HostConfig": {"NetworkMode": "none"}})["Id"])
        self.call("POST", f"/containers/{container}/start")
        end = time.monotonic() + 120
        while b"ready" not in self.call("GET", f"/containers/{container}/logs", stdout="1"):
            if time.monotonic() > end:
                raise BenchError(f"{self.name}: a container did not get ready: {script}")
            time.sleep(0.05)
        return container

    def exec_attached(self, container: str, command: list[str]) -> None:
        """Runs a command in a container and reads its stream to the end, as `docker exec` does."""
        body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
        exec_id = self.call("POST", f"/containers/{container}/exec", body)["Id"]
        payload = b'{"Detach": false, "Tty": false}'
        head = (
            f"POST /v1.41/exec/{exec_id}/start HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(60)
            stream.connect(str(self.socket))
            stream.sendall(head.encode() + payload)
            while stream.recv(65536):
                pass
        code = self.call("GET", f"/exec/{exec_id}/json")["ExitCode"]
        if code != 0:
            raise BenchError(f"{self.name}: exec ended with {code}")

    def remove(self, container: str) -> None:
        self.call("DELETE", f"/containers/{container}", force="1")

    def remove_all(self) -> None:
        for container in self.call("GET", "/containers/json", all="1"):
            self.remove(container["Id"])

    # ---- memory

    def memory(self) -> int:
        """Proportional set size, in bytes, of the engine's processes without what runs in its containers."""
        return sum(proportional_set_size(pid) for pid in self.processes())

    def processes(self) -> set[int]:
        table = process_table()
        assert self.process is not None
        inside = {
            int(self.call("GET", f"/containers/{container['Id']}/json")["State"]["Pid"])
            for container in self.call("GET", "/containers/json")
        }
        # A shim or a monitor is no child of the engine's, but was started with its folder in the command line.
        folder = os.fsencode(self.exec_root)
        found = {pid for pid, (_, line) in table.items() if folder in line} | {self.process.pid}
        while True:
            more = {pid for pid, (parent, _) in table.items() if parent in found} - found - inside
            if not more:
                return {pid for pid in found - inside if not under(pid, inside, table)}
            found |= more


def under(pid: int, tops: set[int], table: dict[int, tuple[int, bytes]]) -> bool:
    """Whether a process descends from one of `tops`."""
    while pid in table:
        if pid in tops:
            return True
        pid = table[pid][0]
    return False


def process_table() -> dict[int, tuple[int, bytes]]:
    """Of every process: its parent and its command line."""
    table = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            table[int(folder.name)] = (parent, (folder / "cmdline").read_bytes())
    return table


def proportional_set_size(pid: int) -> int:
    with contextlib.suppress(OSError):
        match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(match[1]) * 1024 if match else 0
    return 0
