"""docker-compose 1.29 on a project of two services: up, ps, logs, exec, run, scale, changed settings, down."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

COMPOSE = sys.argv[1]
NETWORKS = sys.argv[2] == "networks"
NAME = os.environ["NAME"]
SCRATCH = Path(os.environ["SCRATCH"])
MODE = "" if NETWORKS else "\n    network_mode: bridge"
PROJECT = f"""
version: "2.4"
services:
  web:
    image: {os.environ["IMAGE"]}
    command: sh -c 'mkdir -p /www; echo from $$NAME > /www/index.html; echo serving; exec httpd -f -p 80 -h /www'
    environment:
      NAME: compose
    ports: ["127.0.0.1::80"]
    volumes: ["kept:/kept"]
    stop_signal: SIGKILL
    mem_limit: 64m
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"]
      interval: 1s
      retries: 20{MODE}
  worker:
    image: {os.environ["IMAGE"]}
    command: sleep 1000
    stop_signal: SIGKILL
    depends_on:
      web:
        condition: service_healthy
    volumes: ["kept:/kept"]{MODE}
volumes:
  kept: {{}}
"""


def compose(*args: str, code: int = 0) -> str:
    """Output of one command, which must exit with the code."""
    argv = [COMPOSE, "--ansi", "never", "-p", NAME, "-f", str(SCRATCH / "compose.yml"), *args]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=200)
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def main() -> None:
    file = SCRATCH / "compose.yml"
    file.write_text(PROJECT)
    try:
        assert "services" in compose("config")
        compose("up", "-d")
        rows = compose("ps")
        assert f"{NAME}_web_1" in rows and "healthy" in rows and f"{NAME}_worker_1" in rows, rows
        assert "serving" in compose("logs", "web")
        address = compose("port", "web", "80").strip()
        assert address.startswith("127.0.0.1:"), address
        assert fetch(f"http://{address}/") == "from compose"
        compose("exec", "-T", "web", "sh", "-c", "echo shared > /kept/file")
        assert compose("exec", "-T", "worker", "cat", "/kept/file").strip() == "shared"
        assert "sleep" in compose("top", "worker")
        if NETWORKS:
            assert compose("exec", "-T", "worker", "wget", "-q", "-O", "-", "http://web/").strip() == "from compose"
        assert "one off" in compose("run", "--rm", "--no-deps", "-T", "worker", "echo", "one off")
        compose("run", "--rm", "--no-deps", "-T", "worker", "sh", "-c", "exit 7", code=7)
        assert "is up-to-date" in compose("up", "-d")
        compose("up", "-d", "--scale", "worker=2")
        assert f"{NAME}_worker_2" in compose("ps")
        file.write_text(PROJECT.replace("NAME: compose", "NAME: changed"))
        assert "ecreat" in compose("up", "-d")
        assert fetch(f"http://{compose('port', 'web', '80').strip()}/") == "from changed"
        compose("restart", "-t", "0", "worker")
        compose("pause", "web")
        assert "Paused" in compose("ps", "web")
        compose("unpause", "web")
        compose("stop", "-t", "0")
        assert "Exit 137" in compose("ps", "-a")
    finally:
        compose("down", "-v", "-t", "0")


def fetch(url: str) -> str:
    """What the server says, once it listens."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return str(answer.read().decode().strip())
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


main()
