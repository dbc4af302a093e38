"""log, reflog, undo of a moved name, squash: images as versions."""

from __future__ import annotations

from collections.abc import Sequence

from tare.engine.engine import Engine, in_thread
from tare.engine.image_verbs import resolve_image
from tare.errors import InvalidArgument
from tare.images import graph
from tare.images import reflog as image_reflog
from tare.images.graph import Version
from tare.images.moves import Move
from tare.images.squash import SquashOptions, squash
from tare.values.ids import short_id
from tare.values.reference import parse_reference


async def log_versions(engine: Engine, refs: Sequence[str] = ()) -> list[Version]:
    """All images as versions, or those named and what they were made from. Raises NotFound, InvalidArgument."""
    heads = [resolve_image(engine, ref) for ref in refs]
    return await in_thread(graph.versions, engine.images, heads or None)


async def reflog(engine: Engine, name: str = "") -> list[tuple[Move, bool]]:
    """Where a name (or each) was before, newest first; whether the image that it left is still there."""
    reference = parse_reference(name).with_default_tag() if name else None
    moves = await in_thread(image_reflog.reflog, engine.images, reference)
    present = {image.id for image in await in_thread(engine.images.all)}
    return [(move, move.old_id in present) for move in moves]


async def undo_move(engine: Engine, name: str) -> Move:
    """Puts a name back to where it was before its last move. Raises NotFound, InvalidArgument."""
    move = await in_thread(image_reflog.undo, engine.images, parse_reference(name))
    attributes = {"name": move.reference.familiar}
    if move.new_id is None:
        engine.events.publish("image", "untag", move.old_id or "", attributes)
    else:
        engine.events.publish("image", "tag", move.new_id, attributes)
    return move


async def squash_versions(engine: Engine, below_ref: str, top_ref: str, name: str, *, message: str, author: str) -> str:
    """All that came after one version ("": everything) up to another as one; returns the new image's id.

    Raises NotFound, InvalidArgument.
    """
    below = resolve_image(engine, below_ref) if below_ref else None
    top = resolve_image(engine, top_ref)
    reference = parse_reference(name).with_default_tag() if name else None
    if reference is not None and reference.digest is not None:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    options = SquashOptions(
        message=message,
        author=author,
        created_by=f"tare squash {short_id(below.id) if below else ''}..{short_id(top.id)}",
        reference=reference,
    )
    image = await in_thread(squash, engine.images, engine.snapshots, below, top, options)
    if reference is not None:
        engine.events.publish("image", "tag", image.id, {"name": reference.familiar})
    return image.id


__all__ = ["Move", "Version", "log_versions", "reflog", "squash_versions", "undo_move"]
