# Made from tare/sdk/aio/kept.py by scripts/sdkfaces: change that one.
"""Volumes and networks: what outlives containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tare.client.engine import quote
from tare.sdk import documents
from tare.sdk.blocking.calls import Calls, filter_values
from tare.sdk.records import Network, Pruned, Volume


class Volumes:
    """`engine.volumes`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def list(self, **filters: Any) -> list[Volume]:
        """Volumes; filters as `docker volume ls --filter`: dangling, driver, label, name."""
        found = self._calls.json("GET", "/volumes", {"filters": filter_values(filters)})
        return [documents.volume(item) for item in found.get("Volumes") or ()]

    def create(
        self,
        name: str = "",
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Makes a volume, or finds the one of that name."""
        body = {"Name": name, "Driver": driver, "DriverOpts": dict(options or {}), "Labels": dict(labels or {})}
        return documents.volume(self._calls.json("POST", "/volumes/create", None, body))

    def get(self, name: str) -> Volume:
        """One volume. NotFound if it isn't there."""
        return documents.volume(self._calls.json("GET", f"/volumes/{quote(name)}"))

    def remove(self, name: str, force: bool = False) -> None:
        """Removes a volume that no container uses."""
        self._calls.do("DELETE", f"/volumes/{quote(name)}", {"force": force})

    def prune(self, all: bool = False) -> Pruned:
        """Removes anonymous volumes that no container uses. all: named ones too."""
        query = {"filters": {"all": ["true"]}} if all else {}
        found = self._calls.json("POST", "/volumes/prune", query)
        return Pruned(tuple(found.get("VolumesDeleted") or ()), found.get("SpaceReclaimed", 0))


class Networks:
    """`engine.networks`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def list(self, **filters: Any) -> list[Network]:
        """Networks; filters as `docker network ls --filter`."""
        found = self._calls.json("GET", "/networks", {"filters": filter_values(filters)})
        return [documents.network(item) for item in found or ()]

    def get(self, name: str) -> Network:
        """One network. NotFound if it isn't there."""
        return documents.network(self._calls.json("GET", f"/networks/{quote(name)}"))

    def create(
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
        made = self._calls.json("POST", "/networks/create", None, body)
        return self.get(made["Id"])

    def connect(self, network: str, container: str, aliases: tuple[str, ...] = (), ip: str = "") -> None:
        """Puts a container into a network."""
        place: dict[str, Any] = {"Aliases": list(aliases)}
        if ip:
            place["IPAMConfig"] = {"IPv4Address": ip}
        body = {"Container": container, "EndpointConfig": place}
        self._calls.do("POST", f"/networks/{quote(network)}/connect", None, body)

    def disconnect(self, network: str, container: str, force: bool = False) -> None:
        """Takes a container out of a network."""
        body = {"Container": container, "Force": force}
        self._calls.do("POST", f"/networks/{quote(network)}/disconnect", None, body)

    def remove(self, name: str) -> None:
        """Removes a network that no container is in."""
        self._calls.do("DELETE", f"/networks/{quote(name)}")

    def update(self, name: str, egress: str) -> Network:
        """Holds a network's containers to another egress policy ("none", "all", "allow=…") from now on; Tare only."""
        self._calls.do("POST", f"/tare/networks/{quote(name)}/update", None, {"Egress": egress})
        return self.get(name)

    def rules(self) -> tuple[Mapping[str, Any], ...]:
        """The engine's packet filter in words, table by table: Family, Name, Whole, Chains, Sets."""
        return tuple(self._calls.json("GET", "/tare/networks/rules"))

    def repair(self) -> tuple[str, ...]:
        """Puts right what somebody broke of bridges, links and rules; says what it was."""
        found = self._calls.json("POST", "/tare/networks/repair")
        return tuple(found["Repaired"])
