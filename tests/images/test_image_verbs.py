"""Images: their documents obey OCI's schemas, their names resolve as Docker's, history and listing follow."""

from __future__ import annotations

import io
import json
from pathlib import Path

import jsonschema
import pytest
from image_rooms import Rooms, small_tar
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from tare import errors
from tare.images.commit import CommitOptions, commit_snapshot
from tare.images.history import MISSING, history
from tare.images.import_image import host_platform, import_image, parse_platform
from tare.images.listing import list_images
from tare.images.records import Image
from tare.images.remove import remove
from tare.images.resolve import resolve
from tare.images.tag import tag
from tare.oci.image_spec import MAX_DOCUMENT_BYTES, ImageConfig, parse_image_spec, parse_manifest
from tare.storage.digests import chain_id
from tare.values.digest import digest_bytes
from tare.values.reference import parse_reference
from tare.values.timestamps import now_ns

SCHEMAS = Path(__file__).parents[1] / "data/oci-image"


def check_schema(name: str, document: bytes) -> None:
    resources = {path.name: Resource(json.loads(path.read_text()), DRAFT4) for path in SCHEMAS.glob("*.json")}
    registry: Registry[object] = Registry().with_resources(resources.items())  # type: ignore[arg-type]
    jsonschema.Draft4Validator({"$ref": name}, registry=registry).validate(json.loads(document))


def committed(rooms: Rooms, parent: Image, name: str | None = None, content: str | None = "new") -> Image:
    root = rooms.snapshots.prepare("work", parent.diff_ids)
    if content is not None:
        assert root.upper
        (Path(root.upper) / "file").write_text(content)
    options = CommitOptions(
        config=parent.config,
        author="me",
        comment="why",
        created_by="sh -c make",
        reference=parse_reference(name) if name else None,
    )
    image = commit_snapshot(rooms.images, rooms.snapshots, "work", parent, options)
    rooms.snapshots.remove("work")
    return image


def test_import_writes_oci_documents(rooms: Rooms) -> None:
    """Config and manifest validate, name each other by digest, and the config's digest is the image's id."""
    image = rooms.make("me/base", changes=('CMD ["sh"]', "ENV A=1", "EXPOSE 80", "LABEL a=b", "HEALTHCHECK CMD true"))
    config, manifest = rooms.content.get(image.id), rooms.content.get(image.manifest_digest)
    check_schema("config-schema.json", config)
    check_schema("image-manifest-schema.json", manifest)
    described = parse_manifest(manifest)
    assert (described.config.digest, described.config.size) == (image.id, len(config))
    assert [layer.digest for layer in described.layers] == list(image.diff_ids)
    blob = b"".join(rooms.layers.reassemble(image.diff_ids[0]))
    assert (digest_bytes(blob), len(blob)) == (described.layers[0].digest, described.layers[0].size)
    assert image.repo_tags == ("me/base:latest",)
    assert image.config.cmd == ["sh"] and image.config.labels == {"a": "b"}
    assert parse_image_spec(config) == image.spec
    assert (image.spec.os, image.spec.architecture) == ("linux", host_platform().architecture)
    assert [step.comment for step in image.spec.history] == ["Imported from -"]


def test_a_bad_import_leaves_nothing(rooms: Rooms) -> None:
    """A wrong change is refused before the archive is read; a wrong archive leaves no image, layer or document."""
    untouched = io.BytesIO(small_tar("x"))
    with pytest.raises(errors.InvalidArgument, match="not a valid change command"):
        import_image(rooms.images, untouched, changes=["RUN x"])
    assert untouched.tell() == 0
    with pytest.raises(errors.InvalidArgument):
        import_image(rooms.images, io.BytesIO(b"no tar" * 1000), reference=parse_reference("x"))
    assert rooms.images.all() == [] and rooms.layers.all() == [] and list(rooms.content.digests()) == []


def test_platforms() -> None:
    """What is left out is this machine's; uname's names are understood; other systems are refused."""
    assert parse_platform("") == parse_platform("linux") == host_platform()
    assert parse_platform("linux/x86_64").architecture == "amd64"
    arm = parse_platform("linux/arm/v7")
    assert (arm.architecture, arm.variant) == ("arm", "v7")
    for wrong in ("windows", "linux/../x", "linux/a/b/c", "/"):
        with pytest.raises(errors.InvalidArgument):
            parse_platform(wrong)


def test_resolve(rooms: Rooms) -> None:
    """Names, tags, digests, ids and beginnings of ids lead to the image; a name wins over an id."""
    image = rooms.make("me/base:v1")
    other = rooms.make("other", "other content")
    tag(rooms.images, image, parse_reference("me/base"))
    short = image.id[7:19]
    for text in ("me/base", "me/base:v1", "docker.io/me/base:latest", image.id, image.id[7:], short, "sha256:" + short):
        assert resolve(rooms.images, text).id == image.id
    assert resolve(rooms.images, f"me/base@{image.manifest_digest}").id == image.id
    tag(rooms.images, other, parse_reference(short))
    assert resolve(rooms.images, short).id == other.id


