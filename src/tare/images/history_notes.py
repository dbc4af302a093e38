"""What travels with images from engine to engine beside the OCI layout: where they come from, where their names were.

    tare.json   {"format": 1, "without": [digest …], "versions": [{id, parent …}], "moves": [{name, suffix …}]}

Without: the layers that were left out, since the receiver said that it has them. Must never be believed more than an
archive is: what is written here is checked before it is stored, and holds no image alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tare.errors import InvalidArgument, TareError, Unsupported
from tare.images.images import Images, name_of, suffix_of
from tare.images.moves import KEPT_MOVES
from tare.images.records import Image
from tare.oci.image_spec import parse_document
from tare.storage.database import Transaction
from tare.values.digest import is_digest
from tare.values.reference import Reference, parse_reference
from tare.values.timestamps import now_ns

NOTES = "tare.json"
FORMAT = 1
_WORDS = frozenset("abcdefghijklmnopqrstuvwxyz -")


class NotedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of an image, of what it was made from, and of the commit before it of the same container; "" for none."""

    id: str
    parent: str = ""
    previous: str = ""


class NotedMove(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the reflog. old, new: "" for none."""

    name: str
    suffix: str
    old: str = ""
    new: str = ""
    time_ns: int = 0
    why: str = ""


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """The document."""

    format: int = FORMAT
    without: list[str] = []
    versions: list[NotedVersion] = []
    moves: list[NotedMove] = []


def note(images: Images, chosen: Iterable[Image], references: Iterable[Reference], without: Sequence[str]) -> bytes:
    """The document for images that go with these names."""
    moves = []
    for reference in references:
        rows = images.db.all(
            "SELECT * FROM tag_moves WHERE name = ? AND suffix = ? ORDER BY number",
            (name_of(reference), suffix_of(reference)),
        )
        moves += [
            NotedMove(
                name=row["name"],
                suffix=row["suffix"],
                old=row["old_id"] or "",
                new=row["new_id"] or "",
                time_ns=row["time_ns"],
                why=row["why"],
            )
            for row in rows
        ]
    versions = [
        NotedVersion(id=image.id, parent=image.parent_id or "", previous=image.previous_id or "") for image in chosen
    ]
    return msgspec.json.encode(Notes(without=list(without), versions=versions, moves=moves))


def parse_notes(document: bytes) -> Notes:
    """The document, checked. Raises InvalidArgument, Unsupported (of a later format)."""
    notes = parse_document(document, Notes, NOTES)
    if notes.format != FORMAT:
        raise Unsupported(f"{NOTES} has the format {notes.format}, which this version of Tare does not know")
    ids = [id_ for one in notes.versions for id_ in (one.id, one.parent or one.id, one.previous or one.id)]
    ids += [id_ for move in notes.moves for id_ in (move.old, move.new) if id_]
    for digest in (*ids, *notes.without):
        if not is_digest(digest):
            raise InvalidArgument(f"invalid digest in {NOTES}: {digest[:100]!r}")
    if len(notes.moves) > KEPT_MOVES:
        raise InvalidArgument(f"{NOTES} has more than {KEPT_MOVES} moves")
    for move in notes.moves:
        _check_move(move)
    return notes


def _check_move(move: NotedMove) -> None:
    try:
        reference = parse_reference(move.name + move.suffix)
    except TareError as error:
        raise InvalidArgument(f"invalid name in {NOTES}: {error}") from error
    if (name_of(reference), suffix_of(reference)) != (move.name, move.suffix):
        raise InvalidArgument(f"invalid name in {NOTES}: {move.name[:100]!r}")
    if not 0 < len(move.why) <= 32 or set(move.why) - _WORDS or not 0 <= move.time_ns <= now_ns() + 86400 * 10**9:
        raise InvalidArgument(f"invalid move of {move.name[:100]!r} in {NOTES}")


def write_moves(tx: Transaction, notes: Notes, reference: Reference, image_id: str) -> None:
    """Within the transaction that makes a name: what it was elsewhere, unless it was something here before."""
    name, suffix = name_of(reference), suffix_of(reference)
    if tx.one("SELECT 1 FROM tag_moves WHERE name = ? AND suffix = ?", (name, suffix)) is not None:
        return
    moves = [move for move in notes.moves if (move.name, move.suffix) == (name, suffix)]
    tx.run_many(
        "INSERT INTO tag_moves (name, suffix, old_id, new_id, time_ns, why) VALUES (?, ?, ?, ?, ?, ?)",
        [(name, suffix, move.old or None, move.new or None, move.time_ns, move.why) for move in moves],
    )
    if moves and moves[-1].new == image_id:  # the name came to this image there: arriving here is no move of its own
        tx.run(
            "INSERT OR REPLACE INTO image_references (name, suffix, image_id) VALUES (?, ?, ?)",
            (name, suffix, image_id),
        )
