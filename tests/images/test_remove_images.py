"""Removal by Docker's rules, in Docker's words; the order of what is reported; pruning."""

from __future__ import annotations

import threading

import pytest
from image_rooms import Rooms
from test_image_verbs import committed

from tare import errors
from tare.images.prune import prune
from tare.images.records import Image, Use
from tare.images.remove import Removal, remove, remove_as
from tare.images.tag import tag
from tare.storage.digests import chain_id
from tare.values.reference import parse_reference

CONTAINER = "3eab3931d17149ae6ea958816869f1f65611441dba441108ede6bab5870cf7a1"


def use(image: Image, *, running: bool = False) -> list[Use]:
    return [Use(container_id=CONTAINER, image_id=image.id, running=running)]


def lines(rooms: Rooms, text: str, uses: list[Use] | None = None, **options: bool) -> list[tuple[str, str]]:
    return [(line.kind, line.value) for line in remove(rooms.images, text, in_use=lambda: uses or [], **options)]


def test_the_last_name_takes_the_image_along(rooms: Rooms) -> None:
    """Untagged, deleted, then the layers by chain ID, topmost first; nothing is left on disk."""
    base = rooms.make(None, "base")
    image = committed(rooms, base, "me/x")
    assert lines(rooms, "me/x") == [
        ("untagged", "me/x:latest"),
        ("deleted", image.id),
        ("deleted", chain_id(image.diff_ids)),
        ("deleted", base.id),
        ("deleted", chain_id(base.diff_ids)),
    ]
    assert rooms.images.all() == [] and rooms.layers.all() == [] and list(rooms.content.digests()) == []


def test_noprune_keeps_parents(rooms: Rooms) -> None:
    base = rooms.make(None, "base")
    committed(rooms, base, "me/x")
    lines(rooms, "me/x", noprune=True)
    assert [image.id for image in rooms.images.all()] == [base.id]


def test_one_name_of_several(rooms: Rooms) -> None:
    """Only the name goes while another is left, used or not."""
    image = rooms.make("me/x:1")
    tag(rooms.images, image, parse_reference("me/x:2"))
    assert lines(rooms, "me/x:1", use(image)) == [("untagged", "me/x:1")]
    assert rooms.images.get(image.id).repo_tags == ("me/x:2",)


def test_by_id(rooms: Rooms) -> None:
    """By id an image with one name goes; with several it must be forced."""
    image = rooms.make("me/x:1")
    tag(rooms.images, image, parse_reference("me/x:2"))
    short = image.id[7:19]
    with pytest.raises(errors.Conflict) as caught:
        remove(rooms.images, short)
    assert str(caught.value) == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    kinds = [line[0] for line in lines(rooms, short, force=True)]
    assert kinds == ["untagged", "untagged", "deleted", "deleted"]


def test_layers_in_use_stay(rooms: Rooms) -> None:
    """A forced removal below a stopped container keeps the layers it stands on."""
    image = rooms.make("me/x")
    rooms.snapshots.prepare("c", image.diff_ids)
    assert lines(rooms, image.id, use(image), force=True) == [("untagged", "me/x:latest"), ("deleted", image.id)]
    assert (rooms.layers.path(image.diff_ids[0]) / "etc/file").exists()
    rooms.snapshots.remove("c")
    assert len(rooms.layers.collect()) == 1


@pytest.mark.parametrize("force", [False, True])
def test_a_running_container_forbids(rooms: Rooms, force: bool) -> None:
    """By id never; by its only name the name goes if forced, the image stays without one."""
    image = rooms.make("me/x")
    with pytest.raises(errors.Conflict) as caught:
        remove(rooms.images, image.id, force=force, in_use=lambda: use(image, running=True))
    assert str(caught.value) == (
        f"conflict: unable to delete {image.id[7:19]} (cannot be forced)"
        " - image is being used by running container 3eab3931d171"
    )
    if force:
        assert lines(rooms, "me/x", use(image, running=True), force=True) == [("untagged", "me/x:latest")]
        assert rooms.images.get(image.id).dangling


def test_a_stopped_container_must_be_forced(rooms: Rooms) -> None:
    image = rooms.make("me/x")
    with pytest.raises(errors.Conflict) as caught:
        remove(rooms.images, "me/x", in_use=lambda: use(image))
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "me/x" (must force) - container 3eab3931d171'
        f" is using its referenced image {image.id[7:19]}"
    )
    with pytest.raises(errors.Conflict) as caught:
        remove(rooms.images, image.id[7:], in_use=lambda: use(image))
    assert str(caught.value) == (
        f"conflict: unable to delete {image.id[7:19]} (must be forced)"
        " - image is being used by stopped container 3eab3931d171"
    )