NONE = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "text,message",
    [
        ("nosuch", "No such image: nosuch:latest"),
        ("nosuch:tag", "No such image: nosuch:tag"),
        ("me/base:v2", "No such image: me/base:v2"),
        ("abcdef123456", "No such image: abcdef123456:latest"),
        (NONE, f"No such image: {NONE}"),
        (NONE[7:], f"No such image: {NONE}"),
        (f"nosuch@{NONE}", f"No such image: nosuch@{NONE}"),
    ],
)
def test_what_is_not_there(rooms: Rooms, text: str, message: str) -> None:
    """A real engine's words: docker-py tells ImageNotFound by them."""
    rooms.make("me/base:v1")
    with pytest.raises(errors.NotFound) as caught:
        resolve(rooms.images, text)
    assert str(caught.value) == message


def test_an_ambiguous_id_names_nothing(rooms: Rooms) -> None:
    """A beginning that fits two images is no id."""
    first: dict[str, int] = {}
    for number in range(17):  # one more than there are digits
        image = rooms.make(None, changes=(f"LABEL n={number}",))
        first[image.id[7]] = first.get(image.id[7], 0) + 1
    twice = next(digit for digit, count in first.items() if count > 1)
    with pytest.raises(errors.NotFound):
        resolve(rooms.images, twice)


def test_tag(rooms: Rooms) -> None:
    """A tag that another image had moves; digests can't be given as names."""
    one, two = rooms.make("x", "1"), rooms.make("y", "2")
    assert tag(rooms.images, one, parse_reference("z:1")).repo_tags == ("x:latest", "z:1")
    assert tag(rooms.images, two, parse_reference("x")).repo_tags == ("x:latest", "y:latest")
    assert rooms.images.get(one.id).repo_tags == ("z:1",)
    assert rooms.images.get(two.id).last_tagged_ns > 0
    with pytest.raises(errors.InvalidArgument, match="refusing to create a tag with a digest reference"):
        tag(rooms.images, one, parse_reference(f"x@{NONE}"))


def test_importing_a_name_again_leaves_the_old_image_untagged(rooms: Rooms) -> None:
    old, new = rooms.make("x", "1"), rooms.make("x", "2")
    assert rooms.images.get(old.id).dangling and resolve(rooms.images, "x").id == new.id


def test_commit_adds_one_layer(rooms: Rooms) -> None:
    """Only what changed is stored; config, history and parent follow; documents validate."""
    base = rooms.make("me/base", changes=("ENV A=1",))
    image = committed(rooms, base, "me/new:2")
    assert image.diff_ids[:-1] == base.diff_ids and image.parent_id == base.id
    assert image.size_bytes == base.size_bytes + 3
    assert image.config.env == ["A=1"]
    assert image.spec.author == "me"
    check_schema("config-schema.json", rooms.content.get(image.id))
    check_schema("image-manifest-schema.json", rooms.content.get(image.manifest_digest))
    assert [step.created_by for step in image.spec.history] == ["", "sh -c make"]
    assert len(rooms.layers.all()) == 2


def test_commit_of_nothing_adds_no_layer(rooms: Rooms) -> None:
    """History says so, as Docker's does; the layer that every engine knows as empty isn't kept."""
    base = rooms.make("me/base")
    image = committed(rooms, base, content=None)
    assert image.diff_ids == base.diff_ids
    assert image.spec.history[-1].empty_layer
    rooms.layers.collect()
    assert len(rooms.layers.all()) == 1


def test_commit_outlives_its_parent_image(rooms: Rooms) -> None:
    """A container whose image was removed by force can still be committed."""
    base = rooms.make("me/base")
    root = rooms.snapshots.prepare("work", base.diff_ids)
    assert root.upper
    (Path(root.upper) / "new").write_text("x")
    remove(rooms.images, "me/base", force=True)
    options = CommitOptions(config=ImageConfig(), reference=parse_reference("saved"))
    image = commit_snapshot(rooms.images, rooms.snapshots, "work", None, options)
    assert image.diff_ids[0] == base.diff_ids[0] and len(image.spec.history) == 2
    assert (rooms.layers.path(image.diff_ids[0]) / "etc/file").read_text() == "hello"


