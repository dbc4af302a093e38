"""Every operation of Docker's Engine API 1.55: method, path, name; those that aren't implemented answer so by name."""

from __future__ import annotations

# method  path  operation  (S: answers 503, as on a node that isn't in a swarm)
TABLE = """
GET /containers/json ContainerList
POST /containers/create ContainerCreate
GET /containers/{id}/json ContainerInspect
GET /containers/{id}/top ContainerTop
GET /containers/{id}/logs ContainerLogs
GET /containers/{id}/changes ContainerChanges
GET /containers/{id}/export ContainerExport
GET /containers/{id}/stats ContainerStats
POST /containers/{id}/resize ContainerResize
POST /containers/{id}/start ContainerStart
POST /containers/{id}/stop ContainerStop
POST /containers/{id}/restart ContainerRestart
POST /containers/{id}/kill ContainerKill
POST /containers/{id}/update ContainerUpdate
POST /containers/{id}/rename ContainerRename
POST /containers/{id}/pause ContainerPause
POST /containers/{id}/unpause ContainerUnpause
POST /containers/{id}/attach ContainerAttach
GET /containers/{id}/attach/ws ContainerAttachWebsocket
POST /containers/{id}/wait ContainerWait
DELETE /containers/{id} ContainerDelete
HEAD /containers/{id}/archive ContainerArchiveInfo
GET /containers/{id}/archive ContainerArchive
PUT /containers/{id}/archive PutContainerArchive
POST /containers/prune ContainerPrune
GET /images/json ImageList
POST /build ImageBuild
POST /build/prune BuildPrune
POST /images/create ImageCreate
GET /images/{name}/json ImageInspect
GET /images/{name}/attestations ImageAttestations
GET /images/{name}/history ImageHistory
POST /images/{name}/push ImagePush
POST /images/{name}/tag ImageTag
DELETE /images/{name} ImageDelete
GET /images/search ImageSearch
POST /images/prune ImagePrune
POST /auth SystemAuth
GET /info SystemInfo
GET /version SystemVersion
GET /_ping SystemPing
HEAD /_ping SystemPingHead
POST /commit ImageCommit
GET /events SystemEvents
GET /system/df SystemDataUsage
GET /images/{name}/get ImageGet
GET /images/get ImageGetAll
POST /images/load ImageLoad
POST /containers/{id}/exec ContainerExec
POST /exec/{id}/start ExecStart
POST /exec/{id}/resize ExecResize
GET /exec/{id}/json ExecInspect
GET /volumes VolumeList
POST /volumes/create VolumeCreate
GET /volumes/{name} VolumeInspect
PUT /volumes/{name} VolumeUpdate
DELETE /volumes/{name} VolumeDelete
POST /volumes/prune VolumePrune
GET /networks NetworkList
GET /networks/{id} NetworkInspect
DELETE /networks/{id} NetworkDelete
POST /networks/create NetworkCreate
POST /networks/{id}/connect NetworkConnect
POST /networks/{id}/disconnect NetworkDisconnect
POST /networks/prune NetworkPrune
GET /plugins PluginList
GET /plugins/privileges GetPluginPrivileges
POST /plugins/pull PluginPull
GET /plugins/{name}/json PluginInspect
DELETE /plugins/{name} PluginDelete
POST /plugins/{name}/enable PluginEnable
POST /plugins/{name}/disable PluginDisable
POST /plugins/{name}/upgrade PluginUpgrade
POST /plugins/create PluginCreate
POST /plugins/{name}/push PluginPush
POST /plugins/{name}/set PluginSet
GET /nodes NodeList S
GET /nodes/{id} NodeInspect S
DELETE /nodes/{id} NodeDelete S
POST /nodes/{id}/update NodeUpdate S
GET /swarm SwarmInspect S
POST /swarm/init SwarmInit
POST /swarm/join SwarmJoin
POST /swarm/leave SwarmLeave S
POST /swarm/update SwarmUpdate S
GET /swarm/unlockkey SwarmUnlockkey S
POST /swarm/unlock SwarmUnlock S
GET /services ServiceList S
POST /services/create ServiceCreate S
GET /services/{id} ServiceInspect S
DELETE /services/{id} ServiceDelete S
POST /services/{id}/update ServiceUpdate S
GET /services/{id}/logs ServiceLogs S
GET /tasks TaskList S
GET /tasks/{id} TaskInspect S
GET /tasks/{id}/logs TaskLogs S
GET /secrets SecretList S
POST /secrets/create SecretCreate S
GET /secrets/{id} SecretInspect S
DELETE /secrets/{id} SecretDelete S
POST /secrets/{id}/update SecretUpdate S
GET /configs ConfigList S
POST /configs/create ConfigCreate S
GET /configs/{id} ConfigInspect S
DELETE /configs/{id} ConfigDelete S
POST /configs/{id}/update ConfigUpdate S
GET /distribution/{name}/json DistributionInspect
POST /session Session
"""
NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
NOT_IN_SWARM = "This node is not part of a swarm"


def operations() -> list[tuple[str, str, str, bool]]:
    """(method, path, operation, whether it belongs to swarm mode) of each."""
    rows = (line.split() for line in TABLE.strip().splitlines())
    return [(row[0], row[1], row[2], len(row) > 3) for row in rows]
