"""compare: what differs between any two of image, container and commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from tare.engine.engine import Engine, in_thread
from tare.errors import NotFound
from tare.images.resolve import resolve
from tare.storage.compare import Difference, Facts, compare
from tare.storage.merged import Stack


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Something with a file system. kind: container or image; name: as the user knows it, perhaps ""."""

    kind: str
    id: str
    name: str
    layers: tuple[str, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    old: View
    new: View
    differences: tuple[Difference, ...]


def find_view(engine: Engine, ref: str) -> View:
    """The container or image that a user means; a container wins. Raises NotFound, InvalidArgument."""
    try:
        container = engine.containers.find(ref)
    except NotFound:
        pass
    else:
        return View(kind="container", id=container.id, name=container.name, layers=container.layers)
    try:
        image = resolve(engine.images, ref)
    except NotFound:
        raise NotFound(f"No such container or image: {ref}") from None
    name = next(iter(image.repo_tags), "")
    return View(kind="image", id=image.id, name=name, layers=image.diff_ids)


async def compare_views(engine: Engine, old_ref: str, new_ref: str, *, patches: bool) -> Comparison:
    """From the old to the new; patches: with the changes of text files. Raises NotFound, InvalidArgument."""
    old, new = find_view(engine, old_ref), find_view(engine, new_ref)
    found = await in_thread(_compare, engine, old, new, patches)
    return Comparison(old=old, new=new, differences=tuple(found))


def _compare(engine: Engine, old: View, new: View, patches: bool) -> list[Difference]:
    layers = sorted({*old.layers, *new.layers})
    with engine.layers.lease(layers, reads=True), _stack(engine, old) as before, _stack(engine, new) as after:
        return compare(before, after, patches=patches)


@contextmanager
def _stack(engine: Engine, view: View) -> Iterator[Stack]:
    snapshots = engine.snapshots
    with snapshots.stack(view.id) if view.kind == "container" else snapshots.stack_of(view.layers) as stack:
        yield stack


__all__ = ["Comparison", "Difference", "Facts", "View", "compare_views", "find_view"]
