"""Where a daemon's word and the kernel's (and the disk's) differ; only looks."""

from __future__ import annotations

import os
from pathlib import Path

from support.crashes import names
from support.processes import is_alive
from support.tared import Tared


def cgroups_of(daemon: Tared) -> set[str]:
    """Names of the containers' cgroups in any hierarchy."""
    found = set()
    for pattern in (f"*/{daemon.mark}/*", f"{daemon.mark}/*"):
        found |= {path.name for path in Path("/sys/fs/cgroup").glob(pattern) if path.is_dir()}
    return found


def containers(daemon: Tared) -> list[str]:
    """Of containers: processes, monitors, cgroups, folders, ports on the bridge, mounts inside."""
    found = []
    listed = daemon.engine.api.request("GET", "/containers/json", query={"all": 1}).json
    known = {entry["Id"] for entry in listed}
    running = set()
    for container in known:
        detail = daemon.engine.inspect(container)
        if not detail["State"]["Running"]:
            continue
        running.add(container)
        pid = detail["State"]["Pid"]
        if not is_alive(pid):
            found.append(f"{container[:12]} is said to run, but its process is gone")
            continue
        found += _mounts(pid, {mount["Destination"] for mount in detail["Mounts"]})
        networks = set(detail["NetworkSettings"]["Networks"]) - {"none"}
        if _links(pid) != len(networks):
            found.append(f"{container[:12]} has {_links(pid)} links in networks {networks}")
    found += [f"cgroup of {name[:12]}" for name in cgroups_of(daemon) - running]
    found += [f"run folder of {name[:12]}" for name in names(daemon.exec_root / "containers") - known]
    found += [f"data folder of {name[:12]}" for name in names(daemon.data_root / "containers") - known]
    found += [f"snapshot of {name[:12]}" for name in names(daemon.data_root / "snapshots") - known]
    titles = [title.strip()[:60] for title in daemon.processes().values()]
    monitors = [title for title in titles if title.startswith(("tare: monitor of", "tare: exec"))]
    if len(monitors) != len(running):
        found.append(f"{len(monitors)} monitors for {len(running)} running containers: {titles}")
    return found


def _links(pid: int) -> int:
    """How many links a process has but its loopback; -1 if it ends just now."""
    try:
        return len(Path(f"/proc/{pid}/net/dev").read_text().splitlines()) - 3
    except OSError:
        return -1


def _mounts(pid: int, said: set[str]) -> list[str]:
    """Differences between what inspect says of mounts and what the kernel says; places are without links in tests."""
    own = ("/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ["it ends just now"]
    places = {line.split()[4] for line in lines} - {"/"}
    seen = {place for place in places if not place.startswith(own)}
    return [f"mounted: {seen}, but said: {said}"] if seen != said else []


def bridge(daemon: Tared) -> list[str]:
    """Ports on the daemon's own bridge: one for each running container in it."""
    ports = len(names(Path(f"/sys/class/net/{daemon.mark}/brif")))
    listed = daemon.engine.api.request("GET", "/containers/json").json
    wanted = sum("bridge" in entry["NetworkSettings"]["Networks"] for entry in listed)
    return [f"{ports} ports on the bridge for {wanted} running containers"] if ports != wanted else []


def volumes(daemon: Tared) -> list[str]:
    """Of volumes: directories, what is mounted for them, whole content, and none that nobody has."""
    found = []
    request = daemon.engine.api.request
    known = {volume["Name"]: volume for volume in request("GET", "/volumes").json["Volumes"]}
    listed = request("GET", "/containers/json", query={"all": 1}).json
    used = {mount["Name"] for entry in listed for mount in entry["Mounts"] if mount["Type"] == "volume"}
    root = daemon.data_root / "volumes"
    entries = names(root)
    if entries != set(known):
        found.append(f"directories {entries}, volumes {set(known)}")
    found += [f"half volume {name}" for name in entries if os.listdir(root / name) != ["_data"]]
    found += [f"volume {name[:12]} of no container" for name in known if len(name) == 64 and name not in used]
    if used - set(known):
        found.append(f"containers have {used - set(known)}, which aren't there")
    with_options = {name for name, volume in known.items() if volume["Options"]}
    in_use = {mount.get("Name") for entry in listed for mount in entry["Mounts"] if entry["State"] == "running"}
    mounted = str(root) in Path("/proc/self/mounts").read_text(errors="surrogateescape")
    if mounted != bool(with_options & in_use):
        found.append(f"mounted: {mounted}, but running with options: {with_options & in_use}")
    filled = set(os.listdir(root / "auto" / "_data")) if "auto" in entries else set()
    if filled and not {"passwd", "group"} <= filled:
        found.append(f"half filled: {filled}")
    return found


def everything(daemon: Tared) -> list[str]:
    """All of the above."""
    return [*containers(daemon), *bridge(daemon), *volumes(daemon)]


def nothing(daemon: Tared) -> list[str]:
    """What a scenario left: containers, volumes, networks of the user's, removed files not deleted yet."""
    found = everything(daemon)
    request = daemon.engine.api.request
    found += [entry["Names"][0] for entry in request("GET", "/containers/json", query={"all": 1}).json]
    found += [volume["Name"] for volume in request("GET", "/volumes").json["Volumes"]]
    own = ("bridge", "host", "none")
    found += [network["Name"] for network in request("GET", "/networks").json if network["Name"] not in own]
    tags = [image["RepoTags"] for image in request("GET", "/images/json").json]
    if tags != [[f"{daemon.engine.image}:latest"]]:
        found.append(f"images {tags}")
    for trash in (daemon.data_root / "volumes" / ".trash", daemon.data_root / "snapshots" / ".trash"):
        found += [f"{trash.parent.name}/{name}" for name in (os.listdir(trash) if trash.is_dir() else ())]
    return found