def test_history(rooms: Rooms) -> None:
    """Newest first; ids and tags where an image of this engine ends; sizes of the layers."""
    base = rooms.make("me/base")
    top = committed(rooms, base, "me/top", "12345")
    steps = history(rooms.images, top)
    assert [(step.id, step.size_bytes, step.tags) for step in steps] == [
        (top.id, 5, ("me/top:latest",)),
        (base.id, 5, ("me/base:latest",)),
    ]
    assert [(step.created_by, step.comment) for step in steps] == [("sh -c make", "why"), ("", "Imported from -")]
    remove(rooms.images, "me/base", force=True)
    assert [step.id for step in history(rooms.images, rooms.images.get(top.id))] == [top.id, base.id]
    with rooms.db.transaction() as tx:  # as a loaded image has it
        tx.run("UPDATE images SET parent_id = NULL")
    assert [step.id for step in history(rooms.images, rooms.images.get(top.id))] == [top.id, MISSING]


def test_listing(rooms: Rooms) -> None:
    """Newest first, and Docker's filters."""
    one = rooms.make("me/one:1", "1", ("LABEL a=b",))
    two = rooms.make("me/two", "2", ("LABEL a=c",))
    unnamed = rooms.make(None, "3")

    def ids(all_images: bool = False, **filters: tuple[str, ...]) -> list[str]:
        found = {name.replace("_not", "!"): values for name, values in filters.items()}
        return [image.id for image in list_images(rooms.images, found, all_images=all_images)]

    assert ids() == [unnamed.id, two.id, one.id]
    assert ids(dangling=("true",)) == [unnamed.id]
    assert ids(dangling=("false",)) == [two.id, one.id]
    assert ids(label=("a",)) == [two.id, one.id]
    assert ids(label=("a=b",)) == [one.id]
    assert ids(label_not=("a=b",)) == [unnamed.id, two.id]
    assert ids(before=("me/two",)) == [one.id]
    assert ids(since=("me/one:1",)) == [unnamed.id, two.id]
    assert ids(reference=("me/*",)) == [two.id, one.id]
    assert ids(reference=("me/one:1",)) == [one.id]
    assert ids(reference=("*",)) == []
    assert ids(reference=("me/t?o:latest", "nothing")) == [two.id]
    assert ids(until=(str(now_ns() // 10**9 + 60),)) == [unnamed.id, two.id, one.id]
    assert ids(until=("1h",)) == []
    child = committed(rooms, unnamed, "me/child")
    assert ids() == [child.id, two.id, one.id]
    assert unnamed.id in ids(all_images=True)
    for wrong in ({"bogus": ("1",)}, {"dangling": ("maybe",)}, {"reference": ("[",)}, {"until": ("soon",)}):
        with pytest.raises(errors.InvalidArgument):
            list_images(rooms.images, wrong)
    with pytest.raises(errors.NotFound, match="No such image: nope:latest"):
        list_images(rooms.images, {"before": ("nope",)})


def test_matching_names_only(rooms: Rooms) -> None:
    """A reference filter shows only the names that fit."""
    image = rooms.make("me/one:1")
    tag(rooms.images, image, parse_reference("you/one:2"))
    assert [found.repo_tags for found in list_images(rooms.images, {"reference": ("me/*",)})] == [("me/one:1",)]


@pytest.mark.parametrize(
    "document",
    [
        b"", b"[]", b"null", b"{}", b'{"os":1}', b'{"config":' * 100_000, b"{" + b" " * MAX_DOCUMENT_BYTES + b"}",
        b'{"architecture":"x","os":"y","rootfs":{"type":"layers","diff_ids":[1]}}',
        b'{"architecture":"x","os":"y","rootfs":{"diff_ids":[]},"config":{"Env":"A"}}',
    ],
    ids=range(9),
)  # fmt: skip
def test_malformed_documents_are_refused(document: bytes) -> None:
    """Whatever a document is, reading it ends in a record or in InvalidArgument."""
    with pytest.raises(errors.InvalidArgument):
        parse_image_spec(document)


def test_ambiguous_documents_are_refused() -> None:
    """One that is manifest and index at once (CVE-2021-41190)."""
    digest = "sha256:" + "0" * 64
    manifest = {"schemaVersion": 2, "config": {"mediaType": "x", "digest": digest, "size": 1}, "layers": []}
    parse_manifest(json.dumps(manifest).encode())
    with pytest.raises(errors.InvalidArgument, match="index"):
        parse_manifest(json.dumps({**manifest, "manifests": []}).encode())


def test_nulls_count_as_absent() -> None:
    """Docker writes null where a list is empty."""
    spec = parse_image_spec(
        b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"history":null,'
        b'"config":{"Env":null,"Cmd":null,"Volumes":null,"Labels":null,"OnBuild":null,"Hostname":"x"}}'
    )
    assert spec.config == ImageConfig()


def test_chain_ids() -> None:
    """OCI's rule: the first is the diff ID itself, each next the digest of both."""
    a, b, c = (digest_bytes(letter) for letter in (b"a", b"b", b"c"))
    ab = digest_bytes(f"{a} {b}".encode())
    assert [chain_id([a]), chain_id([a, b]), chain_id([a, b, c])] == [a, ab, digest_bytes(f"{ab} {c}".encode())]
