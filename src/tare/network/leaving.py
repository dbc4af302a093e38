"""What released endpoints leave behind for a moment: links that the kernel takes away by itself, and their addresses.

It must never hold a verb up: deleting a veth waits for RCU (13 to 27 ms), so it happens in a thread, and only if the
namespace was not dropped by itself (somebody else still keeps it).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence

from tare.errors import KernelError
from tare.kernel import netlink_route as route
from tare.kernel.netlink_route import RouteSocket
from tare.kernel.netlink_stacked import delete_link_inside, namespace_id
from tare.network import flows, ipam
from tare.network.records import EndpointRecord
from tare.storage.database import Database

_log = logging.getLogger(__name__)

_LOOK_AFTER_S = (0.1, 0.4, 1.5)  # then the link is deleted by hand
_SHORT_S, _LONGEST_S = 0.004, 5.0


class Leaving:
    """Watches over the leases that are on their way out."""

    def __init__(self, db: Database, sock: RouteSocket) -> None:
        self._db = db
        self._route = sock
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._inside: dict[str, asyncio.Future[None]] = {}
        self._dropped: set[asyncio.Future[None]] = set()

    def collect(self) -> int:
        """Frees the addresses whose links are gone; returns how many are still leaving."""
        leaving = ipam.leaving_leases(self._db)
        gone = [lease.link for lease in leaving if not lease.had_flows and self._is_gone(lease)]
        ipam.free(self._db, gone)
        return len(leaving) - len(gone)

    def _is_gone(self, lease: ipam.LeavingLease) -> bool:
        return lease.link not in self._inside and self._route.link(lease.link) is None

    def delete_inside_nowait(self, namespace_fd: int, record: EndpointRecord) -> None:
        """Deletes a link that is in a container alone; its addresses stay leased until it is gone."""
        own_fd = os.dup(namespace_fd)
        future = asyncio.get_running_loop().run_in_executor(None, _delete_inside, own_fd, record.inside)
        self._inside[record.link] = future
        future.add_done_callback(lambda _: self._inside.pop(record.link, None))

    def delete_nowait(self, name: str) -> None:
        """Deletes a link of the host that no address is leased to."""
        future = asyncio.get_running_loop().run_in_executor(None, _delete_links, [name])
        self._dropped.add(future)
        future.add_done_callback(self._dropped.discard)

    async def wait_deleted(self) -> None:
        """Until the links that were to be deleted by hand are gone."""
        await asyncio.gather(*self._inside.values(), *self._dropped)

    def watch_nowait(self) -> None:
        """Sees to it that what leaves now is gone soon."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="network-leaving")

    async def _watch(self) -> None:
        while self._again:
            self._again = False
            for delay in _LOOK_AFTER_S:
                await asyncio.sleep(delay)
                await self._forget_flows()
                if not self.collect():
                    break
            else:
                await self.delete_links([lease.link for lease in ipam.leaving_leases(self._db)])
                await self._forget_flows()
                self.collect()

    async def _forget_flows(self) -> None:
        """A datagram flow tracked to an old container must not lead to the next one with its address."""
        leases = [lease for lease in ipam.leaving_leases(self._db) if lease.had_flows]
        gone = [lease for lease in leases if self._route.link(lease.link) is None]
        if gone:
            await asyncio.to_thread(flows.forget_answers_of, [lease.address for lease in gone])
            ipam.free(self._db, [lease.link for lease in gone])

    async def wait_free(self, is_free: Callable[[], bool]) -> None:
        """Until an address that was on its way out is free, or stays for longer than a link takes to go."""
        deadline = asyncio.get_running_loop().time() + _LONGEST_S
        while not is_free() and asyncio.get_running_loop().time() < deadline:
            await self._forget_flows()
            self.collect()
            await asyncio.sleep(_SHORT_S)

    async def wait_gone(self) -> None:
        """Until nothing is leaving any more (shutdown and tests)."""
        while self.collect():
            self.watch_nowait()
            if self._task is not None:
                await self._task
        await self.wait_deleted()

    async def delete_links(self, names: Sequence[str]) -> None:
        if names:
            await asyncio.to_thread(_delete_links, list(names))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.wait_deleted()


def _delete_links(names: list[str]) -> None:
    """Runs in a thread, with a socket of its own."""
    with RouteSocket() as sock:
        for name in names:
            try:
                sock.execute((route.delete_link(name),))
            except KernelError as error:
                _log.warning("link %s stays for now: %s", name, error)


def _delete_inside(namespace_fd: int, name: str) -> None:
    """Runs in a thread: nobody has to enter the namespace for it."""
    try:
        with RouteSocket() as sock:
            sock.execute((delete_link_inside(name, namespace_id(sock, namespace_fd)),))
    except KernelError as error:
        _log.warning("link %s of a container stays for now: %s", name, error)
    finally:
        os.close(namespace_fd)
