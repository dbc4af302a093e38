"""From an OCI spec to a plan: the list of small steps that a container's first process executes. Pure.

A plan is data: tared builds it, sends it (`encode_plan`), and a monitor has it executed (`runtime/create.py`). Building
it asks nothing of the machine; what depends on the machine is passed in or decided by the step itself.
"""

from __future__ import annotations

import msgspec

from tare.errors import InvalidArgument, Unsupported
from tare.kernel.namespaces import NAMESPACES
from tare.oci.runtime_spec import Hooks, IDMapping, Linux, LinuxResources, Process, Spec, State
from tare.runtime.cgroups import Hierarchies
from tare.runtime.check import check_process, check_spec
from tare.runtime.hooks import PlannedHook, plan_hooks
from tare.runtime.plan_mounts import MountPlan, maps_ids, plan_devices, plan_resources
from tare.runtime.plan_process import plan_label, plan_limits, plan_program, plan_settings
from tare.runtime.steps import devices, execute, filesystems, identity, layers, masks, roots, subpath
from tare.values.mount import RootFilesystem

Step = (
    roots.CloneSource
    | roots.IsolateMounts
    | roots.MakeOverlay
    | roots.AttachRoot
    | roots.SealRoot
    | roots.MakeDirectory
    | roots.Pivot
    | filesystems.MountFilesystem
    | layers.ShowLayers
    | subpath.CloneBeneath
    | subpath.CloneOfProcess
    | filesystems.BindMount
    | filesystems.MountCgroup1
    | filesystems.MountCgroup2
    | devices.MakeDevices
    | devices.OpenTerminal
    | masks.MaskPaths
    | masks.ReadonlyPaths
    | identity.SetHostname
    | identity.SetSysctls
    | identity.SetOomScore
    | identity.NewSession
    | identity.SetScheduling
    | identity.SetPersonality
    | identity.SetLabel
    | identity.RunHooks
    | identity.RunInnerHooks
    | identity.JoinCgroupNamespace
    | execute.Execute
)


class NamespaceJoin(msgspec.Struct, frozen=True):
    """A namespace that exists: its OCI name and its file."""

    type: str
    path: str


class Plan(msgspec.Struct, frozen=True):
    """Everything that makes one container.

    new: OCI names of the namespaces to make. join: those to join. uid_map, gid_map: of a new user namespace.
    cgroup: path below the hierarchies' roots, empty for none. early, steps: executed by the first process, in this
    order; the early ones while it still has the rights over the host's files. owner: the host's ids of the user
    namespace's root where mounts are mapped to it.
    """

    container_id: str
    new: tuple[str, ...]
    join: tuple[NamespaceJoin, ...]
    uid_map: str
    gid_map: str
    time_offsets: str
    cgroup: str
    hierarchies: Hierarchies | None
    resources: LinuxResources | None
    early: tuple[Step, ...]
    steps: tuple[Step, ...]
    hooks: tuple[PlannedHook, ...] = ()
    state: bytes = b""
    terminal: bool = False
    owner: tuple[int, int] | None = None

    def describe(self) -> list[str]:
        """What will be done, a line for each step; for people."""
        return [step.describe() for step in (*self.early, *self.steps)]


class ExecPlan(msgspec.Struct, frozen=True):
    """Everything that starts one more process in a container.

    start_ticks: when process `container_pid` started (/proc/PID/stat, field 22), against a reused pid; 0 if unknown.
    """

    container_pid: int
    start_ticks: int
    cgroup: str
    hierarchies: Hierarchies | None
    early: tuple[Step, ...]
    steps: tuple[Step, ...]
    terminal: bool = False


_encoder = msgspec.msgpack.Encoder()
_plan_decoder = msgspec.msgpack.Decoder(Plan)
_exec_decoder = msgspec.msgpack.Decoder(ExecPlan)


def encode_plan(plan: Plan | ExecPlan) -> bytes:
    """A plan as bytes for another process."""
    return _encoder.encode(plan)


def decode_plan(data: bytes) -> Plan:
    """What `encode_plan` made of a Plan."""
    return _plan_decoder.decode(data)


def decode_exec_plan(data: bytes) -> ExecPlan:
    """What `encode_plan` made of an ExecPlan."""
    return _exec_decoder.decode(data)


def _id_map(mappings: tuple[IDMapping, ...] | None) -> str:
    return "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in mappings or ())


def _root_of(mappings: tuple[IDMapping, ...] | None) -> int:
    """What id 0 is on the host."""
    for mapping in mappings or ():
        if mapping.container_id == 0:
            return mapping.host_id
    raise InvalidArgument("mapped mounts need a mapping of id 0")


def _time_offsets(linux: Linux) -> str:
    offsets = linux.time_offsets
    if offsets is None:
        return ""
    pairs = (("monotonic", offsets.monotonic), ("boottime", offsets.boottime))
    return "".join(f"{clock} {offset.secs} {offset.nanosecs}\n" for clock, offset in pairs if offset is not None)


