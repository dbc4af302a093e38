"""The compiled program, against libseccomp's own for the same rules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyseccomp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from bpf_machine import ALLOW, KILL, X86, X86_64, errno_return, run

from tare.oci.runtime_spec import LinuxSeccomp, LinuxSeccompArg, LinuxSyscall
from tare.runtime.seccomp import compile_filter, default_profile, resolve_profile
from tare.runtime.seccomp_compile import _read_numbers

X32_BIT = 0x40000000
ENOSYS = errno_return(38)
EPERM = errno_return(1)
CAPABILITIES = [frozenset(), frozenset({"CAP_SYS_ADMIN"}), frozenset({"CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_BPF"})]
ARCH_TOKENS = {"SCMP_ARCH_X86": pyseccomp.Arch.X86, "SCMP_ARCH_X32": pyseccomp.Arch.X32}


def action_of(call: LinuxSyscall) -> int:
    if call.action == "SCMP_ACT_ERRNO":
        return pyseccomp.ERRNO(1 if call.errno_ret is None else call.errno_ret)
    return int(getattr(pyseccomp, call.action.removeprefix("SCMP_ACT_")))


def reference(seccomp: LinuxSeccomp) -> bytes:
    """What libseccomp makes of the same rules (without the ENOSYS for newer calls)."""
    default = EPERM if seccomp.default_action == "SCMP_ACT_ERRNO" else ALLOW
    built = pyseccomp.SyscallFilter(default)
    for arch in seccomp.architectures or ():
        if arch in ARCH_TOKENS:
            built.add_arch(ARCH_TOKENS[arch])
    for call in seccomp.syscalls or ():
        if action_of(call) == default:
            continue
        for name in call.names:
            number = pyseccomp.resolve_syscall(0, name)
            arguments = [
                pyseccomp.Arg(arg.index, getattr(pyseccomp, arg.op.removeprefix("SCMP_CMP_")), arg.value, arg.value_two)
                for arg in call.args or ()
            ]
            if number != -1:
                built.add_rule(action_of(call), number, *arguments)
    fd = os.memfd_create("reference")
    with open(fd, "rb+") as file:
        built.export_bpf(file)
        return os.pread(fd, 1 << 20, 0)


@pytest.mark.parametrize("capabilities", CAPABILITIES)
def test_default_profile_decides_as_libseccomp(capabilities: frozenset[str]) -> None:
    """Every number of all three architectures gets the same verdict, but ENOSYS above the newest one known."""
    seccomp = resolve_profile(default_profile(), capabilities, "amd64", "6.1")
    assert seccomp
    ours, theirs = compile_filter(seccomp), reference(seccomp)
    assert len(ours) < len(theirs) / 2
    # The newest calls that this libseccomp doesn't know but we do.
    known_to_us_only = {335, *range(457, 470)}
    known_to_us_only |= {number | X32_BIT for number in known_to_us_only}
    known_to_us_only.add(453 | X32_BIT)  # map_shadow_stack isn't x32's (the kernel's table), as libseccomp 2.6 has it
    differences = []
    for arch, numbers in ((X86_64, range(470)), (X86, range(470)), (X86_64, range(X32_BIT, X32_BIT + 600))):
        for number in numbers:
            for arguments in ((0,), (0x7E020000,), (8, 0x10000000), (38,), (39,), (40,), (41,), (1,)):
                got, expected = run(ours, number, arch, arguments), run(theirs, number, arch, arguments)
                if got != expected and not (number in known_to_us_only or (got == ENOSYS and expected == EPERM)):
                    differences.append((hex(arch), number, arguments, hex(got), hex(expected)))
    assert differences == []
    assert run(ours, 1, 0x12345678) == run(theirs, 1, 0x12345678) == KILL


def test_table_of_numbers_agrees_with_libseccomp() -> None:
    """Each number that libseccomp knows under a name is the table's."""
    tokens = {
        "x86_64": pyseccomp.Arch.X86_64,
        "x86": pyseccomp.Arch.X86,
        "x32": pyseccomp.Arch.X32,
        "aarch64": pyseccomp.Arch.AARCH64,
        "arm": pyseccomp.Arch.ARM,
        "riscv64": pyseccomp.Arch.RISCV64,
    }
    checked = 0
    for arch, token in tokens.items():
        for name, number in _read_numbers()[f"SCMP_ARCH_{arch.upper()}"].items():
            known = pyseccomp.resolve_syscall(token, name)
            assert known in (number, -1) or known < -100, (arch, name)
            checked += known == number
    assert checked > 2000


def test_newer_calls_than_the_profile_give_enosys() -> None:
    """Programs fall back from ENOSYS, and fail at EPERM; a known but denied call stays EPERM."""
    seccomp = resolve_profile(default_profile(), frozenset(), "amd64", "6.1")
    assert seccomp
    program = compile_filter(seccomp)
    for arch, bit in ((X86_64, 0), (X86, 0), (X86_64, X32_BIT)):
        assert run(program, 466 | bit, arch) == ALLOW  # removexattrat
        assert run(program, (547 + 1 if bit else 467) | bit, arch) == ENOSYS  # x32's own numbers end at 547
        assert run(program, 0x3FFFFFFF | bit, arch) == ENOSYS
        assert run(program, 429 | bit, arch) == EPERM  # move_mount
        assert run(program, 435 | bit, arch) == ENOSYS  # clone3, by a rule of the profile


