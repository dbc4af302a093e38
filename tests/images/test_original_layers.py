"""Compressed layers and indexes: what came in goes out again bit for bit, and nothing is kept that can be made."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import archive_files as made
import jsonschema
import pytest
import zstandard
from image_rooms import Rooms
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from tare.errors import Internal, NotFound
from tare.images import documents
from tare.images.archive_load import load
from tare.images.archive_save import choose, save
from tare.images.prune import prune
from tare.images.records import Image, Platform
from tare.images.reflog import undo
from tare.images.remove import remove
from tare.images.tag import tag
from tare.storage.layers import Layers
from tare.values.digest import digest_bytes
from tare.values.reference import parse_reference

SCHEMAS = Path(__file__).parents[1] / "data" / "oci-image"
NAME = "docker.io/library/a:latest"


def prose(seed: int, size: int) -> bytes:
    """Bytes that compress as programs and texts do."""
    words = [f"{(seed * 7919 + number * 104729) % 99991:x}" for number in range(size // 4)]
    return " ".join(words).encode()[:size]


LARGE = made.archive({f"f{number}": prose(number, 300_000) for number in range(3)})
ONE, TWO = LARGE, made.layer(two="2")
CONFIG = made.config(ONE, TWO)


def deflate(level: int, memory: int = 8) -> Callable[[bytes], bytes]:
    def packed(data: bytes) -> bytes:
        compressor = zlib.compressobj(level, zlib.DEFLATED, 31, memory)
        return compressor.compress(data) + compressor.flush()

    return packed


def program(*command: str) -> Callable[[bytes], bytes]:
    return lambda data: subprocess.run(command, input=data, capture_output=True, check=True).stdout


def zstd(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    return compressor.compress(data) + compressor.flush()


def members(*packed: bytes, media_type: str = "gzip") -> dict[str, made.Member]:
    document = made.manifest(CONFIG, packed)
    return made.layout([made.named(document, NAME)], document, CONFIG, *packed)


def loaded(rooms: Rooms, content: dict[str, made.Member], **options: object) -> list[Image]:
    return [one.image for one in load(rooms.images, io.BytesIO(made.archive(content)), **options)]  # type: ignore[arg-type]


def saved(rooms: Rooms, *names: str, platforms: tuple[Platform, ...] = ()) -> dict[str, bytes]:
    out = io.BytesIO()
    save(rooms.images, choose(rooms.images, names, platforms), out.write)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        return {info.name: content.read() for info in tar if (content := tar.extractfile(info)) is not None}


def kept_files(rooms: Rooms) -> list[str]:
    return sorted(os.listdir(rooms.root / "storage" / "originals"))


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "python": lambda data: gzip.compress(data, 9, mtime=0),
    "zlib -1": deflate(1),
    "zlib -6": deflate(6),
    "zlib -6 memory 9": deflate(6, 9),
    "zstd": zstd,
}
if shutil.which("pigz"):
    WAYS |= {f"pigz -{level}": program("pigz", f"-{level}", "-c") for level in (1, 6, 9)}


@pytest.mark.parametrize("way", WAYS)
def test_a_compressed_layer_is_made_again(rooms: Rooms, way: str) -> None:
    """Of a known compressor nothing is kept; the blob that goes out is the one that came in, bit for bit."""
    packed = [WAYS[way](ONE), WAYS[way](TWO)]
    content = members(*packed)
    (image,) = loaded(rooms, content)
    assert len(kept_files(rooms)) == 2
    assert rooms.layers.originals.slim() == sum(map(len, packed))
    assert kept_files(rooms) == []
    found = saved(rooms, "a")
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert found[name] == data
    assert rooms.layers.originals.slim() == 0
    assert [one.kept_bytes for one in rooms.layers.originals.of(image.diff_ids[0])] == [0]


def other_gzip(data: bytes) -> bytes:
    """A gzip that no zlib makes: stored blocks of an odd size."""
    parts = [data[start : start + 999] for start in range(0, len(data), 999)]
    blocks = b"".join(
        bytes([number == len(parts) - 1]) + len(part).to_bytes(2, "little") + (len(part) ^ 0xFFFF).to_bytes(2, "little")
        + part
        for number, part in enumerate(parts)
    )  # fmt: skip
    trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + blocks + trailer


def test_what_nothing_makes_is_kept_until_it_is_dropped(rooms: Rooms) -> None:
    """It goes out as it came; dropped, the image goes out with plain layers, and is the same image."""
    content = members(other_gzip(ONE), other_gzip(TWO))
    (image,) = loaded(rooms, content)
    assert rooms.layers.originals.slim() == 0
    assert len(kept_files(rooms)) == 2
    first = saved(rooms, "a")
    assert all(first[name] == data for name, data in content.items() if name.startswith("blobs/"))
    assert rooms.layers.originals.drop_kept() == len(other_gzip(ONE)) + len(other_gzip(TWO))
    assert kept_files(rooms) == []
    plain = saved(rooms, "a")
    assert f"blobs/sha256/{image.diff_ids[0][7:]}" in plain
    assert plain[f"blobs/sha256/{image.id[7:]}"] == CONFIG
    assert rooms.images.get(image.id).manifest_digest == image.manifest_digest  # and may come back
    loaded(rooms, content)
    assert saved(rooms, "a") == first


def test_originals_go_with_their_image(rooms: Rooms) -> None:
    """A compressed form that no image lists is collected, though its layer stays for another image."""
    (image,) = loaded(rooms, members(other_gzip(ONE), gzip.compress(TWO)))
    plain = made.manifest(made.config(ONE, TWO, author="x"), [ONE, TWO])
    other = made.layout([made.named(plain, "b:1")], plain, made.config(ONE, TWO, author="x"), ONE, TWO)
    loaded(rooms, other)
    remove(rooms.images, image.id)
    assert kept_files(rooms) == []
    assert rooms.layers.originals.all() == []
    assert len(rooms.layers.all()) == 2


def test_a_second_manifest_of_an_image(rooms: Rooms) -> None:
    """The same image, loaded with plain and with compressed layers under two names, goes out as each came."""
    plain, packed = made.manifest(CONFIG, [ONE, TWO]), [gzip.compress(ONE), gzip.compress(TWO)]
    loaded(rooms, made.layout([made.named(plain, "docker.io/library/p:1")], plain, CONFIG, ONE, TWO))
    loaded(rooms, members(*packed))
    found = saved(rooms, "a", "p")
    entries = {
        entry["annotations"]["io.containerd.image.name"]: entry["digest"]
        for entry in json.loads(found["index.json"])["manifests"]
    }
    assert entries == {
        NAME: digest_bytes(made.manifest(CONFIG, packed)),
        "docker.io/library/p:1": digest_bytes(plain),
    }
    (image,) = rooms.images.all()
    assert rooms.images.target(parse_reference("a:latest")) == entries[NAME]
    remove(rooms.images, image.id, force=True)
    assert list(rooms.content.digests()) == []


def test_a_damaged_original_is_told(rooms: Rooms) -> None:
    """A bit that flipped in what was kept is an error, not an archive."""
    loaded(rooms, members(other_gzip(ONE), other_gzip(TWO)))
    path = rooms.root / "storage" / "originals" / made.sha(other_gzip(ONE))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Internal, match="is damaged"):
        saved(rooms, "a")


def test_loads_and_collections_at_once(rooms: Rooms) -> None:
    """Loads of the same archive in several threads while another collects and slims: every load ends whole."""
    content = members(gzip.compress(ONE), other_gzip(TWO))
    data = made.archive(content)
    failures: list[BaseException] = []
    ended = threading.Event()

    def load_and_remove() -> None:
        try:
            for _ in range(4):
                load(rooms.images, io.BytesIO(data))
                with rooms.images.lock:
                    if rooms.images.all():
                        remove(rooms.images, "a", force=True)
        except BaseException as error:
            failures.append(error)

    def collect() -> None:
        try:
            while not ended.is_set():
                rooms.layers.collect()
                rooms.layers.originals.slim()
                rooms.layers.empty_trash()
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=load_and_remove) for _ in range(3)]
    collector = threading.Thread(target=collect)
    collector.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ended.set()
    collector.join()
    assert failures == []
    loaded(rooms, content)
    assert all(saved(rooms, "a")[name] == blob for name, blob in content.items() if name.startswith("blobs/"))


# -- indexes -----------------------------------------------------------------------------------------------------

ARM = made.config(ONE, architecture="arm64")
PACKED = [gzip.compress(ONE, mtime=0), gzip.compress(TWO, mtime=0)]
AMD_MANIFEST, ARM_MANIFEST = made.manifest(CONFIG, PACKED), made.manifest(ARM, PACKED[:1])
NOTE = json.dumps({"_type": "x"}).encode()
NOTE_MANIFEST = made.manifest(NOTE, [])
INDEX = made.index(
    made.named(ARM_MANIFEST, None, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}),
    made.named(AMD_MANIFEST, None, platform={"os": "linux", "architecture": "amd64"}),
    made.named(NOTE_MANIFEST, None, platform={"os": "unknown", "architecture": "unknown"}),
    made.named(b"not in the archive", None, platform={"os": "linux", "architecture": "s390x"}),
)
ENTRY = made.descriptor(INDEX, f"{made.OCI}index.v1+json", annotations={"io.containerd.image.name": NAME})
MULTI = made.layout([ENTRY], INDEX, AMD_MANIFEST, ARM_MANIFEST, NOTE_MANIFEST, NOTE, CONFIG, ARM, *PACKED)


def check_schema(schema: str, document: bytes) -> None:
    def retrieve(uri: str) -> Resource[object]:
        return Resource(json.loads((SCHEMAS / uri.rpartition("/")[2]).read_text()), DRAFT4)

    registry: Registry[object] = Registry(retrieve=retrieve)  # type: ignore[call-arg]
    jsonschema.Draft4Validator({"$ref": schema}, registry=registry).validate(json.loads(document))


def test_an_index_is_kept_whole(rooms: Rooms) -> None:
    """Of several platforms all come in, under one name; save gives back the same index, images and attestations."""
    (image,) = loaded(rooms, MULTI)
    assert (image.spec.architecture, image.repo_tags) == ("amd64", ("a:latest",))
    found = saved(rooms, "a")
    assert {name: data for name, data in found.items() if name.startswith("blobs/")} == {
        name: data for name, data in MULTI.items() if name.startswith("blobs/")
    }
    (entry,) = json.loads(found["index.json"])["manifests"]
    assert entry["digest"] == digest_bytes(INDEX)
    check_schema("image-index-schema.json", found["index.json"])
    check_schema("image-index-schema.json", found[f"blobs/sha256/{entry['digest'][7:]}"])
    variants = documents.variants(rooms.images, image)
    assert [(one.platform.architecture, one.image is not None) for one in variants] == [
        ("arm64", True), ("amd64", True), ("s390x", False),
    ]  # fmt: skip
    remove(rooms.images, "a")
    assert rooms.images.all() == []
    assert list(rooms.content.digests()) == []
    assert rooms.layers.all() == []
    data = made.archive({name: data for name, data in found.items() if name != "repositories"})
    load(rooms.images, io.BytesIO(data))
    assert saved(rooms, "a") == found


def test_a_name_goes_back_to_its_index(rooms: Rooms) -> None:
    """Undo of a move, and undo of the undo, restores which index the name stands for."""
    (image,) = loaded(rooms, MULTI)
    name = parse_reference("a:latest")
    other = rooms.make("other")
    tag(rooms.images, other, name)
    assert rooms.images.target(name) == ""
    assert undo(rooms.images, name).new_id == image.id
    assert rooms.images.target(name) == digest_bytes(INDEX)
    undo(rooms.images, name)
    assert (rooms.images.referred(name), rooms.images.target(name)) == (other.id, "")
    undo(rooms.images, name)
    assert rooms.images.target(name) == digest_bytes(INDEX)
    remove(rooms.images, "a")
    assert len(rooms.images.all()) == 1


def test_platforms_of_an_index(rooms: Rooms) -> None:
    """--platform chooses: one image of the index, or its absence is told; unnamed parts are no rubbish."""
    (image,) = loaded(rooms, MULTI)
    arm = Platform(architecture="arm64", variant="v8")
    chosen = documents.for_platform(rooms.images, image, arm, "a")
    assert chosen.spec.architecture == "arm64"
    assert chosen.part_of == (image.id,)
    assert not chosen.dangling
    assert prune(rooms.images).removed == ()
    found = saved(rooms, "a", platforms=(arm,))
    (entry,) = json.loads(found["index.json"])["manifests"]
    assert entry["digest"] == digest_bytes(ARM_MANIFEST)
    assert json.loads(found["manifest.json"])[0]["Config"] == f"blobs/sha256/{chosen.id[7:]}"
    with pytest.raises(NotFound, match=r"does not provide the platform \(linux/s390x\)"):
        choose(rooms.images, ["a"], [Platform(architecture="s390x")])


def test_leases_die_with_their_holder(tmp_path: Path) -> None:
    """A killed process's lease holds nothing; a living one's holds its layer against another process's collector."""
    rooms = Rooms(tmp_path / "data")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            other = Rooms(tmp_path / "data")
            with other.layers.lease(what="load") as lease:
                other.layers.add(io.BytesIO(TWO), lease=lease)
                os.write(writer, b"x")
                threading.Event().wait()
        finally:
            os._exit(1)
    try:
        assert os.read(reader, 1) == b"x"
        (held,) = rooms.layers.leases.all()
        assert (held.what, held.pid, held.digests) == ("load", child, (digest_bytes(TWO),))
        assert rooms.layers.collect() == []
        assert rooms.layers.exists(digest_bytes(TWO))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert [layer.diff_id for layer in rooms.layers.collect()] == [digest_bytes(TWO)]
    assert rooms.layers.leases.all() == []
    assert isinstance(rooms.layers, Layers)
    rooms.close()


def test_one_that_comes_in_again_while_it_is_collected_stays(rooms: Rooms) -> None:
    """Between the transaction that forgets an original and the removal of its file the same may be pulled again."""
    packed = other_gzip(TWO)
    digest = digest_bytes(packed)
    with rooms.layers.lease() as lease:
        rooms.layers.add_blob(io.BytesIO(packed), lease=lease)
        rooms.layers.originals.discard([digest])  # an earlier collection comes to its end only now
        assert b"".join(rooms.layers.originals.open(digest)) == packed
