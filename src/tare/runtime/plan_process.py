"""The part of a plan that concerns the process: settings and the program itself. Pure but for the seccomp compiler."""

from __future__ import annotations

import resource

from tare.errors import InvalidArgument
from tare.kernel import capabilities
from tare.oci.runtime_spec import Capabilities, LinuxPersonality, LinuxSeccomp, Process, Scheduler, Spec
from tare.runtime.hooks import PlannedHook
from tare.runtime.steps import execute, identity

_PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}
_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
# Those that Python's resource module doesn't name (or not everywhere); asm-generic/resource.h.
_RLIMITS = {"RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14}
_RLIMITS["RLIMIT_RTTIME"] = 15
_UNLIMITED = 2**64 - 1

Setting = (
    identity.SetHostname
    | identity.SetSysctls
    | identity.SetOomScore
    | identity.NewSession
    | identity.SetScheduling
    | identity.SetPersonality
    | identity.SetLabel
)


def rlimit_number(name: str) -> int:
    """The kernel's number of RLIMIT_…"""
    number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
    if number is None:
        number = _RLIMITS.get(name)
    if not isinstance(number, int):
        raise InvalidArgument(f"invalid rlimit type: {name}")
    return number


def _limit(value: int) -> int:
    if not 0 <= value <= _UNLIMITED:
        raise InvalidArgument(f"invalid rlimit value: {value}")
    return -1 if value == _UNLIMITED else value


def _rlimits(process: Process) -> tuple[execute.ResourceLimit, ...]:
    limits = []
    for rlimit in process.rlimits or ():
        soft, hard = _limit(rlimit.soft), _limit(rlimit.hard)
        limits.append(execute.ResourceLimit(rlimit.type, rlimit_number(rlimit.type), soft, hard))
    return tuple(limits)


def _policy(scheduler: Scheduler) -> tuple[int, int, int, int, int, int, int]:
    policy = _POLICIES.get(scheduler.policy)
    if policy is None:
        raise InvalidArgument(f"invalid scheduler policy: {scheduler.policy}")
    flags = 0
    for name in scheduler.flags or ():
        if name not in _SCHEDULER_FLAGS:
            raise InvalidArgument(f"invalid scheduler flag: {name}")
        flags |= _SCHEDULER_FLAGS[name]
    times = (scheduler.runtime, scheduler.deadline, scheduler.period)
    return (policy, flags, scheduler.nice, scheduler.priority, *times)


def parse_cpus(text: str) -> tuple[int, ...]:
    """A CPU list such as `0-3,7`."""
    cpus: list[int] = []
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) > 65535:
            raise InvalidArgument(f"invalid CPU list: {text!r}")
        cpus += range(int(first), int(last or first) + 1)
    return tuple(cpus)


def plan_settings(spec: Spec, container_id: str) -> list[Setting]:
    """The steps that name the container and set its sysctls."""
    steps: list[Setting] = [identity.NewSession(f"_ses.{container_id}" if container_id else "")]
    if spec.hostname or spec.domainname:
        steps.append(identity.SetHostname(spec.hostname, spec.domainname))
    if spec.linux is not None and spec.linux.sysctl:
        steps.append(identity.SetSysctls(spec.linux.sysctl))
    return steps


def plan_limits(process: Process, personality: LinuxPersonality | None) -> list[Setting]:
    """What the first process gives itself while it still has the host's rights and /proc."""
    steps: list[Setting] = []
    if process.oom_score_adj is not None:
        steps.append(identity.SetOomScore(process.oom_score_adj))
    affinity = process.exec_cpu_affinity
    cpus = parse_cpus(affinity.final) if affinity is not None and affinity.final else ()
    io = process.io_priority
    if process.scheduler is not None or io is not None or cpus:
        policy = _policy(process.scheduler) if process.scheduler is not None else None
        io_class, io_priority = (io.class_, io.priority) if io is not None else ("", 0)
        steps.append(identity.SetScheduling(policy, io_class, io_priority, cpus))
    if personality is not None:
        steps.append(identity.SetPersonality(_PERSONALITIES[personality.domain]))
    return steps


def plan_label(process: Process) -> list[Setting]:
    """The step that asks for the label of the program; by the very process that executes it."""
    apparmor = "" if process.apparmor_profile == "unconfined" else process.apparmor_profile
    if not apparmor and not process.selinux_label:
        return []
    return [identity.SetLabel(apparmor, process.selinux_label)]


def _mask(names: tuple[str, ...] | None) -> int:
    return capabilities.mask(tuple(name for name in names or () if name in capabilities.NUMBERS))


def plan_capabilities(sets: Capabilities | None) -> execute.CapabilitySets:
    """The five sets as bits; no capabilities where the spec has none. Unknown names are dropped, as runc does."""
    if sets is None:
        return execute.CapabilitySets()
    return execute.CapabilitySets(
        bounding=_mask(sets.bounding),
        effective=_mask(sets.effective),
        permitted=_mask(sets.permitted),
        inheritable=_mask(sets.inheritable),
        ambient=_mask(sets.ambient),
    )


def _compile_seccomp(seccomp: LinuxSeccomp | None) -> tuple[bytes, int]:
    if seccomp is None:
        return b"", 0
    if seccomp.default_action == "SCMP_ACT_ALLOW" and not seccomp.syscalls:
        return b"", 0
    # Loads libseccomp: only where a filter is wanted.
    from tare.runtime.seccomp import compile_filter, filter_flags

    return compile_filter(seccomp), filter_flags(seccomp)


def plan_program(
    process: Process,
    seccomp: LinuxSeccomp | None,
    *,
    user: str | None = None,
    group_add: tuple[str, ...] = (),
    hooks: tuple[PlannedHook, ...] = (),
    state: bytes = b"",
    preserve_fds: int = 0,
    reaper: bool = False,
) -> execute.Execute:
    """The last step of a plan."""
    program, flags = _compile_seccomp(seccomp)
    return execute.Execute(
        args=process.args or (),
        env=process.env or (),
        cwd=process.cwd,
        uid=process.user.uid,
        gid=process.user.gid,
        additional_gids=process.user.additional_gids or (),
        user=user,
        group_add=group_add,
        rlimits=_rlimits(process),
        umask=0o022 if process.user.umask is None else process.user.umask,
        capabilities=plan_capabilities(process.capabilities),
        no_new_privileges=process.no_new_privileges,
        seccomp=program,
        seccomp_flags=flags,
        hooks=hooks,
        state=state,
        preserve_fds=preserve_fds,
        reaper=reaper,
    )