def build_plan(
    spec: Spec,
    *,
    container_id: str,
    rootfs: RootFilesystem | None = None,
    hierarchies: Hierarchies | None = None,
    user: str | None = None,
    group_add: tuple[str, ...] = (),
    init: bool = False,
    bundle: str = "",
    pivot: bool = True,
    preserve_fds: int = 0,
    map_owners: bool = False,
) -> Plan:
    """The plan of a container.

    rootfs: None for the bundle's directory (spec.root.path). hierarchies: what `detect_hierarchies()` found.
    user, group_add: Docker's `--user` and `--group-add`, resolved inside the root; user None takes spec.process.user.
    map_owners: with a user namespace: root and binds show their owners as its ids, not as the host's.
    init: a reaper stays as pid 1 (`docker run --init`). pivot: False moves the root instead (runc's `--no-pivot`).
    Raises InvalidArgument or Unsupported, naming what is wrong in the spec.
    """
    check_spec(spec)
    linux = spec.linux or Linux()
    process = spec.process
    if process is None:
        raise InvalidArgument("process must be set in the OCI runtime spec")
    new, join = _namespaces(linux)
    has_user_namespace = "user" in new or any(one.type == "user" for one in join)
    hooks = spec.hooks or Hooks()
    state = msgspec.json.encode(State(spec.oci_version, container_id, "creating", 0, bundle, spec.annotations or {}))
    maps = map_owners or maps_ids(spec)
    owner = (_root_of(linux.uid_mappings), _root_of(linux.gid_mappings)) if maps else None
    files = MountPlan(bundle, early_binds=has_user_namespace, owner=owner if map_owners else None)
    files.add_root(spec, rootfs)
    files.add_mounts(spec, hierarchies, "cgroup" in new)
    program = plan_program(
        process,
        linux.seccomp,
        user=user,
        group_add=group_add,
        hooks=plan_hooks(hooks.start_container),
        state=state,
        preserve_fds=preserve_fds,
        reaper=init,
    )
    return Plan(
        container_id=container_id,
        new=new,
        join=join,
        uid_map=_id_map(linux.uid_mappings),
        gid_map=_id_map(linux.gid_mappings),
        time_offsets=_time_offsets(linux),
        cgroup=linux.cgroups_path,
        hierarchies=hierarchies,
        resources=plan_resources(linux.resources),
        early=(*plan_limits(process, linux.personality), *files.early),
        steps=(
            *_root_steps(spec, process, files, has_user_namespace),
            *_inside_steps(spec, process, container_id, state),
            roots.Pivot(not pivot, linux.rootfs_propagation),
            program,
        ),
        hooks=plan_hooks((*(hooks.prestart or ()), *(hooks.create_runtime or ()))),
        state=state,
        terminal=process.terminal,
        owner=owner,
    )


def _namespaces(linux: Linux) -> tuple[tuple[str, ...], tuple[NamespaceJoin, ...]]:
    """(those that are made, those that are joined). Raises Unsupported without a mount namespace."""
    namespaces = linux.namespaces or ()
    new = tuple(one.type for one in namespaces if not one.path)
    if "mount" not in new:
        raise Unsupported("a container without a mount namespace of its own")
    return new, tuple(NamespaceJoin(one.type, one.path) for one in namespaces if one.path)


def _root_steps(spec: Spec, process: Process, files: MountPlan, has_user_namespace: bool) -> list[Step]:
    """What the root is made of: mounts, devices, a terminal."""
    steps: list[Step] = [roots.IsolateMounts(), *files.root, *files.mounts]
    steps += plan_devices(spec, has_user_namespace)
    if process.terminal:
        size = process.console_size
        steps.append(devices.OpenTerminal(size.height if size else 0, size.width if size else 0))
    return steps


def _inside_steps(spec: Spec, process: Process, container_id: str, state: bytes) -> list[Step]:
    """What is done once the root is whole and before it is all that there is: hooks, settings, what is masked."""
    linux, hooks = spec.linux or Linux(), spec.hooks
    steps: list[Step] = []
    if hooks and (hooks.prestart or hooks.create_runtime):
        steps.append(identity.RunHooks())
    if hooks and hooks.create_container:
        steps.append(identity.RunInnerHooks(plan_hooks(hooks.create_container), state))
    steps.append(roots.MakeDirectory(process.cwd))
    steps += [*plan_settings(spec, container_id), *plan_label(process)]
    if linux.readonly_paths:
        steps.append(masks.ReadonlyPaths(linux.readonly_paths))
    if linux.masked_paths:
        steps.append(masks.MaskPaths(linux.masked_paths))
    if spec.root is not None and spec.root.readonly:
        steps.append(roots.SealRoot())
    return steps


def build_exec_plan(
    process: Process,
    *,
    container_pid: int,
    spec: Spec,
    container_id: str = "",
    start_ticks: int = 0,
    hierarchies: Hierarchies | None = None,
    user: str | None = None,
    group_add: tuple[str, ...] = (),
    preserve_fds: int = 0,
) -> ExecPlan:
    """The plan of one more process in the container whose first process is `container_pid` and that `spec` made.

    Capabilities, seccomp filter and limits are those of `process` (seccomp: the spec's), as for OCI `exec`.
    """
    check_process(process)
    linux = spec.linux or Linux()
    steps: list[Step] = []
    if process.terminal:
        size = process.console_size
        steps.append(devices.OpenTerminal(size.height if size else 0, size.width if size else 0, console=False))
    steps.append(identity.NewSession(f"_ses.{container_id}" if container_id else ""))
    steps.append(plan_program(process, linux.seccomp, user=user, group_add=group_add, preserve_fds=preserve_fds))
    return ExecPlan(
        container_pid=container_pid,
        start_ticks=start_ticks,
        cgroup=linux.cgroups_path,
        hierarchies=hierarchies,
        early=(*plan_limits(process, linux.personality), *plan_label(process)),
        steps=tuple(steps),
        terminal=process.terminal,
    )


def namespace_flags(names: tuple[str, ...]) -> int:
    """The CLONE_NEW* flags of namespaces by their OCI names."""
    flags = 0
    for name in names:
        flags |= NAMESPACES[name][0]
    return flags
