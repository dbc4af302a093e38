"""The check of the store: rows against directories and files, and every byte against its digest.

Must never change anything unless told to repair, and then never throw away what somebody may still want: a layer that
can't be made whole again is marked, not removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from tare import errors, faults
from tare.storage.chunks.check import check_packing
from tare.storage.content import Content
from tare.storage.damage import clear
from tare.storage.database import Database
from tare.storage.hashing import ThreadedDigest
from tare.storage.layers import RECIPE, TREE, Layer, Layers
from tare.storage.limits import DEFAULT_LIMITS
from tare.storage.originals import Original, Originals, file_chunks
from tare.storage.tree_check import differences, expected_entries
from tare.storage.tree_reader import open_directory


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. kind, subject: what. remedy: what a repair does; "": nothing can be done here.

    repaired: it was done.
    """

    kind: str
    subject: str
    problem: str
    remedy: str = ""
    repaired: bool = False


_TREE = "its files are whole, but "


class Check:
    """One run of a check. repair: remedies are applied. contents: every byte is read.

    told: hears what is looked at. heard: hears of each finding.
    """

    def __init__(
        self,
        *,
        repair: bool = False,
        contents: bool = True,
        told: Callable[[str], None] = lambda what: None,
        heard: Callable[[Finding], None] = lambda finding: None,
    ) -> None:
        self.repair = repair
        self.contents = contents
        self.told = told
        self._heard = heard
        self.findings: list[Finding] = []

    def found(
        self, kind: str, subject: str, problem: str, remedy: str = "", apply: Callable[[], object] | None = None
    ) -> None:
        """Records a finding, and applies its remedy if repairs are wanted."""
        repaired = False
        if self.repair and apply is not None:
            faults.point("storage.fsck.repair")
            repaired = apply() is not False
        finding = Finding(kind=kind, subject=subject, problem=problem, remedy=remedy, repaired=repaired)
        self.findings.append(finding)
        self._heard(finding)


def check_database(check: Check, db: Database) -> None:
    """SQLite's own view of its file; indexes that disagree with their tables are made anew."""
    check.told("database")
    for row in db.all("PRAGMA integrity_check"):
        text = str(row[0])
        if text != "ok":
            remedy = "its indexes are made anew" if "index" in text else ""
            check.found("database", db.path.name, text, remedy, db.reindex if remedy else None)
    for row in db.all("PRAGMA foreign_key_check"):
        check.found("database", db.path.name, f"a row of {row[0]} refers to one of {row[2]} that is not there")


def check_layers(check: Check, layers: Layers) -> None:
    """Layers, their compressed forms, what packs hold, leftovers and leases."""
    for name, throw in layers.leftovers():
        check.found("leftover", name, "belongs to no layer and nobody works on it", "it is removed", throw)
    for layer in layers.all():
        _check_layer(check, layers, layer)
    if check.contents:
        for text in check_packing(layers.packing):
            check.found("pack", "packs", text)
    for original in layers.originals.all():
        _check_original(check, layers, original)
    for name in layers.originals.strangers():
        check.found(
            "leftover", f"originals/{name}", "is recorded nowhere", "it is removed",
            partial(layers.originals.remove_stranger, name),
        )  # fmt: skip


def _check_layer(check: Check, layers: Layers, layer: Layer) -> None:
    check.told(f"layer {layer.diff_id}")
    try:
        with layers.lease([layer.diff_id], what="check", reads=True):
            _check_held_layer(check, layers, layer)
    except errors.NotFound:
        return  # removed meanwhile


def _check_held_layer(check: Check, layers: Layers, layer: Layer) -> None:
    known = layers.damage.of(layer.diff_id)
    directory = layers.path(layer.diff_id).parent
    missing = [name for name in (TREE, RECIPE) if not (directory / name).exists()]
    if missing:
        problem = f"its {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    elif check.contents:
        problem = _contents_problem(layers, layer)
    else:
        problem = ""
    if problem:
        if problem.startswith(_TREE):
            remedy = "it is made again of its own archive"
        elif any(original.way is None for original in layers.originals.of(layer.diff_id)):
            remedy = "it is made again of its compressed form"
        else:
            remedy = "it is marked: containers aren't made over it until its image is loaded or pulled again"
        check.found("layer", layer.diff_id, problem, remedy, lambda: _mend(layers, layer, problem))
    elif known and check.contents:
        check.found("layer", layer.diff_id, f"is marked ({known}), but is whole", "the mark is taken away",
                    lambda: _unmark(layers, layer.diff_id))  # fmt: skip


