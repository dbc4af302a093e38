"""`remove`: takes a name away, or the image with all its names, and the layers that nothing else has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from tare import faults
from tare.errors import Conflict, TareError
from tare.images import documents
from tare.images.images import Images, drop_reference
from tare.images.records import Image, Keep, Removed, RemovedImage, Use, Uses
from tare.images.resolve import is_id_of, resolve
from tare.storage.digests import chain_id
from tare.storage.full_disk import naming_the_disk
from tare.values.ids import short_id
from tare.values.reference import Reference, parse_reference


class ImageInUse(Conflict):
    """used: a container uses the image. hard: force doesn't help."""

    def __init__(self, image_id: str, reason: str, *, hard: bool = False, used: bool = False) -> None:
        self.hard = hard
        self.used = used
        force = "cannot be forced" if hard else "must be forced"
        super().__init__(f"conflict: unable to delete {short_id(image_id)} ({force}) - {reason}")


def no_uses() -> Sequence[Use]:
    return ()


def nothing_waits(_holder: str) -> bool:
    return False


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """How images are removed. keep: who takes them over, if anybody does. waits: whether a holder of layers (see
    `Layers.holders`) is itself something removed, so that what only it has is gone for the user. were_names: names
    that the image had until just before.
    """

    force: bool = False
    noprune: bool = False
    in_use: Uses = no_uses
    keep: Keep | None = None
    waits: Callable[[str], bool] = nothing_waits
    were_names: tuple[str, ...] = ()


def remove(
    images: Images, text: str, *, force: bool = False, noprune: bool = False, in_use: Uses = no_uses
) -> list[Removed]:
    """Removes what `text` names, by Docker's rules; untagged parents that nothing needs go too unless noprune."""
    return remove_as(images, text, Removal(force=force, noprune=noprune, in_use=in_use))


def remove_as(images: Images, text: str, how: Removal) -> list[Removed]:
    """The same, with all that can be told of the removal."""
    with images.lock, naming_the_disk(images.layers.root):
        image = resolve(images, text)
        uses = list(how.in_use())
        removed: list[Removed] = []
        if is_id_of(image.id, text):
            if _single(images.references(image.id)):
                _check(images, image.id, uses, how.force, names_matter=False)
                for reference in images.references(image.id):
                    removed.append(_untag(images, reference, image.id))
            _delete(images, image.id, uses, removed, how, quiet=False)
        else:
            _remove_name(images, image, text, uses, removed, how.force)
            if not images.references(image.id):
                _delete(images, image.id, uses, removed, how, quiet=True)
    return removed


def _remove_name(images: Images, image: Image, text: str, uses: list[Use], removed: list[Removed], force: bool) -> None:
    using = next((use for use in uses if use.image_id == image.id), None)
    if not force and using is not None and _single(images.references(image.id)):
        raise Conflict(
            f'conflict: unable to remove repository reference "{text}" (must force) - container'
            f" {short_id(using.container_id)} is using its referenced image {short_id(image.id)}"
        )
    reference = parse_reference(text).with_default_tag()
    removed.append(_untag(images, reference, image.id))
    rest = images.references(image.id)
    same = [other for other in rest if other.repository == reference.repository]
    if reference.tag is not None and all(other.tag is None for other in same):
        removed.extend(_untag(images, other, image.id) for other in same)  # digests go with a repository's last tag


def _single(references: list[Reference]) -> bool:
    """Whether an image has one name: at most one tag, all in one repository."""
    return len({name.repository for name in references}) <= 1 and sum(1 for name in references if name.tag) <= 1


def _untag(images: Images, reference: Reference, image_id: str) -> Removed:
    with images.db.transaction(frees=True) as tx:
        drop_reference(tx, reference, why="remove")
        faults.point("images.remove.untag")
    return Removed(kind="untagged", value=reference.familiar, image_id=image_id)


