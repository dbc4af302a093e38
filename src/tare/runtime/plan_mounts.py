"""The part of a plan that concerns the file system: root, mounts, devices. Pure."""

from __future__ import annotations

import posixpath

import msgspec

from tare.errors import InvalidArgument, Unsupported
from tare.kernel import mounts
from tare.oci.runtime_spec import Linux, LinuxDevice, LinuxDeviceCgroup, LinuxResources, Mount, Spec
from tare.runtime.cgroups import Hierarchies
from tare.runtime.mount_options import MountOptions, parse_mount_options
from tare.runtime.steps import devices, filesystems, identity, layers, roots, subpath
from tare.values.mount import OverlayRoot, RootFilesystem

DEFAULT_DEVICES = (
    devices.DeviceNode("/dev/null", "c", 1, 3),
    devices.DeviceNode("/dev/zero", "c", 1, 5),
    devices.DeviceNode("/dev/full", "c", 1, 7),
    devices.DeviceNode("/dev/random", "c", 1, 8),
    devices.DeviceNode("/dev/urandom", "c", 1, 9),
    devices.DeviceNode("/dev/tty", "c", 5, 0),
)
DEFAULT_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/ptmx": "pts/ptmx",
}

# What the runtime allows whatever the spec's rules say, as runc does: to make nodes (not to open them), the default
# devices, terminals.
DEFAULT_DEVICE_RULES = (
    LinuxDeviceCgroup(allow=True, type="c", access="m"),
    LinuxDeviceCgroup(allow=True, type="b", access="m"),
    *(LinuxDeviceCgroup(True, node.type, node.major, node.minor, "rwm") for node in DEFAULT_DEVICES),
    LinuxDeviceCgroup(allow=True, type="c", major=136, access="rwm"),
    LinuxDeviceCgroup(allow=True, type="c", major=5, minor=2, access="rwm"),
)

SUBPATH_OPTION = "x-tare.subpath="
"""A bind mount's option of our own: show what is at this path inside the source, whatever links are on the way."""
PROCESS_OPTION = "x-tare.process="
"""A bind mount's option of our own: the source is what this process sees mounted there."""
LAYERS_TYPE = "x-tare.layers"
"""A mount of a type of our own: layer directories, read-only, topmost first, the last one empty."""
LAYER_OPTION = "x-tare.layer="
_LATE_SLOTS = 1 << 20

MountStep = (
    filesystems.MountFilesystem
    | subpath.CloneBeneath
    | subpath.CloneOfProcess
    | filesystems.BindMount
    | filesystems.MountCgroup1
    | filesystems.MountCgroup2
    | identity.JoinCgroupNamespace
)


ROOT_SLOT = -1