def _contents_problem(layers: Layers, layer: Layer) -> str:
    """What is wrong with a layer's files: the archive that they make, then the tree against that archive."""
    hashing = ThreadedDigest()
    try:
        expected = expected_entries(hashing.passing(layers.reassemble(layer.diff_id)), DEFAULT_LIMITS)
        found = hashing.finish()
    except (errors.TareError, OSError) as error:
        return str(error)
    finally:
        hashing.close()
    if found != layer.diff_id:
        return f"its archive now has the digest {found}"
    if hashing.total != layer.tar_bytes:
        return f"its archive has {hashing.total} bytes, not {layer.tar_bytes}"
    tree_fd = open_directory(layers.path(layer.diff_id))
    try:
        wrong = differences(tree_fd, expected)
        return f"{_TREE}{'; '.join(wrong)}" if wrong else ""
    except OSError as error:
        return str(error)
    finally:
        os.close(tree_fd)


def _mend(layers: Layers, layer: Layer, problem: str) -> bool:
    """Makes a layer again of what is whole: its own archive if that is right, or its compressed form.

    Says whether it could; until then it is marked.
    """
    layers.damage.mark(layer.diff_id, problem)
    if layers.packing.rows.of_layer(layer.diff_id):
        return False
    sources: list[Callable[[], Iterator[bytes]]] = [partial(layers.reassemble, layer.diff_id)]
    for original in layers.originals.of(layer.diff_id):
        if original.way is None:
            sources.append(partial(layers.originals.open, original.digest))
    for source in sources:
        try:
            if layers.make_again(layer.diff_id, _Chunks(source())):
                return True
        except (errors.TareError, OSError):
            continue
    return False


def _unmark(layers: Layers, diff_id: str) -> None:
    with layers.db.transaction() as tx:
        clear(tx, diff_id)


class _Chunks:
    """Chunks as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _check_original(check: Check, layers: Layers, original: Original) -> None:
    originals = layers.originals
    subject = original.digest
    if not layers.exists(original.diff_id):
        check.found("original", subject, "its layer is gone", "it is forgotten", lambda: originals.forget(subject))
        return
    if original.way is None:
        problem = _file_problem(check, original, originals)
    else:
        if not check.contents or layers.damage.of(original.diff_id):
            return
        check.told(f"compressed layer {subject}")
        try:
            for _ in originals.open(subject):
                pass
            return
        except (errors.TareError, OSError) as error:
            problem = str(error)
    if problem:
        check.found("original", subject, problem, "it is forgotten: the image goes out with a plain layer",
                    lambda: originals.forget(subject))  # fmt: skip


def _file_problem(check: Check, original: Original, originals: Originals) -> str:
    path = originals.path(original.digest)
    try:
        if path.stat().st_size != original.size_bytes:
            return f"has {path.stat().st_size} bytes, not {original.size_bytes}"
        if not check.contents:
            return ""
        check.told(f"compressed layer {original.digest}")
        hashing = ThreadedDigest()
        try:
            for chunk in file_chunks(path):
                hashing.update(chunk)
            found = hashing.finish()
        finally:
            hashing.close()
        return "" if found == original.digest else f"its bytes now have the digest {found}"
    except FileNotFoundError:
        return "its file is missing"


def check_roots(check: Check, layers: Layers, known: Callable[[str], bool]) -> None:
    """What holds layers. known: whether a holder is somebody's."""
    present = {layer.diff_id for layer in layers.all()}
    for holder, diff_ids in layers.holders():
        if holder.startswith("snapshot:"):
            continue
        if not known(holder):
            check.found("root", holder, "holds layers, but is nothing that exists", "it is let go",
                        partial(_drop_root, layers, holder))  # fmt: skip
            continue
        for diff_id in sorted(diff_ids - present):
            check.found("root", holder, f"holds layer {diff_id}, which is not there")


def _drop_root(layers: Layers, holder: str) -> None:
    with layers.db.transaction() as tx:
        layers.drop_root(tx, holder)


def damaged_documents(content: Content) -> Iterator[tuple[str, str]]:
    """(digest, what is wrong) of every document that isn't what its name says."""
    for digest in list(content.digests()):
        try:
            content.get(digest)
        except errors.NotFound:
            continue
        except (errors.TareError, OSError) as error:
            yield digest, str(error)
