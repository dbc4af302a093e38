"""`tare update`: changes the limits, ports, mounts and networks of containers."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.create.limit_flags import LIMIT_FLAGS, in_order
from tare.cli.create.mounts import parse_mount
from tare.cli.create.networks import endpoint, parse_network
from tare.cli.create.ports import publish
from tare.cli.create.settings import parse_restart, storage_options
from tare.cli.session import container_path, describe
from tare.client.errors import CannotConnect, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


# The API's record has every resource; what the command can't set is sent as Go's client sends it: empty.
UNSET = (
    "BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps Devices "
    "DeviceCgroupRules DeviceRequests MemorySwappiness OomKillDisable Ulimits"
).split()
FIELDS = {
    "CpuShares": "cpu-shares",
    "Memory": "memory",
    "NanoCpus": "cpus",
    "BlkioWeight": "blkio-weight",
    "CpuPeriod": "cpu-period",
    "CpuQuota": "cpu-quota",
    "CpuRealtimePeriod": "cpu-rt-period",
    "CpuRealtimeRuntime": "cpu-rt-runtime",
    "CpusetCpus": "cpuset-cpus",
    "CpusetMems": "cpuset-mems",
    "MemoryReservation": "memory-reservation",
    "MemorySwap": "memory-swap",
}


def update_body(flags: Values) -> dict[str, Any]:
    body: dict[str, Any] = {key: flags[flag] for key, flag in FIELDS.items()}
    body |= dict.fromkeys(UNSET)
    body |= {"CgroupParent": "", "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0}
    body["PidsLimit"] = flags["pids-limit"] if "pids-limit" in flags.given else None
    for flag, key in (("publish-add", "PublishAdd"), ("publish-rm", "PublishRemove")):
        if flag in flags.given:
            body[key] = publish(flags.items(flag))[1]
    if "mount-add" in flags.given:
        body["MountAdd"] = [parse_mount(text) for text in flags.items("mount-add")]
    if "network-add" in flags.given:
        body["NetworkAdd"] = networks(flags.items("network-add"))
    if "network-set" in flags.given:
        body["NetworkSet"] = networks(flags.items("network-set"))
    for flag, key in (("mount-rm", "MountRemove"), ("network-rm", "NetworkRemove")):
        if flag in flags.given:
            body[key] = flags.items(flag)
    if "egress" in flags.given:
        body["Egress"] = flags["egress"]
    if "storage-opt" in flags.given:
        body["StorageOpt"] = storage_options(flags.items("storage-opt"))
    body["RestartPolicy"] = parse_restart(flags.text("restart"))
    return body


def networks(items: list[str]) -> dict[str, Any]:
    """Endpoints by network name, each as with --network; the name may stand first without its key."""
    found: dict[str, Any] = {}
    for text in items:
        first, separator, rest = text.partition(",")
        item = parse_network(f"name={first},{rest}" if separator and "=" not in first else text)
        if item["target"] in found:
            raise ValueError(f'network "{item["target"]}" is specified multiple times')
        found[item["target"]] = endpoint(item)
    return found


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    if not flags.given:
        raise CliError("you must provide one or more flags when using this command")
    try:
        body = update_body(flags)
    except ValueError as error:
        raise CliError(str(error)) from None
    failures: list[str] = []
    warnings: list[str] = []
    for name in arguments:
        try:
            answer = session.engine.post(container_path(name, "update"), None, body) or {}
        except CannotConnect:
            raise
        except ClientError as error:
            failures.append(describe(error))
            continue
        session.out(name)
        warnings += answer.get("Warnings") or []
    if warnings:
        session.out("\n".join(warnings))
    for failure in failures:
        session.err(failure)
    return 1 if failures else 0


_CHANGES = (
    Flag("kernel-memory", "", "bytes", ""),
    Flag("mount-add", "", "list", "Mount as with --mount, into a running container, too (Tare only)"),
    Flag("mount-rm", "", "list", "Take away what is mounted at a place inside (Tare only)"),
    Flag("network-add", "", "list", "Connect to a network, NAME[,alias=...,ip=...] as with --network (Tare only)"),
    Flag("network-rm", "", "list", "Disconnect from a network (Tare only)"),
    Flag("network-set", "", "list", "Change the speed on a network, NAME,rate=10mbit,delay=50ms (Tare only)"),
    Flag("publish-add", "", "list", "Publish a port as with -p, of a running container, too (Tare only)"),
    Flag("publish-rm", "", "list", "Take a published port back, [ADDRESS:][HOST:]CONTAINER (Tare only)"),
    Flag("restart", "", "string", "What to do when it exits: no, on-failure[:n], always, unless-stopped"),
    Flag("storage-opt", "", "list", "size=10G: what its own files may take on the disk; size=0: all (Tare only)"),
)
COMMAND = Command("CONTAINER [CONTAINER...]", run, in_order(_CHANGES, LIMIT_FLAGS), least=1)