def test_upper_half_of_an_int_argument_decides_nothing() -> None:
    """socket(38 + 2^32) is an AF_ALG socket to the kernel, so it must be one to the filter; libseccomp lets it pass."""
    seccomp = resolve_profile(default_profile(), frozenset(), "amd64", "6.1")
    assert seccomp
    program = compile_filter(seccomp)
    for family, verdict in ((2, ALLOW), (38, EPERM), (39, ALLOW), (40, EPERM), (41, ALLOW)):
        for upper in (0, 1 << 32, 0xFFFFFFFF << 32):
            assert run(program, 41, X86_64, (family | upper,)) == verdict
    assert run(reference(seccomp), 41, X86_64, (38 | 1 << 32,)) == ALLOW


def test_conditional_permission_does_not_leak_through_socketcall() -> None:
    """i386's socketcall keeps the family in memory: what is allowed for some families only isn't allowed there."""
    families = LinuxSeccompArg(0, 2, "SCMP_CMP_EQ")
    seccomp = LinuxSeccomp(
        "SCMP_ACT_ERRNO",
        architectures=("SCMP_ARCH_X86",),
        syscalls=(
            LinuxSyscall(("socket",), "SCMP_ACT_ALLOW", args=(families,)),
            LinuxSyscall(("bind",), "SCMP_ACT_ALLOW"),
        ),
    )
    program = compile_filter(seccomp)
    assert run(program, 359, X86, (2,)) == ALLOW
    assert run(program, 102, X86, (1,)) == EPERM  # SYS_SOCKET
    assert run(program, 102, X86, (2,)) == ALLOW  # SYS_BIND


def test_conditions_on_one_argument_are_alternatives() -> None:
    """As runc reads them: value 1 or value 5."""
    values = (LinuxSeccompArg(0, 1, "SCMP_CMP_EQ"), LinuxSeccompArg(0, 5, "SCMP_CMP_EQ"))
    rules = LinuxSeccomp("SCMP_ACT_ERRNO", syscalls=(LinuxSyscall(("alarm",), "SCMP_ACT_ALLOW", args=values),))
    program = compile_filter(rules)
    assert [run(program, 37, X86_64, (value,)) for value in (0, 1, 4, 5)] == [EPERM, ALLOW, EPERM, ALLOW]


def test_skipped_call_number_of_a_tracer_is_not_killed() -> None:
    """-1, which a tracer sets to skip a call, is no x32 call of a foreign architecture."""
    rules = LinuxSeccomp("SCMP_ACT_ALLOW", syscalls=(LinuxSyscall(("alarm",), "SCMP_ACT_ERRNO"),))
    program = compile_filter(rules)
    assert run(program, -1, X86_64) == ALLOW
    assert run(program, X32_BIT | 1, X86_64) == KILL


# Names without int arguments of ours, multiplexing or conditions of their own; on x86_64.
NAMES = ("read", "write", "mmap", "lseek", "clone", "splice", "futex", "tee")
VALUES = st.sampled_from([0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, (1 << 32) | 1, (5 << 32) | 7, (1 << 64) - 1])
OPERATORS = st.sampled_from(["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"])


@st.composite
def conditions(draw: st.DrawFn) -> tuple[LinuxSeccompArg, ...]:
    indexes = draw(st.lists(st.integers(0, 5), unique=True, max_size=3))
    made = []
    for index in indexes:
        value, two = draw(VALUES), draw(VALUES)
        operator = draw(OPERATORS)
        made.append(LinuxSeccompArg(index, value, f"SCMP_CMP_{operator}", two & value if "MASK" in operator else 0))
    return tuple(made)


RULES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.booleans(), conditions()),
    min_size=1,
    max_size=6,
    unique_by=lambda rule: rule[0],
)


@settings(max_examples=150, deadline=None)
@given(RULES, st.lists(st.tuples(*[VALUES] * 6), min_size=1, max_size=12))
@example([("clone", True, (LinuxSeccompArg(0, 1 << 32, "SCMP_CMP_GT"),))], [(0,) * 6])
def test_any_rules_decide_as_libseccomp(
    rules: list[tuple[str, bool, tuple[LinuxSeccompArg, ...]]], arguments: list[tuple[int, ...]]
) -> None:
    """For random conditions of all operators on 64-bit values, every call gets libseccomp's verdict."""
    calls = tuple(
        LinuxSyscall((name,), "SCMP_ACT_ALLOW" if allow else "SCMP_ACT_TRAP", args=args or None)
        for name, allow, args in rules
    )
    seccomp = LinuxSeccomp("SCMP_ACT_ERRNO", syscalls=calls)
    ours, theirs = compile_filter(seccomp), reference(seccomp)
    for name in NAMES:
        number = pyseccomp.resolve_syscall(0, name)
        for values in arguments:
            got, expected = run(ours, number, X86_64, values), run(theirs, number, X86_64, values)
            assert got == expected or (got == ENOSYS and expected == EPERM), (name, values, hex(got), hex(expected))


@settings(max_examples=25, deadline=None)
@given(st.integers(200, 900))
def test_far_jumps(count: int) -> None:
    """A program longer than a jump's reach of 255 instructions still ends where it should."""
    args = [
        LinuxSyscall(
            ("mmap", "read", "write"),
            "SCMP_ACT_ALLOW",
            args=(LinuxSeccompArg(index % 6, 1 << 33 | index, "SCMP_CMP_EQ"),),
        )
        for index in range(count // 3)
    ]
    program = compile_filter(LinuxSeccomp("SCMP_ACT_ERRNO", syscalls=tuple(args)))
    for number in (0, 1, 9):
        for index in (0, 1, count // 6, count // 3 - 1):
            values = tuple(1 << 33 | index if place == index % 6 else 0 for place in range(6))
            assert run(program, number, X86_64, values) == ALLOW
        assert run(program, number, X86_64, (5, 5, 5, 5, 5, 5)) == EPERM
