"""Binds, mounts and tmpfs as the user writes them, and the OCI mounts they become. Pure but for looking at sources."""

from __future__ import annotations

import os
import posixpath

from tare.engine.options import HostOptions, MountOptions
from tare.engine.records import MountPoint
from tare.errors import InvalidArgument, Unsupported
from tare.oci.runtime_spec import Mount

_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_IGNORED_MODES = ("z", "Z", "nocopy", "consistent", "cached", "delegated", "rw")


def mount_points(host: HostOptions) -> tuple[MountPoint, ...]:
    """What inspect shows under Mounts. Raises InvalidArgument, or Unsupported for volumes."""
    points = [parse_bind(bind) for bind in host.binds or ()]
    points += [_parse_mount(mount) for mount in host.mounts or () if mount.type != "tmpfs"]
    seen: set[str] = set()
    for point in points:
        if point.destination in seen:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        seen.add(point.destination)
    for mount in host.mounts or ():
        if mount.type == "tmpfs":
            points.append(MountPoint(type="tmpfs", source="", destination=_destination(mount.target, mount.target)))
    for target in host.tmpfs or {}:
        _destination(target, target)
    return tuple(points)


def parse_bind(text: str) -> MountPoint:
    """A `-v` such as `/srv/data:/data:ro`."""
    parts = text.split(":")
    if len(parts) < 2 or len(parts) > 3 or not parts[0] or not parts[1]:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, target = parts[0], parts[1]
    modes = parts[2].split(",") if len(parts) == 3 and parts[2] else []
    rw, propagation = True, ""
    for mode in modes:
        if mode in ("ro", "readonly"):
            rw = False
        elif mode in _PROPAGATION:
            propagation = mode
        elif mode not in _IGNORED_MODES:
            raise InvalidArgument(f"invalid mode: {parts[2]}")
    if not source.startswith("/"):
        raise Unsupported(f"volumes are not supported yet: {source}")
    return MountPoint(
        type="bind",
        source=posixpath.normpath(source),
        destination=_destination(target, text),
        mode=",".join(modes),
        rw=rw,
        propagation=propagation or "rprivate",
    )


def _parse_mount(mount: MountOptions) -> MountPoint:
    if mount.type in ("volume", "cluster", "image", "npipe"):
        raise Unsupported(f"mounts of type {mount.type} are not supported yet: {mount.source or mount.target}")
    if mount.type != "bind":
        raise InvalidArgument(f'mount type unknown: "{mount.type}"')
    if not mount.source.startswith("/"):
        raise InvalidArgument(
            f"invalid mount config for type \"bind\": invalid mount path: '{mount.source}' mount path must be absolute"
        )
    options = mount.bind_options
    if options and options.propagation and options.propagation not in _PROPAGATION:
        raise InvalidArgument(f"invalid propagation mode: {options.propagation}")
    if not os.path.lexists(mount.source) and not (options and options.create_mountpoint):
        raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
    return MountPoint(
        type="bind",
        source=posixpath.normpath(mount.source),
        destination=_destination(mount.target, mount.target),
        rw=not mount.read_only,
        propagation=(options.propagation if options else "") or "rprivate",
    )


def _destination(target: str, spec: str) -> str:
    if not target.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{spec}': invalid mount config for type \"bind\": "
            f"invalid mount path: '{target}' mount path must be absolute"
        )
    clean = posixpath.normpath(target)
    clean = "/" + clean.lstrip("/")
    if clean == "/":
        raise InvalidArgument(
            f"invalid volume specification: '{spec}': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'"
        )
    if clean == "/proc" or clean.startswith("/proc/"):
        # CVE-2019-19921, CVE-2019-16884: what lies on /proc could fake what the runtime reads and writes there
        raise InvalidArgument(f"invalid mount {clean}: it is inside /proc")
    return clean


def prepare_sources(host: HostOptions) -> None:
    """Makes the missing host directories of `-v` (not of `--mount`), as Docker does."""
    for bind in host.binds or ():
        point = parse_bind(bind)
        if not os.path.lexists(point.source):
            os.makedirs(point.source, mode=0o755, exist_ok=True)


def oci_mounts(host: HostOptions, points: tuple[MountPoint, ...]) -> list[Mount]:
    """The OCI mounts of a container's binds and tmpfs, parents before children."""
    found = []
    recursion = {m.target: m.bind_options for m in host.mounts or () if m.bind_options}
    for point in points:
        if point.type != "bind":
            continue
        options = recursion.get(point.destination)
        bind = "bind" if options and options.non_recursive else "rbind"
        found.append(
            Mount(
                destination=point.destination,
                type="bind",
                source=point.source,
                options=(bind, point.propagation, "rw" if point.rw else "ro"),
            )
        )
    for target, text in (host.tmpfs or {}).items():
        found.append(_tmpfs(target, tuple(option for option in text.split(",") if option)))
    for mount in host.mounts or ():
        if mount.type == "tmpfs":
            options_given = []
            if mount.tmpfs_options and mount.tmpfs_options.size_bytes:
                options_given.append(f"size={mount.tmpfs_options.size_bytes}")
            if mount.tmpfs_options and mount.tmpfs_options.mode:
                options_given.append(f"mode={mount.tmpfs_options.mode:o}")
            if mount.read_only:
                options_given.append("ro")
            found.append(_tmpfs(mount.target, tuple(options_given)))
    return sorted(found, key=lambda mount: mount.destination.count("/"))


def _tmpfs(target: str, options: tuple[str, ...]) -> Mount:
    defaults = ("noexec", "nosuid", "nodev")
    opposites = {"noexec": "exec", "nosuid": "suid", "nodev": "dev"}
    kept = tuple(default for default in defaults if opposites[default] not in options and default not in options)
    return Mount(destination=_destination(target, target), type="tmpfs", source="tmpfs", options=(*kept, *options))
