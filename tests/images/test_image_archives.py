"""save and load in the rooms: every form of archive, bit for bit, and hostile ones that leave nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import archive_files as made
import jsonschema
import pytest
import zstandard
from image_rooms import Rooms, small_tar
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from tare.errors import InvalidArgument, NotFound, TareError, TooLarge, Unsupported
from tare.images.archive_load import load
from tare.images.archive_save import choose, save
from tare.images.records import Image, Platform
from tare.images.remove import remove
from tare.images.tag import tag
from tare.storage.limits import Limits
from tare.values.digest import digest_bytes
from tare.values.reference import parse_reference

SCHEMAS = Path(__file__).parents[1] / "data" / "oci-image"
ONE, TWO = made.layer(one="1"), made.layer(two="2")
CONFIG = made.config(ONE, TWO)
MANIFEST = made.manifest(CONFIG, [ONE, TWO])
NAME = "docker.io/library/a:latest"


def loaded(rooms: Rooms, members: dict[str, made.Member] | bytes, **options: object) -> list[Image]:
    data = members if isinstance(members, bytes) else made.archive(members)
    return [one.image for one in load(rooms.images, io.BytesIO(data), **options)]  # type: ignore[arg-type]


def saved(rooms: Rooms, *names: str) -> bytes:
    out = io.BytesIO()
    save(rooms.images, choose(rooms.images, names), out.write)
    return out.getvalue()


def files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: content.read() for info in tar if (content := tar.extractfile(info)) is not None}


def test_an_image_survives_save_and_load(rooms: Rooms) -> None:
    """Saved, removed and loaded, it has the same id, manifest, names and layers; saved again, the same bytes."""
    image = rooms.make("a", "1")
    tag(rooms.images, image, parse_reference("registry.example:5000/b/c:v1"))
    image = rooms.images.get(image.id)
    first = saved(rooms, "a:latest", "registry.example:5000/b/c")
    remove(rooms.images, image.id, force=True)
    assert not rooms.images.all()
    (again,) = loaded(rooms, first)
    assert (again.id, again.manifest_digest, again.repo_tags) == (image.id, image.manifest_digest, image.repo_tags)
    assert saved(rooms, "a:latest", "registry.example:5000/b/c") == first


def test_the_archive_is_a_layout_and_dockers(rooms: Rooms) -> None:
    """What is written fits the OCI schemas, and manifest.json and repositories say the same as the index."""
    image = rooms.make("a", "1")
    found = files(saved(rooms, "a"))

    def retrieve(uri: str) -> Resource[object]:
        return Resource(json.loads((SCHEMAS / uri.rpartition("/")[2]).read_text()), DRAFT4)

    def check(schema: str, document: bytes) -> None:
        registry: Registry[object] = Registry(retrieve=retrieve)  # type: ignore[call-arg]
        jsonschema.Draft4Validator({"$ref": schema}, registry=registry).validate(json.loads(document))

    check("image-layout-schema.json", found["oci-layout"])
    check("image-index-schema.json", found["index.json"])
    (entry,) = json.loads(found["index.json"])["manifests"]
    manifest = found[f"blobs/sha256/{entry['digest'][7:]}"]
    check("image-manifest-schema.json", manifest)
    check("config-schema.json", found[f"blobs/sha256/{json.loads(manifest)['config']['digest'][7:]}"])
    (item,) = json.loads(found["manifest.json"])
    assert item["Config"] == f"blobs/sha256/{image.id[7:]}"
    assert item["RepoTags"] == ["a:latest"]
    assert item["Layers"] == [f"blobs/sha256/{diff_id[7:]}" for diff_id in image.diff_ids]
    assert json.loads(found["repositories"]) == {"a": {"latest": image.diff_ids[-1][7:]}}
    for name, data in found.items():
        assert not name.startswith("blobs/") or name == f"blobs/sha256/{made.sha(data)}"


def test_what_is_saved_by_each_kind_of_name(rooms: Rooms) -> None:
    """A repository brings all its tags, a tag itself, an id no tag; layers of several images are written once."""
    one, two = rooms.make("a:1", "1"), rooms.make("a:2", "2", ("CMD x",))
    three = rooms.make("b", "1", ("CMD y",))
    assert [(c.image.id, [r.familiar for r in c.references]) for c in choose(rooms.images, ["a"])] == [
        (one.id, ["a:1"]),
        (two.id, ["a:2"]),
    ]
    assert [(c.image.id, c.references) for c in choose(rooms.images, [one.id, three.id[7:19]])] == [
        (one.id, ()),
        (three.id, ()),
    ]
    assert [r.familiar for c in choose(rooms.images, ["a:1", one.id]) for r in c.references] == ["a:1"]
    assert one.diff_ids == three.diff_ids
    data = saved(rooms, "a", "b")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        choose(rooms.images, ["nope"])
    with pytest.raises(NotFound, match="does not provide the platform"):
        choose(rooms.images, ["b"], [Platform(architecture="arm64")])


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)
def test_archives_and_layers_of_each_compression(rooms: Rooms, pack: Callable[[bytes], bytes]) -> None:
    """Compressed as a whole, and with compressed layers; ids come from the plain layers."""
    packed = [pack(ONE), pack(TWO)]
    document = made.manifest(CONFIG, packed)
    members = made.layout([made.named(document, NAME)], document, CONFIG, *packed)
    (image,) = loaded(rooms, pack(made.archive(members)))
    assert image.id == digest_bytes(CONFIG)
    assert image.repo_tags == ("a:latest",)
    assert [b"".join(rooms.layers.reassemble(diff_id)) for diff_id in image.diff_ids] == [ONE, TWO]
    assert rooms.content.get(image.id) == CONFIG
    kept = image.manifest_digest == digest_bytes(document)
    assert kept  # its layers can be given out again as they came, compressed or not


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symlink", "hardlink"])
def test_an_archive_of_old_docker(rooms: Rooms, kind: bytes) -> None:
    """<id>/layer.tar, with a link where two images share a layer, in either order of the members."""
    other = made.config(ONE, config={"Cmd": ["other"]})
    target = "../aa/layer.tar" if kind == tarfile.SYMTYPE else "aa/layer.tar"
    members = made.docker_archive(
        (CONFIG, ["a:latest", "b:1"], [("aa", ONE), ("bb", TWO)]), (other, [], [("cc", made.link(target, kind))])
    )
    for order in (list(members.items()), list(members.items())[::-1]):
        first, second = loaded(rooms, made.archive(order))
        assert (first.id, first.repo_tags) == (digest_bytes(CONFIG), ("a:latest", "b:1"))
        assert (second.id, second.repo_tags) == (digest_bytes(other), ())
        assert len(rooms.layers.all()) == 2
        for image in (first, second):
            remove(rooms.images, image.id, force=True)
        assert not rooms.layers.all()


def test_parents_come_with_the_archive(rooms: Rooms) -> None:
    """An image saved together with the one it was made from has it as its parent again."""
    base = made.config(ONE)
    members = made.docker_archive((CONFIG, ["child:1"], [("aa", ONE), ("bb", TWO)]), (base, ["base:1"], [("aa", ONE)]))
    items = json.loads(members["manifest.json"])  # type: ignore[arg-type]
    items[0]["Parent"] = digest_bytes(base)
    members["manifest.json"] = json.dumps(items).encode()
    parent, child = loaded(rooms, members)
    assert (parent.repo_tags, child.repo_tags, child.parent_id) == (("base:1",), ("child:1",), parent.id)
    (item, _) = json.loads(files(saved(rooms, "child", "base"))["manifest.json"])
    assert item["Parent"] == parent.id


def test_a_name_that_moves_is_told(rooms: Rooms) -> None:
    """The image that had the name keeps its content without it."""
    old = rooms.make("a", "old")
    members = made.layout([made.named(MANIFEST, NAME)], MANIFEST, CONFIG, ONE, TWO)
    (one,) = load(rooms.images, io.BytesIO(made.archive(members)))
    assert one.taken_from == {"a:latest": old.id}
    assert rooms.images.get(old.id).repo_tags == ()
    (again,) = load(rooms.images, io.BytesIO(made.archive(members)))
    assert again.taken_from == {}


def test_platforms(rooms: Rooms) -> None:
    """Of an index for several platforms this machine's image is taken, or those asked for; attestations are left."""
    arm = made.config(ONE, architecture="arm64")
    arm_manifest = made.manifest(arm, [ONE])
    note = json.dumps({"x": 1}).encode()
    note_manifest = made.manifest(note, [])
    below = made.index(
        made.named(MANIFEST, None, platform={"os": "linux", "architecture": "amd64"}),
        made.named(arm_manifest, None, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}),
        made.named(note_manifest, None, platform={"os": "unknown", "architecture": "unknown"}),
        made.named(b"not in the archive", None, platform={"os": "linux", "architecture": "s390x"}),
    )
    entry = made.descriptor(below, f"{made.OCI}index.v1+json", annotations={"io.containerd.image.name": NAME})
    members = made.layout([entry], below, MANIFEST, arm_manifest, note_manifest, note, CONFIG, arm, ONE, TWO)
    (image,) = loaded(rooms, members)
    assert (image.spec.architecture, image.repo_tags) == ("amd64", ("a:latest",))
    (image,) = loaded(rooms, members, platforms=[Platform(architecture="arm64", variant="v8")])
    assert (image.spec.architecture, image.repo_tags) == ("arm64", ("a:latest",))
    with pytest.raises(InvalidArgument, match="a:latest has no image for linux/riscv64"):
        loaded(rooms, members, platforms=[Platform(architecture="riscv64")])