def test_children_forbid(rooms: Rooms) -> None:
    """By id a parent stays; by name it only loses the name."""
    base = rooms.make("me/base")
    committed(rooms, base, "me/child")
    with pytest.raises(errors.Conflict) as caught:
        remove(rooms.images, base.id, force=True)
    assert str(caught.value) == (
        f"conflict: unable to delete {base.id[7:19]} (cannot be forced) - image has dependent child images"
    )
    assert lines(rooms, "me/base") == [("untagged", "me/base:latest")]
    assert len(lines(rooms, "me/child")) == 5


def test_equal_layers_are_shared(rooms: Rooms) -> None:
    """A layer goes with the last image that has it."""
    one, two = rooms.make("x", changes=("ENV A=1",)), rooms.make("y", changes=("ENV A=2",))
    assert one.diff_ids == two.diff_ids
    assert lines(rooms, "x") == [("untagged", "x:latest"), ("deleted", one.id)]
    assert lines(rooms, "y")[-1] == ("deleted", two.diff_ids[0])


def test_what_is_not_there(rooms: Rooms) -> None:
    with pytest.raises(errors.NotFound, match="No such image: nope:latest"):
        remove(rooms.images, "nope")


def test_prune(rooms: Rooms) -> None:
    """Unnamed images go; with dangling=false all that no container uses, with their names."""
    named, used, unnamed = rooms.make("x", "12"), rooms.make("y", "345"), rooms.make(None, "6789")
    result = prune(rooms.images, in_use=lambda: use(used))
    assert [line.value for line in result.removed] == [unnamed.id, unnamed.diff_ids[0]]
    assert result.reclaimed_bytes == 4
    assert prune(rooms.images, {"dangling": ("false",), "label": ("a",)}).removed == ()
    result = prune(rooms.images, {"dangling": ("false",)}, in_use=lambda: use(used))
    assert [line.value for line in result.removed] == ["x:latest", named.id, named.diff_ids[0]]
    assert [image.id for image in rooms.images.all()] == [used.id]
    with pytest.raises(errors.InvalidArgument, match="invalid filter 'bogus'"):
        prune(rooms.images, {"bogus": ("1",)})


def test_import_against_removal(rooms: Rooms) -> None:
    """While one thread removes an image, another makes the same one: what is acknowledged is whole."""
    failures: list[BaseException] = []
    stop = threading.Event()

    def removing() -> None:
        while not stop.is_set():
            try:
                remove(rooms.images, "x", force=True)
            except errors.NotFound:
                pass
            except BaseException as error:
                failures.append(error)

    def making(number: int) -> None:
        try:
            for _ in range(12):
                image = rooms.make(f"kept{number}", changes=(f"ENV A={number}",))
                tag(rooms.images, image, parse_reference("x"))
                root = rooms.snapshots.prepare(f"c{number}", image.diff_ids)
                assert root.upper and (rooms.layers.path(image.diff_ids[0]) / "etc/file").exists()
                rooms.snapshots.remove(f"c{number}")
                rooms.content.get(rooms.images.get(image.id).manifest_digest)
        except BaseException as error:
            failures.append(error)

    remover = threading.Thread(target=removing)
    makers = [threading.Thread(target=making, args=(number,)) for number in range(3)]
    for thread in (remover, *makers):
        thread.start()
    for thread in makers:
        thread.join(60)
    stop.set()
    remover.join(60)
    assert failures == []
    rooms.layers.collect()
    assert rooms.layers.repair() == [] and rooms.images.repair() == []


def test_a_damaged_image_can_be_removed(rooms: Rooms) -> None:
    """What has lost its config or manifest can't wait to be had back: it goes at once, and is no obstacle."""
    kept: list[str] = []
    how = Removal(keep=lambda tx, removed: kept.append(removed.id))
    for broken in ("id", "manifest_digest"):
        image = rooms.make("me/x", broken)
        rooms.content.delete(getattr(image, broken))
        remove_as(rooms.images, "me/x", how)
        assert rooms.images.all() == [] and kept == []
    image = rooms.make("me/x")
    remove_as(rooms.images, "me/x", how)
    assert kept == [image.id]
