"""What the daemon takes from this room: the handler of all operations, and the server that runs it."""

from __future__ import annotations

from tare.api import (
    absent,
    archive,
    containers,
    disk_usage,
    execs,
    image_transfer,
    images,
    lifecycle,
    networks,
    stats,
    streams,
    system,
    trash,
    versions,
    volumes,
)
from tare.api.router import Router
from tare.api.server import Server, serve
from tare.engine.engine import Engine

ROUTES = (
    *system.ROUTES,
    *containers.ROUTES,
    *archive.ROUTES,
    *disk_usage.ROUTES,
    *lifecycle.ROUTES,
    *streams.ROUTES,
    *stats.ROUTES,
    *execs.ROUTES,
    *images.ROUTES,
    *image_transfer.ROUTES,
    *networks.ROUTES,
    *versions.ROUTES,
    *volumes.ROUTES,
    *trash.ROUTES,
    *absent.ROUTES,
)


def build_api(engine: Engine) -> Router:
    """The handler of Docker's Engine API on an engine."""
    return Router(engine, ROUTES)


__all__ = ["Server", "build_api", "serve"]