class MountPlan:
    """The steps for the file system, in three groups.

    early: before the mount namespace is cut off, and before a user namespace is entered. root, mounts: after.
    owner: the host's ids of the user namespace's root, if what is on the host's disks is to be shown with its ids.
    """

    __slots__ = ("bundle", "early", "early_binds", "mounts", "owner", "root")

    def __init__(self, bundle: str, early_binds: bool, owner: tuple[int, int] | None = None) -> None:
        self.bundle = bundle
        self.owner = owner
        self.early_binds = early_binds
        self.early: list[roots.CloneSource | roots.MakeOverlay | subpath.CloneBeneath | layers.ShowLayers] = []
        self.root: list[roots.CloneSource | roots.MakeOverlay | roots.AttachRoot] = []
        self.mounts: list[MountStep] = []

    def add_root(self, spec: Spec, rootfs: RootFilesystem | None) -> None:
        """The root: attached where the spec says (hooks look there), else on the host's `/` in our own view."""
        path = spec.root.path if spec.root is not None else ""
        if path and not path.startswith("/"):
            path = posixpath.join(self.bundle, path)
        if rootfs is None and not path:
            raise InvalidArgument("root must be set in the OCI runtime spec")
        source: roots.CloneSource | roots.MakeOverlay
        if isinstance(rootfs, OverlayRoot):
            path = path or "/"
            source = self._overlay(rootfs, path)
        else:
            path = path if rootfs is None else rootfs.path
            source = roots.CloneSource(ROOT_SLOT, path, True, self.owner is not None)
        (self.early if self.early_binds else self.root).append(source)
        self.root.append(roots.AttachRoot(ROOT_SLOT, "/" if self.early_binds else path))

    def _overlay(self, rootfs: OverlayRoot, mount_point: str) -> roots.MakeOverlay:
        if not rootfs.lower:
            raise InvalidArgument("an overlay root needs a lower directory")
        if (rootfs.upper is None) != (rootfs.work is None):
            raise InvalidArgument("an overlay root needs both upper and work directory, or neither")
        upper, work = rootfs.upper or "", rootfs.work or ""
        limit = (rootfs.project, rootfs.limit_bytes) if rootfs.limit_bytes else None
        return roots.MakeOverlay(ROOT_SLOT, rootfs.lower, upper, work, rootfs.volatile, mount_point, self.owner, limit)

    def add_mounts(self, spec: Spec, hierarchies: Hierarchies | None, cgroup_namespace: bool) -> None:
        """All mounts of the spec, in its order."""
        cgroup = spec.linux.cgroups_path if spec.linux is not None else ""
        # A cgroup namespace shows as root the cgroup that we are in when we make it; before cgroups are mounted.
        if cgroup_namespace:
            self.mounts.append(identity.JoinCgroupNamespace())
        for mount in spec.mounts or ():
            options = parse_mount_options(mount.options or ())
            if options.bind or mount.type == "bind":
                self._add_bind(mount, options)
            elif mount.type == LAYERS_TYPE:
                self._add_layers(mount, options)
            elif mount.type in ("cgroup", "cgroup2"):
                step = _plan_cgroup(mount, options, cgroup, hierarchies, cgroup_namespace)
                if step is not None:
                    self.mounts.append(step)
            else:
                self.mounts.append(_plan_filesystem(mount, options))

    def _add_layers(self, mount: Mount, options: MountOptions) -> None:
        lower = tuple(word.removeprefix(LAYER_OPTION) for word in options.data if word.startswith(LAYER_OPTION))
        path = [word.removeprefix(SUBPATH_OPTION) for word in options.data if word.startswith(SUBPATH_OPTION)]
        if len(lower) + len(path) != len(options.data) or len(lower) < 2:
            raise InvalidArgument(f"invalid options of the mount of layers at {mount.destination}")
        slot = len(self.early)
        self.early.append(layers.ShowLayers(slot, lower, "".join(path), mount.source, self.owner))
        self.mounts.append(
            filesystems.BindMount(
                source=mount.source,
                target=mount.destination,
                recursive=False,
                slot=slot,
                set=options.set | mounts.MOUNT_ATTR_RDONLY,
                clear=options.clear & ~mounts.MOUNT_ATTR_RDONLY,
            )
        )

    def _add_bind(self, mount: Mount, options: MountOptions) -> None:
        mapped = self.owner is not None or _is_mapped(mount, options)
        beneath = [word.removeprefix(SUBPATH_OPTION) for word in options.data if word.startswith(SUBPATH_OPTION)]
        process = [word.removeprefix(PROCESS_OPTION) for word in options.data if word.startswith(PROCESS_OPTION)]
        if len(beneath) + len(process) != len(options.data):
            raise InvalidArgument(f"invalid option {options.data[0]!r} of the bind mount at {mount.destination}")
        if not mount.source:
            raise InvalidArgument(f"bind mount at {mount.destination} has no source")
        source = mount.source if mount.source.startswith("/") else posixpath.join(self.bundle, mount.source)
        slot = -1
        if process:
            slot = _LATE_SLOTS + len(self.mounts)
            self.mounts.append(subpath.CloneOfProcess(slot, int(process[-1]), source))
        # What IsolateMounts makes private can't become the host's peer or slave again.
        elif self.early_binds or options.propagation in (mounts.MS_SHARED, mounts.MS_SLAVE):
            slot = len(self.early)
            if beneath:
                step = subpath.CloneBeneath(slot, source, beneath[-1], options.recursive_bind, mapped)
                self.early.append(step)
            else:
                self.early.append(roots.CloneSource(slot, source, options.recursive_bind, mapped))
        elif beneath:
            slot = _LATE_SLOTS + len(self.mounts)
            self.mounts.append(subpath.CloneBeneath(slot, source, beneath[-1], options.recursive_bind))
        self.mounts.append(
            filesystems.BindMount(
                source=source,
                target=mount.destination,
                recursive=options.recursive_bind,
                slot=slot,
                set=options.set,
                clear=options.clear,
                recursive_set=options.recursive_set,
                recursive_clear=options.recursive_clear,
                propagation=options.propagation,
                recursive_propagation=options.recursive_propagation,
            )
        )


