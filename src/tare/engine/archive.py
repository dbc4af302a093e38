"""archive: looking at a container's files, and copying them out and in, running or stopped.

Must never walk a container's path as a string, nor run anything from its root (CVE-2019-14271, CVE-2018-15664): all is
done on a descriptor of the root, which the kernel resolves inside.

A running container's root is seen through /proc/PID/root, its mounts included. A stopped one's is mounted for the time
of the copy by a worker of the launcher, in a mount namespace that is held by a descriptor alone (`runtime/view.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from typing import ParamSpec, TypeVar

from tare import faults
from tare.engine import container_volumes, image_mounts, mounts
from tare.engine.engine import Engine, in_own_thread, in_thread
from tare.engine.records import Container
from tare.engine.running_root import running_root
from tare.engine.thread_stream import Begun, BodyReader, begun_in_thread
from tare.engine.user_namespaces import IDS
from tare.errors import Forbidden, Internal, InvalidArgument, NotFound
from tare.kernel.namespaces import acting_as
from tare.oci.runtime_spec import Mount
from tare.runtime.users import resolve_user
from tare.runtime.view import plan_view
from tare.storage import rooted
from tare.storage.overwrite import overwrite
from tare.storage.owners import Owners
from tare.values.mount import OverlayRoot

P = ParamSpec("P")
R = TypeVar("R")


async def look_in_container(engine: Engine, ref: str, path: str) -> rooted.PathFacts:
    """What a path in a container is. Raises NotFound, InvalidArgument."""
    container = engine.containers.find(ref)
    async with contextlib.AsyncExitStack() as held:
        root_fd = await _root(engine, container, held, writable=False)
        with _named(ref, path):
            return await in_thread(rooted.look, root_fd, path)


async def copy_from_container(engine: Engine, ref: str, path: str) -> tuple[rooted.PathFacts, AsyncIterator[bytes]]:
    """What a path is, and a tar stream of it. Raises NotFound, InvalidArgument before the first chunk."""
    container = engine.containers.find(ref)
    async with contextlib.AsyncExitStack() as held:
        root_fd = await _root(engine, container, held, writable=False)
        located = rooted.located(root_fd, path)
        with _named(ref, path):
            place = await in_thread(located.__enter__)
            held.callback(located.__exit__, None, None, None)
            facts = await in_thread(rooted.facts, root_fd, place)
        engine.events.container(container, "archive-path")
        owners = _owners(engine, container)
        chunks = await begun_in_thread(lambda write: rooted.write_archive(place, write, owners))
        return facts, _HeldStream(held.pop_all(), chunks)
    raise AssertionError("not reached: the stack swallows nothing")


class _HeldStream:
    """What a thread writes; what it uses is closed at the end, or by `aclose` where nobody came to read."""

    def __init__(self, held: contextlib.AsyncExitStack, chunks: Begun) -> None:
        self._held = held
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Ends the writing thread, then closes what it used."""
        await self._chunks.aclose()
        await self._held.aclose()


async def copy_into_container(
    engine: Engine, ref: str, path: str, body: AsyncIterator[bytes], *, keep_kinds: bool, copy_owner: bool
) -> None:
    """Unpacks a tar (plain, gzip, bzip2, xz or zstd) into a directory of a container.

    keep_kinds: a directory is not replaced by a file or the other way round. copy_owner: what is made belongs to the
    container's own user, if it has one. Raises NotFound, InvalidArgument, Forbidden (read-only).
    """
    container = engine.containers.find(ref)
    async with contextlib.AsyncExitStack() as held:
        if container.id not in engine.live:
            await held.enter_async_context(engine.lock(container.id))  # a start waits until we are done
            container = engine.containers.find(container.id)
        root_fd = await _root(engine, container, held, writable=True)
        reader = BodyReader(body, asyncio.get_running_loop())
        faults.point("engine.archive.opened")
        with _named(ref, path):
            user = container.config.user if copy_owner else ""
            await _to_its_end(_unpack, root_fd, path, reader, keep_kinds, user, _owners(engine, container))
        faults.point("engine.archive.unpacked")
    engine.events.container(container, "extract-to-dir")


