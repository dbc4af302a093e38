"""`reflog` and `tag --undo`: where names were before, and back there."""

from __future__ import annotations

from tare import faults
from tare.errors import Conflict, InvalidArgument, NotFound
from tare.images import documents
from tare.images.images import Images, drop_reference, name_of, set_reference, suffix_of
from tare.images.moves import Move, move_of
from tare.storage.full_disk import naming_the_disk
from tare.values.ids import short_id
from tare.values.reference import Reference


def reflog(images: Images, reference: Reference | None = None) -> list[Move]:
    """Newest first: the moves of one name (with its tag), or of all."""
    if reference is None:
        rows = images.db.all("SELECT * FROM tag_moves ORDER BY number DESC")
    else:
        rows = images.db.all(
            "SELECT * FROM tag_moves WHERE name = ? AND suffix = ? ORDER BY number DESC",
            (name_of(reference), suffix_of(reference)),
        )
    return [move_of(row) for row in rows]


def undo(images: Images, reference: Reference) -> Move:
    """Puts a name back to where it was before its last move; undone again, it goes forth again. Returns the move back.

    Raises NotFound if the name never moved or the image is gone, InvalidArgument for a digest.
    """
    if reference.digest is not None:
        raise InvalidArgument("refusing to move a digest reference")
    reference = reference.with_default_tag()
    with images.lock, naming_the_disk(images.layers.root):
        moves = reflog(images, reference)
        if not moves:
            raise NotFound(f"{reference.familiar} has not moved: nothing to undo")
        last = moves[0]
        if images.referred(reference) != last.new_id:
            raise Conflict(f"{reference.familiar} is not where its last move left it")  # not possible but by hand
        if last.old_id is not None and images.find(last.old_id) is None:
            raise NotFound(
                f"{reference.familiar} was {short_id(last.old_id)} before, but that image is gone: it was removed"
            )
        with images.db.transaction() as tx:
            if last.old_id is None:
                drop_reference(tx, reference, why="undo")
            else:
                target = last.old_target if last.old_target in documents.all_of(images, last.old_id) else ""
                set_reference(tx, reference, last.old_id, why="undo", target=target)
            faults.point("images.undo")
    return reflog(images, reference)[0]


def moved_from(images: Images, since_ns: int) -> set[str]:
    """Ids of the images that a name has left since then."""
    rows = images.db.all("SELECT DISTINCT old_id FROM tag_moves WHERE time_ns >= ? AND old_id IS NOT NULL", (since_ns,))
    return {row["old_id"] for row in rows}
