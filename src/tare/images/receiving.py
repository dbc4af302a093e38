"""Images that another engine sends: an archive in which layers may be missing that are here already.

Must never record an image before every layer of it is here and every document agrees. Layers that have come whole stay
for a day although the rest didn't: who sends again sends the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tare import faults
from tare.errors import Conflict
from tare.images.archive_image import ArchivedImage
from tare.images.archive_load import Loaded, archived_images, parents_first
from tare.images.archive_read import Contents, Progress, StoredLayer, read_archive
from tare.images.history_notes import NOTES, NotedVersion, Notes, parse_notes, write_moves
from tare.images.images import Images
from tare.storage.database import Transaction
from tare.storage.decompress import Readable
from tare.storage.full_disk import naming_the_disk
from tare.storage.layers import Layers, Lease
from tare.storage.limits import DEFAULT_LIMITS, Limits
from tare.values.digest import parse_digest
from tare.values.reference import Reference
from tare.values.timestamps import now_ns

KEPT_NS = 24 * 3600 * 10**9
_HOLDER = "received:"


def missing(images: Images, wanted: Iterable[tuple[str, str]]) -> list[str]:
    """Of layers by digest and diff ID the digests of those that aren't here in just that form."""
    forget_old(images)
    layers = images.layers
    return [
        digest
        for digest, diff_id in dict.fromkeys(wanted)
        if not layers.exists(parse_digest(diff_id))
        or (digest != diff_id and not layers.originals.has(parse_digest(digest)))
    ]


def receive(
    images: Images,
    stream: Readable,
    *,
    only_new_names: bool = False,
    progress: Progress = lambda name, done, size: None,
    limits: Limits = DEFAULT_LIMITS,
    loaded: Callable[[Loaded], None] = lambda one: None,
) -> list[Loaded]:
    """Takes in what `sending.send` wrote. only_new_names: a name that an image has here stays with it.

    Raises InvalidArgument, Conflict (a layer that was left out isn't here).
    """
    kept: set[str] = set()
    with naming_the_disk(images.layers.root), images.layers.lease() as lease:

        def keep(name: str, done: int, size: int) -> None:
            if len(lease.diff_ids) + len(lease.originals) > len(kept):
                _keep(images, lease, kept)
            progress(name, done, size)

        try:
            contents = read_archive(stream, images.layers, lease, keep, limits)
        finally:
            _keep(images, lease, kept)
        faults.point("images.receive.read")
        notes = parse_notes(contents.document(NOTES, "it")) if contents.has(NOTES) else Notes()
        _fill_holes(contents, notes, images.layers, lease)
        found = parents_first(archived_images(contents))
        faults.point("images.receive.checked")
        done = [_record(images, one, notes, only_new_names) for one in found if one.index is None]
        done += [_record_index(images, members, notes, only_new_names) for members in _by_index(found)]
        _let_go(images, kept)
    for one in done:
        loaded(one)
    return done


def _by_index(found: Iterable[ArchivedImage]) -> Iterable[list[ArchivedImage]]:
    """Images for several platforms that have one name."""
    groups: dict[bytes, list[ArchivedImage]] = {}
    for one in found:
        if one.index is not None:
            groups.setdefault(one.index.document, []).append(one)
    return groups.values()


def _fill_holes(contents: Contents, notes: Notes, layers: Layers, lease: Lease) -> None:
    for digest in notes.without:
        name = f"blobs/sha256/{digest[7:]}"
        if contents.has(name):
            continue
        plain = layers.hold(digest, lease)
        if plain is not None:
            contents.layers[name] = StoredLayer(digest=digest, size=plain.tar_bytes, diff_id=digest)
            continue
        packed = layers.hold_original(digest, lease)
        if packed is None:
            raise Conflict(f"layer {digest} was left out, but is not here any more: send again")
        contents.layers[name] = StoredLayer(digest=digest, size=packed.size_bytes, diff_id=packed.diff_id)