async def _to_its_end(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs in a thread; a caller that is cancelled waits until the thread has stopped using what it was given."""
    task = asyncio.ensure_future(in_own_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _owners(engine: Engine, container: Container) -> Owners | None:
    """Who owns files in the root that `_root` gives: a running container's shows the ids of its user namespace."""
    if container.ids is None or container.id not in engine.live:
        return None
    return Owners(container.ids.uid, container.ids.gid, IDS)


def _unpack(root_fd: int, path: str, reader: BodyReader, keep_kinds: bool, user: str, owners: Owners | None) -> None:
    # What is made on the way has an owner, too, which must be one that the container's mounts know.
    acting = contextlib.nullcontext() if owners is None else acting_as(owners.uid, owners.gid)
    with acting:
        _unpack_as(root_fd, path, reader, keep_kinds, user, owners)


def _unpack_as(root_fd: int, path: str, reader: BodyReader, keep_kinds: bool, user: str, owners: Owners | None) -> None:
    target = rooted.absolute_path(path)
    target_fd = rooted.opened(root_fd, target, 0, path)
    try:
        if not stat.S_ISDIR(os.fstat(target_fd).st_mode):
            raise InvalidArgument("extraction point is not a directory")
        if os.fstatvfs(target_fd).f_flag & os.ST_RDONLY:
            same = os.fstat(target_fd).st_dev == os.fstat(root_fd).st_dev
            raise Forbidden("container rootfs is marked read-only" if same else "mounted volume is marked read-only")
        owner = None
        if user:
            found = resolve_user(root_fd, user, ())
            owner = (found.uid, found.gid)
        overwrite(reader, root_fd, target_fd, target, keep_kinds=keep_kinds, owner=owner, owners=owners)
    finally:
        os.close(target_fd)


@contextlib.contextmanager
def _named(ref: str, path: str) -> Iterator[None]:
    """Says a missing path in Docker's words, as the user named container and path."""
    try:
        yield
    except rooted.Missing as error:
        raise NotFound(f"Could not find the file {path} in container {ref}") from error


async def _root(engine: Engine, container: Container, held: contextlib.AsyncExitStack, *, writable: bool) -> int:
    """A descriptor of the container's root; what else keeps its mounts is closed with `held`."""
    live = engine.live.get(container.id)
    if live is not None:
        found = running_root(live)
        if found is None:  # it has just ended
            await live.handled.wait()
    if live is None or found is None:
        found = await (_stopped_root(engine, container, True) if writable else _root_to_read(engine, container))
    for descriptor in found:
        held.callback(os.close, descriptor)
    return found[0]


async def _root_to_read(engine: Engine, container: Container) -> tuple[int, int]:
    """As `_stopped_root`, with nothing to be written, also before the first start has made what mounts stand on."""
    try:
        return await _stopped_root(engine, container, writable=False)
    except Internal:
        pass  # a worker can't make directories in what is only to be read; what else is wrong shows again below
    async with engine.lock(container.id):  # no start meanwhile, which would mount the same upper directory
        live = engine.live.get(container.id)
        found = running_root(live) if live is not None else None
        if found is not None:
            return found
        container = engine.containers.find(container.id)
        for descriptor in await _stopped_root(engine, container, writable=True):
            os.close(descriptor)
        faults.point("engine.archive.mount_points")
        return await _stopped_root(engine, container, writable=False)


async def _stopped_root(engine: Engine, container: Container, writable: bool) -> tuple[int, int]:
    """(root, mount namespace) of a view made for this copy, with all that a start would mount of the host."""
    async with container_volumes.mounted(engine, container):
        mounts.prepare_sources(container.host)
        own = _own_mounts(engine, container)
        steps = plan_view(_overlay(engine, container, writable), own, readonly=container.host.readonly_rootfs)
        found = await engine.launcher.make_view(steps)
    container_volumes.let_go(engine, container)  # the view has its own mounts of them
    return found


def _overlay(engine: Engine, container: Container, writable: bool) -> OverlayRoot:
    root = engine.snapshots.root_filesystem(container.id)
    if writable or root.upper is None:
        return root
    # Read-only, so that it stands in nobody's way: the container may be started or removed while it is read.
    return OverlayRoot(lower=(root.upper, *root.lower))


def _own_mounts(engine: Engine, container: Container) -> tuple[Mount, ...]:
    """What a stopped container has mounted that outlives its process: volumes, binds, images and network files."""
    layers = image_mounts.layers(engine, container.id, container.mounts)
    found = [mount for mount in mounts.oci_mounts(container.host, container.mounts, layers) if mount.type != "tmpfs"]
    own = {mount.destination for mount in found}
    for name in ("resolv.conf", "hostname", "hosts"):
        source = f"{container.directory}/{name}"
        if f"/etc/{name}" not in own and os.path.exists(source):
            options = ("bind", "rprivate", "ro" if container.host.readonly_rootfs else "rw")
            found.append(Mount(f"/etc/{name}", "bind", source, options))
    return tuple(found)
