"""Volumes and networks: what outlives containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tare.client.engine import quote
from tare.sdk import documents
from tare.sdk.aio.calls import AsyncCalls, filter_values
from tare.sdk.records import Network, Pruned, Volume


class AsyncVolumes:
    """`engine.volumes`."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def list(self, **filters: Any) -> list[Volume]:
        """Volumes; filters as `docker volume ls --filter`: dangling, driver, label, name."""
        found = await self._calls.json("GET", "/volumes", {"filters": filter_values(filters)})
        return [documents.volume(item) for item in found.get("Volumes") or ()]

    async def create(
        self,
        name: str = "",
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Makes a volume, or finds the one of that name."""
        body = {"Name": name, "Driver": driver, "DriverOpts": dict(options or {}), "Labels": dict(labels or {})}
        return documents.volume(await self._calls.json("POST", "/volumes/create", None, body))

    async def get(self, name: str) -> Volume:
        """One volume. NotFound if it isn't there."""
        return documents.volume(await self._calls.json("GET", f"/volumes/{quote(name)}"))

    async def remove(self, name: str, force: bool = False) -> None:
        """Removes a volume that no container uses."""
        await self._calls.do("DELETE", f"/volumes/{quote(name)}", {"force": force})

    async def prune(self, all: bool = False) -> Pruned:
        """Removes anonymous volumes that no container uses. all: named ones too."""
        query = {"filters": {"all": ["true"]}} if all else {}
        found = await self._calls.json("POST", "/volumes/prune", query)
        return Pruned(tuple(found.get("VolumesDeleted") or ()), found.get("SpaceReclaimed", 0))


class AsyncNetworks:
    """`engine.networks`."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def list(self, **filters: Any) -> list[Network]:
        """Networks; filters as `docker network ls --filter`."""
        found = await self._calls.json("GET", "/networks", {"filters": filter_values(filters)})
        return [documents.network(item) for item in found or ()]

    async def get(self, name: str) -> Network:
        """One network. NotFound if it isn't there."""
        return documents.network(await self._calls.json("GET", f"/networks/{quote(name)}"))

    async def create(
        self,
        name: str,
        driver: str = "bridge",
        subnet: str = "",
        internal: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        gateway: str = "",
        ip_range: str = "",
        ipv6: bool = False,
        subnet6: str = "",
        egress: str = "",
    ) -> Network:
        """Makes a network. egress: what its containers may send to ("none", "allow=10.0.0.0/8,…"); Tare only."""
        body: dict[str, Any] = {"Name": name, "Driver": driver, "Internal": internal, "CheckDuplicate": True}
        own = {"tare.network.egress": egress} if egress else {}
        body |= {"Labels": dict(labels or {}), "Options": {**(options or {}), **own}, "EnableIPv6": ipv6}
        wanted = {"Subnet": subnet, "Gateway": gateway, "IPRange": ip_range}
        pools = [pool for pool in (wanted, {"Subnet": subnet6}) if any(pool.values())]
        if pools:
            body["IPAM"] = {"Config": [{key: value for key, value in pool.items() if value} for pool in pools]}
        made = await self._calls.json("POST", "/networks/create", None, body)
        return await self.get(made["Id"])

    async def connect(self, network: str, container: str, aliases: tuple[str, ...] = (), ip: str = "") -> None:
        """Puts a container into a network."""
        place: dict[str, Any] = {"Aliases": list(aliases)}
        if ip:
            place["IPAMConfig"] = {"IPv4Address": ip}
        body = {"Container": container, "EndpointConfig": place}
        await self._calls.do("POST", f"/networks/{quote(network)}/connect", None, body)

    async def disconnect(self, network: str, container: str, force: bool = False) -> None:
        """Takes a container out of a network."""
        body = {"Container": container, "Force": force}
        await self._calls.do("POST", f"/networks/{quote(network)}/disconnect", None, body)

    async def remove(self, name: str) -> None:
        """Removes a network that no container is in."""
        await self._calls.do("DELETE", f"/networks/{quote(name)}")

    async def update(self, name: str, egress: str) -> Network:
        """Holds a network's containers to another egress policy ("none", "all", "allow=…") from now on; Tare only."""
        await self._calls.do("POST", f"/tare/networks/{quote(name)}/update", None, {"Egress": egress})
        return await self.get(name)

    async def rules(self) -> tuple[Mapping[str, Any], ...]:
        """The engine's packet filter in words, table by table: Family, Name, Whole, Chains, Sets."""
        return tuple(await self._calls.json("GET", "/tare/networks/rules"))

    async def repair(self) -> tuple[str, ...]:
        """Puts right what somebody broke of bridges, links and rules; says what it was."""
        found = await self._calls.json("POST", "/tare/networks/repair")
        return tuple(found["Repaired"])
