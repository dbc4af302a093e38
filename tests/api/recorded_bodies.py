"""Bodies of POST /containers/create: wrong ones and what a real dockerd (20.10) said, odd ones that it took."""

from __future__ import annotations

import json
from pathlib import Path

REFUSED: list[tuple[str, str]] = [
    (body, message)
    for body, message in map(json.loads, (Path(__file__).parent / "wrong_bodies.jsonl").read_text().splitlines())
]

ACCEPTED = [
    '{"Image":"some/image","HostConfig":{"CapAdd":"ALL"}}',
    '{"Image":"some/image","HostConfig":{"ConsoleSize":[1,2,3]}}',
    '{"Image":"some/image"} x',
    '{"Image":"some/image","Tty":null,"HostConfig":null,"Cmd":null}',
    '{"IMAGE":"some/image","hostconfig":{"MEMORY":67108864}}',
    '{"Image":"some/image","Unknown":{"a":[1]}}',
    '{"Image":"some/image","Cmd":"sh"}',
    '{"Image":"some/image","HostConfig":{"PortBindings":{"80/tcp":null}}}',
]
