"""Compiles OCI seccomp rules for every architecture that a process may switch to, with a table of their call numbers.

What decides where rules meet is as libseccomp has it: a rule without conditions beats those with; of two alike the
first. A name that no architecture knows is skipped, as runc skips it.
"""

from __future__ import annotations

import os

from tare.errors import InvalidArgument, Unsupported
from tare.oci.runtime_spec import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall
from tare.runtime.seccomp_bpf import ArchRules, Condition, Rule, assemble

COMPILER_VERSION = 2  # part of the cache's key: raise it when the programs change

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
_EPERM = 1
_RET_ENOSYS = 0x00050000 | 38
_MAX_ERRNO = 4095

# linux/audit.h; x32 shares x86_64's word. Those without a column in the table of numbers are no machine of ours: what
# runs under their word is killed, as under any word that a profile does not name.
_X86 = "SCMP_ARCH_X86"
_X32 = "SCMP_ARCH_X32"
_ARCH_WORDS = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    _X86: 0x40000003,
    _X32: 0xC000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
}
_OTHER_ARCHES = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        *("MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390"),
        *("S390X", "PARISC", "PARISC64", "LOONGARCH64", "M68K", "SH", "SHEB"),
    )
)
_TABLE_PATH = os.path.dirname(__file__) + "/profiles/syscalls.tsv"
_LITTLE_ENDIAN = 0x40000000
_64_BIT = 0x80000000

# Calls that 32-bit x86 has a second way to: by their number in socketcall(2)'s and ipc(2)'s first argument.
_SOCKETCALL = (
    *("socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv"),
    *("sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg"),
    "sendmmsg",
)
_MULTIPLEXED = {name: ("socketcall", number) for number, name in enumerate(_SOCKETCALL, 1)} | {
    name: ("ipc", number)
    for name, number in (
        *(("semop", 1), ("semget", 2), ("semctl", 3), ("semtimedop", 4), ("msgsnd", 11), ("msgrcv", 12)),
        *(("msgget", 13), ("msgctl", 14), ("shmat", 21), ("shmdt", 22), ("shmget", 23), ("shmctl", 24)),
    )
}

# Arguments that the kernel declares as int. A 64-bit process can put anything into their upper half: compared whole,
# `socket(38 + 2^32)` passes a rule "above 40" and makes an AF_ALG (38) socket (compare CVE-2019-10063, ioctl).
_INT_ARGUMENTS = {
    "socket": (0, 1, 2),
    "socketpair": (0, 1, 2),
    "setsockopt": (0, 1, 2, 4),
    "getsockopt": (0, 1, 2),
    "ioctl": (0, 1),
    "fcntl": (0, 1),
    "personality": (0,),
    "prctl": (0,),
    "arch_prctl": (0,),
    "keyctl": (0,),
    "bpf": (0, 2),
    "seccomp": (0, 1),
    "setns": (0, 1),
    "quotactl": (0,),
    "open": (1, 2),
    "openat": (0, 2, 3),
    "kill": (0, 1),
    "madvise": (2,),
    "sched_setscheduler": (0, 1),
    "clock_settime": (0,),
    "perf_event_open": (1, 2, 3),
}


def _read_numbers() -> dict[str, dict[str, int]]:
    """The table of system call numbers: architecture → name → number."""
    with open(_TABLE_PATH, encoding="ascii") as file:
        lines = [line.split("\t") for line in file.read().split("\n") if line and not line.startswith("#")]
    header, *rows = lines
    return {
        f"SCMP_ARCH_{arch.upper()}": {row[0]: int(row[column]) for row in rows if row[column] != "-"}
        for column, arch in enumerate(header)
        if column
    }


def _action(action: str, errno_ret: int | None) -> int:
    value = _ACTIONS.get(action)
    if value is None:
        raise InvalidArgument(f"string {action} is not a valid action for seccomp")
    if action not in _WITH_ERRNO:
        return value
    errno = _EPERM if errno_ret is None else errno_ret
    if not 0 <= errno <= (_MAX_ERRNO if action == "SCMP_ACT_ERRNO" else 0xFFFF):
        raise InvalidArgument(f"errnoRet {errno} is out of range in the seccomp profile")
    return value | errno


