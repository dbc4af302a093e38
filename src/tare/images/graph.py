"""`log`: images as a graph of versions: which was made from which, newest first.

Must never need what isn't there: a parent that was removed is passed over for its nearest ancestor.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import msgspec

from tare.images.images import Images
from tare.images.records import Image
from tare.oci.image_spec import History


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """An image as a version. parent_id: the nearest before it that is here, or ""; own_bytes: of layers it hasn't."""

    image: Image
    parent_id: str
    author: str
    message: str
    created_by: str
    own_bytes: int


_Key = tuple[tuple[str, ...], tuple[History, ...]]


def versions(images: Images, heads: Iterable[Image] | None = None) -> list[Version]:
    """All images, or the heads and what they were made from; every version before its parent, newer ones first."""
    every = {image.id: image for image in images.all()}
    parents = _parents(every)
    wanted = set(every)
    if heads is not None:
        wanted = set()
        for head in heads:
            at = head.id
            while at and at not in wanted:
                wanted.add(at)
                at = parents.get(at, "")
    return [_version(images, every[image_id], parents[image_id]) for image_id in _ordered(every, parents, wanted)]


def _parents(every: dict[str, Image]) -> dict[str, str]:
    """Of each image the one before it: the last commit of its container, else the image that it was made from, else

    the one whose layers and history it goes on from.
    """
    known: dict[_Key, str] = {}
    for image in every.values():
        known.setdefault(_key(image, len(image.spec.history)), image.id)
    found = {}
    for image in every.values():
        recorded = next((one for one in (image.previous_id, image.parent_id) if one in every and one != image.id), None)
        found[image.id] = recorded or _derived(image, known)
    return _without_circles(found)


def _derived(image: Image, known: dict[_Key, str]) -> str:
    for count in range(len(image.spec.history) - 1, 0, -1):
        ancestor = known.get(_key(image, count))
        if ancestor is not None and ancestor != image.id:
            return ancestor
    return ""


def _key(image: Image, count: int) -> _Key:
    steps = tuple(image.spec.history[:count])
    layers = sum(1 for step in steps if not step.empty_layer)
    return image.diff_ids[:layers], steps


def _without_circles(parents: dict[str, str]) -> dict[str, str]:
    """Records are foreign in part; a parent that leads back is none."""
    done: set[str] = set()
    for start in parents:
        path: list[str] = []
        at = start
        while at and at not in done and at not in path:
            path.append(at)
            at = parents.get(at, "")
        if at in path:
            parents[path[-1]] = ""
        done.update(path)
    return parents


def _ordered(every: dict[str, Image], parents: dict[str, str], wanted: set[str]) -> list[str]:
    """Children before parents; among those that may come next, the newest (as a commit's date says)."""
    left = dict.fromkeys(wanted, 0)
    for image_id in wanted:
        if parents[image_id] in left:
            left[parents[image_id]] += 1
    ready = [(-every[image_id].created_ns, image_id) for image_id in wanted if not left[image_id]]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, image_id = heapq.heappop(ready)
        ordered.append(image_id)
        parent = parents[image_id]
        if parent in left:
            left[parent] -= 1
            if not left[parent]:
                heapq.heappush(ready, (-every[parent].created_ns, parent))
    return ordered


def _version(images: Images, image: Image, parent_id: str) -> Version:
    last = image.spec.history[-1] if image.spec.history else History()
    below = set(images.get(parent_id).diff_ids) if parent_id else set()
    return Version(
        image=image,
        parent_id=parent_id,
        author=last.author or image.spec.author,
        message=last.comment,
        created_by=last.created_by,
        own_bytes=sum(images.layers.get(diff_id).size_bytes for diff_id in image.diff_ids if diff_id not in below),
    )