def docker_form(**changes: object) -> dict[str, made.Member]:
    """A right archive of Docker's with keys of its manifest.json changed."""
    members = made.docker_archive((CONFIG, ["a:latest"], [("aa", ONE), ("bb", TWO)]))
    (item,) = json.loads(members["manifest.json"])  # type: ignore[arg-type]
    return {**members, "manifest.json": json.dumps([{**item, **changes}]).encode()}


def oci_form(document: bytes = MANIFEST, *blobs: bytes, **entry: object) -> dict[str, made.Member]:
    """A layout whose index leads to the document."""
    return made.layout([{**made.named(document, NAME), **entry}], document, *(blobs or (CONFIG, ONE, TWO)))


def changed(document: bytes, **changes: object) -> bytes:
    return json.dumps({**json.loads(document), **changes}).encode()


WRONG = made.config(ONE, TWO, rootfs={"type": "layers", "diff_ids": ["../../etc", "x"]})
HOSTILE: dict[str, tuple[Callable[[], dict[str, made.Member] | bytes], str]] = {
    "empty": (dict, "does not contain a manifest.json"),
    "no tar": (lambda: b"x" * 5000, "invalid tar header"),
    "cut off": (lambda: made.archive(oci_form())[:3000], "unexpected EOF"),
    "not JSON": (lambda: {"manifest.json": b"[{"}, "manifest.json"),
    "not a list": (lambda: {"manifest.json": b'{"Config": 1}'}, "manifest.json"),
    "null": (lambda: {"manifest.json": b"null"}, "manifest.json"),
    "no image": (lambda: {"manifest.json": b"[]"}, "lists no image"),
    "deep": (lambda: {"manifest.json": b"[" * 20000 + b"]" * 20000}, "manifest.json"),
    "no config": (lambda: docker_form(Config="gone.json"), 'refers to "gone.json", which is not in it'),
    "config outside": (lambda: docker_form(Config="../../etc/passwd"), "outside"),
    "config is a layer": (lambda: docker_form(Config="aa/layer.tar"), "which is a layer"),
    "layer is a document": (lambda: docker_form(Layers=["aa/json", "bb/layer.tar"]), "which is no tar archive"),
    "no layer": (lambda: docker_form(Layers=["aa/layer.tar", "x/layer.tar"]), "which is not in it"),
    "too few layers": (lambda: docker_form(Layers=["aa/layer.tar"]), "length mismatch: expected 2, got 1"),
    "layers swapped": (lambda: docker_form(Layers=["bb/layer.tar", "aa/layer.tar"]), "invalid diffID for layer 0"),
    "bad tag": (lambda: docker_form(RepoTags=["UPPER:x"]), 'invalid tag "UPPER:x"'),
    "tag is a path": (lambda: docker_form(RepoTags=["../../x:y"]), "invalid tag"),
    "digest as tag": (lambda: docker_form(RepoTags=[f"a@sha256:{'0' * 64}"]), "invalid tag"),
    "no rootfs (CVE-2021-21285)": (
        lambda: made.docker_archive((b'{"architecture":"amd64","os":"linux"}', ["a:1"], [])),
        "rootfs",
    ),
    "empty config": (lambda: made.docker_archive((b"{}", ["a:1"], [])), "image configuration"),
    "windows": (lambda: made.docker_archive((made.config(os="windows"), [], [])), "cannot load windows image on linux"),
    "diff ids are paths": (lambda: made.docker_archive((WRONG, [], [("aa", ONE), ("bb", TWO)])), "is no digest"),
    "wrong name of config": (
        lambda: {**docker_form(Config=f"{'0' * 64}.json"), f"{'0' * 64}.json": CONFIG},
        "has the digest",
    ),
    "wrong blob": (lambda: {**oci_form(), f"blobs/sha256/{'0' * 64}": b"{}"}, "has the digest"),
    "wrong layer blob": (lambda: {**oci_form(), f"blobs/sha256/{'0' * 64}": ONE}, "has the digest"),
    "blob's name": (lambda: {**oci_form(), "blobs/sha256/x": b"{}"}, "is not the name of a blob"),
    "linked blob": (
        lambda: {**oci_form(), f"blobs/sha256/{made.sha(TWO)}": made.link(made.sha(ONE))},
        "has the digest",
    ),
    "link outside": (lambda: {**oci_form(), "x": made.link("../../etc/passwd")}, "outside"),
    "circle of links": (lambda: {"manifest.json": made.link("x"), "x": made.link("manifest.json")}, "circle of links"),
    "name outside": (lambda: {**oci_form(), "../x": b"{}"}, "outside"),
    "device": (lambda: {**oci_form(), "x": made.link("", tarfile.CHRTYPE)}, "neither a file nor a link"),
    "twice": (lambda: made.archive([*oci_form().items(), ("index.json", b"{}")]), "is in it twice"),
    "large index (CVE-2023-25153)": (lambda: {**oci_form(), "index.json": b"{" * (5 << 20)}, "larger than 4194304"),
    "large manifest.json": (lambda: {"manifest.json": b"[" * (5 << 20)}, "larger than 4194304"),
    "manifest and index (CVE-2021-41190)": (lambda: oci_form(changed(MANIFEST, manifests=[])), "index too"),
    "index and manifest": (
        lambda: {**oci_form(), "index.json": changed(made.index(made.named(MANIFEST, NAME)), layers=[])},
        "manifest too",
    ),
    "other media type": (
        lambda: oci_form(changed(MANIFEST, mediaType=f"{made.OCI}index.v1+json")),
        "says that it is",
    ),
    "manifest as index": (lambda: oci_form(mediaType=f"{made.OCI}index.v1+json"), "image index"),
    "unknown media type": (lambda: oci_form(mediaType="text/plain"), "has the media type"),
    "wrong size": (lambda: oci_form(size=3), "bytes, not 3"),
    "digest is a path (CVE-2024-3727)": (lambda: oci_form(digest="sha256:../../x"), "invalid digest"),
    "manifest of nothing": (lambda: oci_form(MANIFEST, CONFIG, ONE), "which is not in it"),
    "layout of the future": (lambda: {**oci_form(), "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}, "version"),
    "bad layer": (lambda: docker_form() | {"cc/layer.tar": made.archive({"../../evil": b"x"})}, "outside"),
    "before 1.10": (lambda: {"repositories": b"{}"}, "Docker before 1.10"),
}


def test_a_bomb_in_an_archive_is_refused(rooms: Rooms) -> None:
    """A layer that unpacks to far more than it is stops the load."""
    bomb = gzip.compress(made.archive({"x": b"x" * (8 << 20)}))
    with pytest.raises(TooLarge, match=r'layer "cc/layer.tar": .* decompression bomb'):
        loaded(rooms, docker_form() | {"cc/layer.tar": bomb}, limits=Limits(ratio_free_bytes=1 << 20))
    assert not rooms.layers.all()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(rooms: Rooms, name: str) -> None:
    """The error says what is wrong; no image, document or layer stays, and an image that was there is whole."""
    make, text = HOSTILE[name]
    present = rooms.make("present", "1")
    data = make()
    with pytest.raises(TareError, match=re.escape(text)) as caught:
        loaded(rooms, data)
    assert isinstance(caught.value, InvalidArgument | Unsupported)
    assert [image.id for image in rooms.images.all()] == [present.id]
    assert [one.diff_id for one in rooms.layers.all()] == list(present.diff_ids)
    assert set(rooms.content.digests()) == {present.id, present.manifest_digest}
    assert not list((rooms.root / "storage/staging").iterdir())
    assert b"".join(rooms.layers.reassemble(present.diff_ids[0])) == small_tar("1")
