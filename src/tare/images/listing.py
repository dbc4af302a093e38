"""`images`: which images there are, by Docker's filters."""

from __future__ import annotations

import fnmatch
import re

from tare.errors import InvalidArgument
from tare.images.images import Images
from tare.images.records import Image
from tare.images.resolve import resolve
from tare.values.filters import Filters, flag, match_labels, match_no_labels
from tare.values.reference import parse_reference
from tare.values.timestamps import parse_instant

ACCEPTED = ("before", "dangling", "label", "label!", "reference", "since", "until")


def list_images(images: Images, filters: Filters | None = None, *, all_images: bool = False) -> list[Image]:
    """Newest first. Without all_images, untagged images are left out that others were made from or an index holds."""
    filters = filters or {}
    for name in filters:
        if name not in ACCEPTED:
            raise InvalidArgument(f"invalid filter '{name}'")
    dangling = flag(filters, "dangling", False) if "dangling" in filters else None
    since = max((resolve(images, text).created_ns for text in filters.get("since", ())), default=None)
    before = min((resolve(images, text).created_ns for text in filters.get("before", ())), default=None)
    until = min((parse_instant(text) for text in filters.get("until", ())), default=None)
    patterns = filters.get("reference", ())
    found = []
    every = images.all()
    parents = {image.parent_id for image in every}
    for image in every:
        if since is not None and image.created_ns <= since:
            continue
        if before is not None and image.created_ns >= before:
            continue
        if until is not None and image.created_ns > until:
            continue
        labels = image.config.labels
        if not match_labels(filters, labels) or not match_no_labels(filters, labels):
            continue
        if dangling is not None and image.dangling != dangling:
            continue
        unnamed = not image.repo_tags and not image.repo_digests
        if unnamed and (image.part_of or image.id in parents) and not all_images:
            continue
        if patterns:
            matched = _matching(image, patterns)
            if matched is None:
                continue
            image = matched
        found.append(image)
    return found


def _matching(image: Image, patterns: tuple[str, ...]) -> Image | None:
    """The image with only those names that a pattern fits, None if none does."""
    tags = tuple(name for name in image.repo_tags if any(_fits(name, pattern) for pattern in patterns))
    digests = tuple(name for name in image.repo_digests if any(_fits(name, pattern) for pattern in patterns))
    if not tags and not digests:
        return None
    return Image(
        **{
            **{name: getattr(image, name) for name in image.__struct_fields__},
            "repo_tags": tags,
            "repo_digests": digests,
        }
    )


def _fits(name: str, pattern: str) -> bool:
    """Go's path.Match of a pattern with the name, with and without its tag."""
    if pattern.count("[") != pattern.count("]"):
        raise InvalidArgument("syntax error in pattern")
    reference = parse_reference(name)
    return _match(pattern, reference.familiar) or _match(pattern, reference.repository)


def _match(pattern: str, name: str) -> bool:
    """`*` and `?` don't cross a slash."""
    parts, names = pattern.split("/"), name.split("/")
    return len(parts) == len(names) and all(
        re.match(fnmatch.translate(part.replace("[^", "[!")), piece) for part, piece in zip(parts, names, strict=True)
    )
