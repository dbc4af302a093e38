"""`tare.connect()`."""

from __future__ import annotations

from pathlib import Path

from tare.sdk.blocking.client import Client


def connect(
    host: str | None = None,
    *,
    context: str | None = None,
    certificates: str | Path | None = None,
    version: str | None = None,
    timeout_s: float | None = None,
) -> Client:
    """A client whose engine answers. Arguments as Client's. Raises CannotConnect if nobody is there."""
    client = Client(host, context=context, certificates=certificates, version=version, timeout_s=timeout_s)
    client.ping()
    return client
