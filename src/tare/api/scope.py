"""What a scoped socket allows: one decision for every operation, made on the request that the operation then gets.

Whoever reaches an unscoped socket is root on this machine; on a scoped one

    viewer      reads: lists, inspect (without the values of variables), logs, stats, events
    operator    also runs: start, stop, exec, attach, cp, create (nothing that reaches the host), remove
    admin       everything

and with labels only sees and touches what bears them; what it makes gets them. An operation without a decision is
refused. The check sees the very body that the operation gets (CVE-2024-41110): it is parsed once, here, and what the
check made of it is handed on. References are looked up once, too, and handed on as full ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tare.api import scope_bodies
from tare.api.messages import Response
from tare.api.operations import operations
from tare.errors import Forbidden, InvalidArgument, NotFound

if TYPE_CHECKING:
    from tare.api.call import Call
    from tare.engine.engine import Engine
    from tare.engine.records import Container

HIDDEN = "(hidden)"
DEFAULT_NETWORKS = ("bridge", "default", "none")

_RULES = """
ping       SystemPing SystemPingHead SystemVersion SystemInfo PluginList PluginInspect TareDoctor
images     ImageList ImageInspect
lists      ContainerList VolumeList NetworkList
events     SystemEvents
whole      SystemDataUsage
container  ContainerInspect ContainerTop ContainerLogs ContainerStats ContainerChanges ContainerWait TareContainerWhy
exec       ExecInspect
volume     VolumeInspect
network    NetworkInspect
operate-images     ImageHistory
operate-lists      ContainerPrune VolumePrune NetworkPrune
operate-container  ContainerStart ContainerStop ContainerRestart ContainerKill ContainerPause ContainerUnpause
operate-container  ContainerAttach ContainerAttachWebsocket ContainerResize ContainerDelete ContainerRename
operate-container  ContainerArchive ContainerArchiveInfo PutContainerArchive ContainerExport TareContainerLogsClear
operate-container  ContainerExec
operate-exec       ExecStart ExecResize
operate-volume     VolumeDelete
operate-network    NetworkDelete NetworkConnect NetworkDisconnect
operate-create     ContainerCreate VolumeCreate NetworkCreate
admin  ContainerUpdate ImageBuild BuildPrune ImageCreate ImageAttestations ImagePush ImageTag ImageDelete ImageSearch
admin  ImagePrune ImageCommit ImageGet ImageGetAll ImageLoad SystemAuth DistributionInspect Session VolumeUpdate
admin  GetPluginPrivileges PluginPull PluginDelete PluginEnable PluginDisable PluginUpgrade PluginCreate PluginPush
admin  PluginSet SwarmInit SwarmJoin TareDiff TareTrashList TareTrashDelete TareTrashEmpty TareTrashRestore
admin  TareFsck TareFsckRepair TareOriginalsDrop TareDistributionTags
admin  TareNetworkRules TareNetworkRepair TareNetworkUpdate TareContainerCheckout TareLog TareReflog TareSquash TareUndo
admin  TarePack TarePackUsage
admin  TareImagesOffer TareImagesMissing TareImagesSend TareImagesReceive
admin  TareDepartureDescribe TareDepartureBegin TareDeparturePart TareDepartureFinish TareDepartureStay TareArrivalBegin
admin  TareArrivalLook TareArrivalPart TareArrivalFinish TareArrivalStart TareArrivalGiveUp TareImageExport
"""


def decisions() -> dict[str, str]:
    """What is decided for each operation. Swarm's answer 503 whatever is asked: reading them is free, to be told so."""
    found = {name: line.split()[0] for line in _RULES.strip().splitlines() for name in line.split()[1:]}
    for method, _, name, swarm in operations():
        if swarm:
            found[name] = "ping" if method == "GET" else "admin"
    return found


