"""`tare stop`: stops containers, by force after their time is up."""

from __future__ import annotations

from tare.cli.ending import ending

COMMAND = ending("stop")
