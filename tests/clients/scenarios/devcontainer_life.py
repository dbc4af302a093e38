"""The dev-containers CLI: a folder's container comes up with its settings, runs a program, comes up again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CLI = sys.argv[1]
SCRATCH = Path(os.environ["SCRATCH"])
NAME = os.environ["NAME"]
SETTINGS = {
    "name": NAME,
    "image": os.environ["IMAGE"],
    "overrideCommand": True,
    "remoteUser": "root",
    "containerEnv": {"FROM_SETTINGS": "1"},
    "runArgs": ["--name", NAME, "--stop-signal", "SIGKILL"],
    "mounts": [{"type": "volume", "source": f"{NAME}-v", "target": "/cache"}],
    "postCreateCommand": "echo created > /cache/created",
    "userEnvProbe": "none",
}


def devcontainer(*args: str) -> str:
    """Output of one command."""
    options = ["--workspace-folder", str(SCRATCH), "--skip-post-attach"] if args[0] == "up" else []
    options = options or ["--workspace-folder", str(SCRATCH)]
    done = subprocess.run(["node", CLI, args[0], *options, *args[1:]], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, (args, done.stdout[-2000:], done.stderr[-3000:])
    return done.stdout


def docker(*args: str) -> str:
    return subprocess.run(["docker", *args], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    (SCRATCH / ".devcontainer").mkdir()
    (SCRATCH / ".devcontainer" / "devcontainer.json").write_text(json.dumps(SETTINGS))
    (SCRATCH / "file").write_text("in the folder")
    try:
        first = json.loads(devcontainer("up").splitlines()[-1])
        assert first["outcome"] == "success", first
        assert devcontainer("exec", "sh", "-c", "cat file; echo $FROM_SETTINGS; cat /cache/created").split("\n")[
            :3
        ] == [
            "in the folder1",
            "created",
            "",
        ]
        again = json.loads(devcontainer("up").splitlines()[-1])
        assert again["containerId"] == first["containerId"]
        assert (
            docker("ps", "-q", "--no-trunc", "--filter", f"label=devcontainer.local_folder={SCRATCH}")
            == (first["containerId"])
        )
    finally:
        docker("rm", "-f", NAME)
        docker("volume", "rm", "-f", f"{NAME}-v")


main()