class Scope:
    """A role, and the labels that bound it."""

    def __init__(self, role: str, labels: Mapping[str, str]) -> None:
        self.role = role
        self.labels = dict(labels)
        self._rules = decisions()

    async def admit(self, operation: str, call: Call) -> Call:
        """The call as it may be carried out. Raises Forbidden; NotFound for what the scope doesn't show."""
        if self.role == "admin":
            return call
        rule = self._rules.get(operation, "admin")
        needs_operator, subject = rule.startswith("operate-"), rule.removeprefix("operate-")
        if rule == "admin" or (needs_operator and self.role != "operator") or (subject == "whole" and self.labels):
            raise Forbidden(f"{operation} is not allowed on this socket: its role is {self._name()}")
        if subject in ("lists", "events"):
            return self._filtered(operation, call)
        if subject in ("container", "volume", "network", "exec"):
            call = self._pinned(call, subject)
        if operation in scope_bodies.RULES:
            document = await scope_bodies.RULES[operation](self, call)
            call = call._replace(document=document)
        return call

    def _name(self) -> str:
        bounds = "".join(f", {name}={value}" for name, value in sorted(self.labels.items()))
        return self.role + bounds

    # -- what the labels show -----------------------------------------------------------------------------------------

    def covers(self, labels: Mapping[str, str] | None) -> bool:
        """Whether something with these labels is in the scope."""
        return all((labels or {}).get(name) == value for name, value in self.labels.items())

    def container(self, engine: Engine, ref: str) -> Container:
        """A container of the scope. Raises NotFound, as if there were no others."""
        try:
            found = engine.containers.find(ref)
        except InvalidArgument as error:
            raise NotFound(f"No such container: {ref}") from error
        if not self.covers(found.config.labels):
            raise NotFound(f"No such container: {ref}")
        return found

    def check_volume(self, engine: Engine, name: str) -> None:
        """Raises NotFound for a volume out of the scope. Without labels, one that isn't there yet will be made."""
        if self.labels and not self.covers(engine.volumes.find(name).labels):
            raise NotFound(f"get {name}: no such volume")

    def network_id(self, engine: Engine, ref: str) -> str:
        """A network of the scope, or a predefined one. Raises NotFound."""
        from tare.engine.networks import find_network

        found = find_network(engine, ref)
        if not self.covers(found.labels) and found.name not in DEFAULT_NETWORKS:
            raise NotFound(f"network {ref} not found")
        return found.network_id

    def _pinned(self, call: Call, subject: str) -> Call:
        """The call with the reference in its path checked, and replaced by what was checked."""
        path = dict(call.path)
        if subject == "container":
            path["id"] = self.container(call.engine, path["id"]).id
        elif subject == "volume":
            self.check_volume(call.engine, path["name"])
        elif subject == "network":
            path["id"] = self.network_id(call.engine, path["id"])
        else:
            live = call.engine.execs.get(path["id"])
            owner = call.engine.containers.get(live.record.container_id) if live is not None else None
            if owner is None or not self.covers(owner.config.labels):
                raise NotFound(f"No such exec instance: {path['id']}")
        return call._replace(path=path)

    def _filtered(self, operation: str, call: Call) -> Call:
        """The call with the labels among its filters."""
        if not self.labels:
            return call
        filters = {name: list(values) for name, values in call.filters().items()}
        for ref in (*filters.get("before", ()), *filters.get("since", ())):
            self.container(call.engine, ref)  # only the container list has these
        filters["label"] = filters.get("label", []) + [f"{name}={value}" for name, value in self.labels.items()]
        if operation == "SystemEvents":
            types = filters.get("type", ["container"])
            filters["type"] = ["container"] if "container" in types else ["nothing"]
        return call._replace(query={**call.query, "filters": json.dumps(filters)})

    # -- answers ------------------------------------------------------------------------------------------------------

    def shape(self, operation: str, engine: Engine, response: Response) -> Response:
        """The answer, without what the scope hides."""
        if self.role == "admin" or not isinstance(response.body, bytes) or response.status != 200:
            return response
        hides_values = self.role == "viewer" and operation in ("ContainerInspect", "ImageInspect")
        hides_others = bool(self.labels) and operation == "NetworkInspect"
        if not hides_values and not hides_others:
            return response
        document: dict[str, Any] = msgspec.json.decode(response.body)
        if hides_values:
            hide_values(document)
        else:
            document["Containers"] = {
                id_: shown
                for id_, shown in (document.get("Containers") or {}).items()
                if (found := engine.containers.get(id_)) is not None and self.covers(found.config.labels)
            }
        return response._replace(body=msgspec.json.encode(document) + b"\n")


def hide_values(document: dict[str, Any]) -> None:
    """Leaves the names of environment variables and hides what they hold."""
    for part in ("Config", "ContainerConfig"):
        config = document.get(part)
        if isinstance(config, dict) and config.get("Env"):
            config["Env"] = [f"{variable.partition('=')[0]}={HIDDEN}" for variable in config["Env"]]
