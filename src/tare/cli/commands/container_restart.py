"""`tare restart`: stops and starts containers."""

from __future__ import annotations

from tare.cli.ending import ending

COMMAND = ending("restart")
