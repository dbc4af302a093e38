"""resize: the size of a container's terminal."""

from __future__ import annotations

from tare.engine.engine import Engine
from tare.errors import Conflict, InvalidArgument


def check_size(height: int, width: int) -> None:
    """Raises InvalidArgument for what no terminal can have."""
    if not 0 <= height <= 65535 or not 0 <= width <= 65535:
        raise InvalidArgument(f"invalid resize height/width: {height}x{width}")


async def resize_container(engine: Engine, ref: str, *, height: int, width: int) -> None:
    """Sets the terminal's size. Raises NotFound, Conflict if the container isn't running."""
    check_size(height, width)
    container = engine.containers.find(ref)
    live = engine.live.get(container.id)
    if live is None:
        raise Conflict(f"container {container.id} is not running")
    try:
        live.link.resize(height, width)
    except OSError as error:
        raise Conflict(f"container {container.id} is not running") from error
    engine.events.container(container, "resize", height=str(height), width=str(width))