def _condition(name: str, arg: LinuxSeccompArg, wide: bool) -> Condition:
    if not 0 <= arg.index <= 5:
        raise InvalidArgument(f"argument index {arg.index} of {name} is out of range in the seccomp profile")
    if not (0 <= arg.value < 1 << 64 and 0 <= arg.value_two < 1 << 64):
        raise InvalidArgument(f"argument value of {name} is out of range in the seccomp profile")
    fits = arg.value < 1 << 32 and arg.value_two < 1 << 32
    narrow = not wide or (fits and arg.index in _INT_ARGUMENTS.get(name, ()))
    return Condition(arg.index, arg.op.removeprefix("SCMP_CMP_"), arg.value, arg.value_two, narrow)


def _rules_of(call: LinuxSyscall, name: str, wide: bool) -> list[Rule]:
    """Conditions on different arguments must all hold; several on one argument are alternatives, as runc has them."""
    action = _action(call.action, call.errno_ret)
    conditions = [_condition(name, arg, wide) for arg in call.args or ()]
    if len({condition.index for condition in conditions}) < len(conditions):
        return [Rule(action, (condition,)) for condition in conditions]
    return [Rule(action, tuple(conditions))]


def _rules_of_arch(seccomp: LinuxSeccomp, arch: str, numbers: dict[str, int], default: int) -> ArchRules:
    word = _ARCH_WORDS[arch]
    wide = bool(word & _64_BIT)
    found: dict[int, list[Rule]] = {}
    last = 0
    for call in seccomp.syscalls or ():
        for name in call.names:
            if not name:
                raise InvalidArgument("empty string is not a valid syscall")
            rules = _rules_of(call, name, wide)
            number = numbers.get(name)
            if number is not None:
                last = max(last, number)
                if rules != [Rule(default)]:
                    found.setdefault(number, []).extend(rules)
            if arch == _X86 and name in _MULTIPLEXED:
                _add_multiplexed(found, numbers, name, call, rules)
    merged = {number: _merge(rules) for number, rules in found.items()}
    enosys = seccomp.default_action not in _PERMISSIVE
    return ArchRules(
        arch=word,
        rules=merged,
        default=default,
        last=last,
        # A number above all that the profile knows is a call newer than the profile: it gets ENOSYS, so that programs
        # fall back to older calls, where EPERM makes them fail. runc does the same.
        beyond=_RET_ENOSYS if enosys else default,
        x32=arch == _X32,
        big_endian=not word & _LITTLE_ENDIAN,
    )


def _add_multiplexed(
    found: dict[int, list[Rule]], numbers: dict[str, int], name: str, call: LinuxSyscall, rules: list[Rule]
) -> None:
    """The other way to the same call. Its arguments lie in memory, where no filter sees them: a conditional allowance
    is not given there, a conditional refusal is unconditional."""
    if any(rule.conditions for rule in rules) and call.action in _PERMISSIVE:
        return
    way, member = _MULTIPLEXED[name]
    condition = Condition(0, "EQ", member, narrow=True)
    found.setdefault(numbers[way], []).append(Rule(rules[0].action, (condition,)))


def _merge(rules: list[Rule]) -> tuple[Rule, ...]:
    for rule in rules:
        if not rule.conditions:
            return (rule,)
    return tuple(dict.fromkeys(rules))


def compile_rules(seccomp: LinuxSeccomp, native: str) -> bytes:
    """The program for the native architecture and those that the rules name."""
    default = _action(seccomp.default_action, seccomp.default_errno_ret)
    if native not in _ARCH_WORDS:
        raise Unsupported(f"seccomp on {os.uname().machine}")
    wanted = tuple(dict.fromkeys((native, *(seccomp.architectures or ()))))
    for arch in wanted:
        if arch not in _ARCH_WORDS and arch not in _OTHER_ARCHES:
            raise InvalidArgument(f"string {arch} is not a valid arch for seccomp")
    numbers = _read_numbers()
    return assemble([_rules_of_arch(seccomp, arch, numbers[arch], default) for arch in wanted if arch in _ARCH_WORDS])