def _check(images: Images, image_id: str, uses: list[Use], force: bool, *, names_matter: bool = True) -> None:
    """Raises what forbids the deletion: children and running containers always, the rest unless forced."""
    if images.children(image_id):
        raise ImageInUse(image_id, "image has dependent child images", hard=True)
    mine = [use for use in uses if use.image_id == image_id]
    for use in mine:
        if use.running:
            reason = f"image is being used by running container {short_id(use.container_id)}"
            raise ImageInUse(image_id, reason, hard=True, used=True)
    if force:
        return
    if names_matter and images.references(image_id):
        raise ImageInUse(image_id, "image is referenced in multiple repositories")
    if mine:
        reason = f"image is being used by stopped container {short_id(mine[0].container_id)}"
        raise ImageInUse(image_id, reason, used=True)


def _delete(
    images: Images, image_id: str, uses: list[Use], removed: list[Removed], how: Removal, *, quiet: bool
) -> None:
    """Deletes an image, then its parents while nothing needs them (quietly, stopping at the first conflict)."""
    force, names = how.force, list(how.were_names)
    while True:
        try:
            _check(images, image_id, uses, force)
        except ImageInUse as conflict:
            if quiet and (images.references(image_id) or images.children(image_id) or conflict.used):
                return
            raise
        image = images.get(image_id)
        removed.extend(_untag(images, reference, image_id) for reference in images.references(image_id))
        names += [line.value for line in removed if line.kind == "untagged" and line.image_id == image_id]
        removed.extend(_forget(images, image, tuple(dict.fromkeys(names)), how))
        names = []
        if how.noprune or image.parent_id is None or images.find(image.parent_id) is None:
            return
        image_id, force, quiet = image.parent_id, False, True
        if images.references(image_id) or images.children(image_id):
            return
        if any(use.image_id == image_id for use in uses):
            return


def _forget(images: Images, image: Image, names: tuple[str, ...], how: Removal) -> list[Removed]:
    held = [image.id, image.manifest_digest, *documents.all_of(images, image.id)]
    with images.db.transaction(frees=True) as tx:
        tx.run("DELETE FROM images WHERE image_id = ?", (image.id,))
        images.layers.drop_root(tx, f"image:{image.id}")
        if how.keep is not None and (taken := _what_it_takes(images, image, names)) is not None:
            how.keep(tx, taken)
    try:
        faults.point("images.remove.row")
    finally:
        images.drop_documents(held)
    _forget_members(images, how)
    gone = {layer.diff_id for layer in images.layers.collect()} | _waiting(images, image, how)
    removed = [Removed(kind="deleted", value=image.id, image_id=image.id)]
    for top in range(len(image.diff_ids), 0, -1):
        if image.diff_ids[top - 1] in gone:
            chain = chain_id(image.diff_ids[:top])
            removed.append(Removed(kind="deleted", value=chain, image_id=image.id, layer=True))
    return removed


def _forget_members(images: Images, how: Removal) -> None:
    """The other platforms of an index that went with its image, unless somebody needs them for themselves."""
    for image_id in documents.without_index(images):
        member = images.find(image_id)
        if member is None or not member.dangling or images.children(image_id):
            continue
        if not any(use.image_id == image_id for use in how.in_use()):
            _forget(images, member, (), how)


def _what_it_takes(images: Images, image: Image, names: tuple[str, ...]) -> RemovedImage | None:
    """What the image can be made of again; None for one whose documents are lost or damaged."""
    try:
        document, manifest = images.content.get(image.id), images.content.get(image.manifest_digest)
    except (TareError, OSError):
        return None
    return RemovedImage(
        id=image.id,
        document=document,
        manifest=manifest,
        parent_id=image.parent_id,
        previous_id=image.previous_id,
        diff_ids=image.diff_ids,
        created_ns=image.created_ns,
        names=names,
    )


def _waiting(images: Images, image: Image, how: Removal) -> set[str]:
    """The image's layers that removed things hold, and nothing else."""
    waiting: set[str] = set()
    held: set[str] = set()
    for holder, diff_ids in images.layers.holders():
        (waiting if how.waits(holder) else held).update(diff_ids)
    return (waiting - held).intersection(image.diff_ids)
