"""Each network test has a host of its own and must leave nothing in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from network_topology import Topology
from network_world import Engine, Outside, private_host

from tare.kernel.netlink_route import RouteSocket
from tare.kernel.nftables import NftablesSocket


@pytest.fixture
def host() -> Iterator[None]:
    """A private host. Afterwards: no link, no table, no descriptor more than before."""
    before = len(os.listdir("/proc/self/fd"))
    with private_host():
        yield
        with RouteSocket() as sock, NftablesSocket() as nft:
            ours = ("veth", "bridge", "ifb", "dummy")
            left = [link.name for link in sock.links() if link.kind in ours and link.name != "wan0"]
            assert left == []
            assert nft.base_chains() == []
    assert len(os.listdir("/proc/self/fd")) <= before  # fewer: of an earlier failure some were still open


@pytest.fixture
def engine(host: None, tmp_path: Path) -> Engine:
    return Engine(tmp_path)


@pytest.fixture
def outside(host: None) -> Iterator[Outside]:
    world = Outside()
    yield world
    world.close()


@pytest.fixture
def world(host: None) -> Iterator[Topology]:
    """Two hosts, a router, a client: this thread is in the first host."""
    made = Topology()
    yield made
    made.close()