def _is_mapped(mount: Mount, options: MountOptions) -> bool:
    """Whether a bind mount's owners are to be shown as the ids of the container's user namespace."""
    return options.mapped or bool(mount.uid_mappings or mount.gid_mappings)


def maps_ids(spec: Spec) -> bool:
    """Whether any mount of the spec is mapped. Raises Unsupported for other ids than the container's."""
    linux = spec.linux or Linux()
    found = [mount for mount in spec.mounts or () if _is_mapped(mount, parse_mount_options(mount.options or ()))]
    for mount in found:
        own = (mount.uid_mappings or linux.uid_mappings, mount.gid_mappings or linux.gid_mappings)
        if not linux.uid_mappings or own != (linux.uid_mappings, linux.gid_mappings):
            raise Unsupported(f"the mount at {mount.destination} with ids other than a new user namespace's")
    return bool(found)


def _plan_filesystem(mount: Mount, options: MountOptions) -> filesystems.MountFilesystem:
    if not mount.type or not mount.type.replace(".", "").replace("_", "").replace("-", "").isalnum():
        raise InvalidArgument(f"invalid type {mount.type!r} of the mount at {mount.destination}")
    return filesystems.MountFilesystem(
        mount.type,
        mount.source,
        mount.destination,
        tuple(options.data),
        options.set | options.recursive_set,
        options.propagation,
    )


def _plan_cgroup(
    mount: Mount, options: MountOptions, cgroup: str, hierarchies: Hierarchies | None, namespaced: bool
) -> filesystems.MountCgroup1 | filesystems.MountCgroup2 | None:
    if hierarchies is None or (not hierarchies.v1 and hierarchies.v2 is None):
        return None
    attributes = options.set | options.recursive_set
    if not hierarchies.v1 and hierarchies.v2 is not None:
        directory = hierarchies.v2.base + cgroup
        return filesystems.MountCgroup2(mount.destination, directory, attributes, namespaced)
    shown = []
    links: dict[str, str] = {}
    for hierarchy in hierarchies.v1:
        name = posixpath.basename(hierarchy.base)
        named = tuple(c for c in hierarchy.controllers if c.startswith("name="))
        own_options = ("none", *named) if named else hierarchy.controllers
        shown.append(filesystems.Cgroup1Hierarchy(name, hierarchy.base + cgroup, own_options))
        if len(hierarchy.controllers) > 1:
            links.update((c, name) for c in hierarchy.controllers if c != name and "=" not in c)
    return filesystems.MountCgroup1(mount.destination, tuple(shown), links, attributes, namespaced)


def _plan_device(device: LinuxDevice) -> devices.DeviceNode:
    mode = 0o666 if device.file_mode is None else device.file_mode & 0o7777
    return devices.DeviceNode(
        posixpath.normpath(device.path),
        device.type,
        device.major,
        device.minor,
        mode,
        device.uid or 0,
        device.gid or 0,
    )


def plan_devices(spec: Spec, bind: bool) -> list[devices.MakeDevices]:
    """Default nodes and links, and the spec's; nothing where /dev itself is a directory of the host."""
    for mount in spec.mounts or ():
        if posixpath.normpath(mount.destination) == "/dev" and (
            mount.type == "bind" or not {"bind", "rbind"}.isdisjoint(mount.options or ())
        ):
            return []
    own = [_plan_device(device) for device in (spec.linux.devices if spec.linux else None) or ()]
    paths = {node.path for node in own}
    nodes = (*(node for node in DEFAULT_DEVICES if node.path not in paths), *own)

    return [devices.MakeDevices(nodes, DEFAULT_LINKS, bind)]


def plan_resources(resources: LinuxResources | None) -> LinuxResources | None:
    """The spec's limits, with the default device rules behind its own (if it has any)."""
    if resources is None or not resources.devices:
        return resources
    return msgspec.structs.replace(resources, devices=(*resources.devices, *DEFAULT_DEVICE_RULES))
