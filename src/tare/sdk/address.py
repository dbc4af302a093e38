"""Which engine `tare.connect()` means: its arguments, then what the command line would take. Connects to nothing."""

from __future__ import annotations

from pathlib import Path

from tare.client.endpoint import TlsWish, choose_endpoint
from tare.client.host import Host, default_host


def choose_host(host: str | None, context: str | None, certificates: str | Path | None) -> Host:
    """host: "unix:///…", "tcp://…", "ssh://…". certificates: a directory with ca.pem, cert.pem and key.pem, for TLS."""
    wish = None
    if certificates is not None:
        folder = Path(certificates).expanduser()
        wish = TlsWish(True, True, *(str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem")))
    return choose_endpoint(host, context, wish) or default_host()
