"""What the daemon takes from this room: the handler of all operations, and the server that runs it."""

from __future__ import annotations

from tare.api import (
    absent,
    archive,
    containers,
    disk_usage,
    execs,
    fsck,
    image_transfer,
    image_travel,
    images,
    lifecycle,
    move,
    networks,
    pack,
    registries,
    stats,
    streams,
    system,
    trash,
    versions,
    volumes,
)
from tare.api.router import Router
from tare.api.scope import Scope
from tare.api.server import Server, serve
from tare.engine.engine import Engine

ROUTES = (
    *system.ROUTES,
    *containers.ROUTES,
    *archive.ROUTES,
    *disk_usage.ROUTES,
    *lifecycle.ROUTES,
    *move.ROUTES,
    *streams.ROUTES,
    *stats.ROUTES,
    *execs.ROUTES,
    *fsck.ROUTES,
    *images.ROUTES,
    *image_transfer.ROUTES,
    *image_travel.ROUTES,
    *networks.ROUTES,
    *pack.ROUTES,
    *registries.ROUTES,
    *versions.ROUTES,
    *volumes.ROUTES,
    *trash.ROUTES,
    *absent.ROUTES,
)


def build_api(engine: Engine, scope: Scope | None = None) -> Router:
    """The handler of Docker's Engine API on an engine. scope: what it allows, if that isn't everything."""
    return Router(engine, ROUTES, scope)


__all__ = ["Scope", "Server", "build_api", "serve"]