def _record(images: Images, one: ArchivedImage, notes: Notes, only_new_names: bool) -> Loaded:
    with images.lock:
        names = _Names(images, one.references, one.id, notes, only_new_names)
        parent_id, previous_id = _descent(images, one, notes)
        image = images.record_document(
            one.config,
            why="receive",
            manifest=one.manifest,
            parent_id=parent_id,
            previous_id=previous_id,
            references=names.wanted,
            along=names.write_moves,
        )
    return Loaded(image=image, references=names.wanted, taken_from=names.taken)


def _record_index(images: Images, found: Sequence[ArchivedImage], notes: Notes, only_new_names: bool) -> Loaded:
    """The images of one index, and the index, which bears the names."""
    index = found[0].index
    assert index is not None
    with images.lock:
        names = _Names(images, index.references, found[0].id, notes, only_new_names)
        for one in found:
            parent_id, previous_id = _descent(images, one, notes)
            images.record_document(
                one.config, why="receive", manifest=one.manifest, parent_id=parent_id, previous_id=previous_id
            )
        image = images.record_index(
            index.document,
            {one.manifest_digest: one.id for one in found if one.manifest is not None},
            found[0].id,
            why="receive",
            attached=index.attached,
            references=names.wanted,
            along=names.write_moves,
        )
    return Loaded(image=image, references=names.wanted, taken_from=names.taken)


def _descent(images: Images, one: ArchivedImage, notes: Notes) -> tuple[str | None, str | None]:
    """(parent, previous): what the image was made from, if that is here, and the commit before it."""
    noted = next((version for version in notes.versions if version.id == one.id), NotedVersion(id=one.id))
    parent = images.find(noted.parent) if noted.parent else None
    diff_ids = tuple(one.spec.rootfs.diff_ids)
    if parent is not None and (parent.id == one.id or diff_ids[: len(parent.diff_ids)] != parent.diff_ids):
        parent = None
    return parent.id if parent else None, noted.previous or None


class _Names:
    """The names that come with an image. wanted: those that it gets. taken: of these the owners until now."""

    def __init__(
        self, images: Images, references: Sequence[Reference], image_id: str, notes: Notes, only_new: bool
    ) -> None:
        owners = {reference: images.referred(reference) for reference in references}
        self.wanted = tuple(name for name, owner in owners.items() if owner is None or not only_new)
        self.taken = {
            name.familiar: owner for name in self.wanted if (owner := owners[name]) is not None and owner != image_id
        }
        self._new = [name for name in self.wanted if owners[name] is None]
        self._image_id = image_id
        self._notes = notes

    def write_moves(self, tx: Transaction) -> None:
        for name in self._new:
            write_moves(tx, self._notes, name, self._image_id)


def _keep(images: Images, lease: Lease, kept: set[str]) -> None:
    """Writes down that what the lease holds is to stay though it ends."""
    new = (lease.diff_ids | lease.originals) - kept
    if not new:
        return
    with images.db.transaction() as tx:
        for digest in new:
            tx.run("DELETE FROM layer_roots WHERE holder LIKE ?", (f"{_HOLDER}%:{digest}",))
            plain, packed = ((), (digest,)) if digest in lease.originals else ((digest,), ())
            images.layers.set_root(tx, f"{_HOLDER}{now_ns()}:{digest}", plain, packed)
    kept |= new
    faults.point("images.receive.kept")


def _let_go(images: Images, digests: set[str]) -> None:
    with images.db.transaction(durable=False) as tx:
        for digest in digests:
            tx.run("DELETE FROM layer_roots WHERE holder LIKE ?", (f"{_HOLDER}%:{digest}",))


def forget_old(images: Images) -> None:
    """Layers that came a day ago, and whose images never did, are let go."""
    rows = images.db.all("SELECT holder FROM layer_roots WHERE holder LIKE ?", (f"{_HOLDER}%",))
    oldest = now_ns() - KEPT_NS
    old = [row["holder"] for row in rows if int(row["holder"].split(":")[1]) < oldest]
    if old:
        with images.db.transaction() as tx:
            for holder in old:
                images.layers.drop_root(tx, holder)
        images.layers.collect()
