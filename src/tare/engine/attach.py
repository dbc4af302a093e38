"""attach: a client's connection to a container's stdio, before or while it runs."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

from tare.engine import logs
from tare.engine.engine import Engine
from tare.engine.options import AttachOptions, LogsOptions
from tare.engine.records import Container
from tare.engine.streams import AttachSession, open_session
from tare.errors import Conflict
from tare.runtime.messages import StreamWish


async def attach_container(engine: Engine, ref: str, options: AttachOptions) -> AttachSession:
    """Attaches; what isn't running yet is attached when it starts.

    Raises NotFound, Conflict (paused or restarting), InvalidArgument (detach keys), with Docker's texts.
    """
    container = engine.containers.find(ref)
    status = container.state.status
    if status == "paused":
        raise Conflict(f"container {ref} is paused, unpause the container before attach")
    if status == "restarting":
        raise Conflict(f"container {ref} is restarting, wait until the container is running")
    history = await _history(engine, container, options) if options.logs else None
    session, theirs = await open_session(
        tty=container.config.tty,
        detach_keys=options.detach_keys,
        history=history,
        on_detach=lambda: engine.events.container(container, "detach"),
    )
    wish = StreamWish(options.stdin and container.config.open_stdin, options.stdout, options.stderr)
    if not options.stream:
        theirs.close()
        return session
    live = engine.live.get(container.id)
    if live is None:
        engine.pending_streams.setdefault(container.id, []).append((wish, theirs))
        session.on_close = lambda: _forget(engine, container.id, theirs)
    else:
        try:
            live.link.attach(wish, theirs)
        except OSError:
            pass  # it ends just now: the client sees the end of the stream
        theirs.close()
    engine.events.container(container, "attach")
    return session


def _forget(engine: Engine, container_id: str, stream: socket.socket) -> None:
    """The client left before the container was started."""
    waiting = engine.pending_streams.get(container_id, [])
    kept = [entry for entry in waiting if entry[1] is not stream]
    if len(kept) < len(waiting):
        stream.close()
        engine.pending_streams[container_id] = kept


async def _history(engine: Engine, container: Container, options: AttachOptions) -> AsyncIterator[bytes]:
    wanted = LogsOptions(stdout=options.stdout, stderr=options.stderr)
    return aiter(await logs.container_logs(engine, container.id, wanted))
