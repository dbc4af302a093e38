"""What Docker's client did for each command line: recorded once into recorded.json, compared on every run.

`python tests/cli/recorded.py` records anew; it needs Docker's client 28.x on PATH. Only differences from the body of
the plain `create x` are kept, so that the file stays readable.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from recorder import Recorded, Recorder

FILE = Path(__file__).with_name("recorded.json")
VARIABLES = "A=1\n# c\n\n  B=2\nPATHX\nHOME\nC= x \n"
MISSING = "(missing)"


class Bench:
    """A recording engine, a fixed environment and a file of variables below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.recorder = Recorder(directory / "engine.sock")
        self.recorder.answers[("GET", "/containers/x/json")] = (
            200,
            {"Id": "c" * 64, "State": {"Running": True}, "Config": {"Tty": False}},
        )
        self.recorder.answers[("POST", "/networks/create")] = (201, {"Id": "d" * 64, "Warning": ""})
        self.recorder.answers[("POST", "/containers/x/update")] = (200, {"Warnings": None})
        self.recorder.answers[("DELETE", "/images/a")] = (200, [{"Untagged": "a:latest"}, {"Deleted": "sha256:1"}])
        self.variables = directory / "variables"
        self.variables.write_text(VARIABLES)
        self.environment = {"PATH": os.environ["PATH"], "HOME": "/home/me", "DOCKER_HOST": self.recorder.host}

    def run(self, program: list[str], line: str) -> dict[str, Any]:
        """What the program did: {"code", "out", "err", "requests"}."""
        words = shlex.split(line.replace("@FILE@", str(self.variables)))
        done = subprocess.run(
            [*program, *words],
            env=self.environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )
        requests = [self._shown(request) for request in self.recorder.take()]
        return {
            "code": done.returncode,
            "out": self._neutral(done.stdout),
            "err": self._neutral(done.stderr),
            "requests": requests,
        }

    def _shown(self, request: Recorded) -> list[Any]:
        method, path, query, body = request.key()
        text = body.decode() if isinstance(body, bytes) else body
        neutral: list[Any] = json.loads(self._neutral(json.dumps([method, path, query, text])))
        return neutral

    def _neutral(self, text: str) -> str:
        text = text.replace(str(self.variables), "@FILE@").replace(str(self.recorder.path), "@SOCKET@")
        return text.replace("docker.io", "hub.io").replace("docker", "tare").replace("Docker", "Tare")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by path; lists are sorted, since Docker's client keeps many of them in maps."""
    if isinstance(value, dict) and value:
        return {key: leaf for name, item in value.items() for key, leaf in flat(item, f"{path}|{name}").items()}
    if isinstance(value, list):
        return {path: sorted(value, key=str)}
    return {path: value}


def difference(base: dict[str, Any], body: Any) -> Any:
    leaves, plain = flat(body), flat(base)
    changed = {key: value for key, value in leaves.items() if key not in plain or plain[key] != value}
    return changed | {key: MISSING for key in plain if key not in leaves}


def comparable(result: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """`result` with create bodies as differences from the plain one."""
    requests = []
    for method, path, query, body in result["requests"]:
        shown = (
            difference(base, body) if path == "/containers/create" else flat(body) if isinstance(body, dict) else body
        )
        requests.append([method, path, query, shown])
    return {**result, "requests": requests}


def record(program: list[str]) -> dict[str, Any]:
    from command_lines import CREATE, OTHERS, lines

    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        base = bench.run(program, "create x")["requests"][0][3]
        results = {line: comparable(bench.run(program, line), base) for line in lines(CREATE) + lines(OTHERS)}
        bench.recorder.stop()
    return {"base": base, "results": results}


if __name__ == "__main__":
    found = record(["docker"])
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(f"{len(found['results'])} command lines recorded\n")
