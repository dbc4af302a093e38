"""Turns resolved system call rules into a classic BPF program; pure, and knows no profile and no system call's name.

The program finds the system call's number by binary search, so that a call costs about eight comparisons and the kernel
loads it four times faster than one that tries rule after rule (it replays the program once for each number, see
seccomp_cache_prepare in kernel/seccomp.c).

    load arch → one tree for each architecture, else kill
    tree:    number < middle ? left : right, down to a range of numbers with one verdict
    verdict: an action, or rules on arguments tried in their order, then the default action

It is assembled backwards: a jump's target is then always known, and equal endings are shared.
"""

from __future__ import annotations

import struct

import msgspec

from tare.errors import InvalidArgument

# linux/bpf_common.h, linux/seccomp.h
_LOAD_ABSOLUTE = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_JUMP_EQUAL = 0x15
_JUMP_GREATER = 0x25
_JUMP_GREATER_EQUAL = 0x35
_RETURN = 0x06
_OFFSET_NUMBER = 0
_OFFSET_ARCH = 4
_OFFSET_ARGUMENTS = 16
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_MAX_BRANCH = 255
_LOW = 0xFFFFFFFF
X32_BIT = 0x40000000
AUDIT_ARCH_X86_64 = 0xC000003E  # linux/audit.h

RET_KILL_THREAD = 0x00000000


class Condition(msgspec.Struct, frozen=True):
    """One argument compared. op: NE, LT, LE, EQ, GE, GT or MASKED_EQ ((argument & value) == value_two).

    narrow: the kernel reads the lower 32 bits of this argument only, so nothing above them may decide.
    """

    index: int
    op: str
    value: int
    value_two: int = 0
    narrow: bool = False


class Rule(msgspec.Struct, frozen=True):
    """Takes `action` if all conditions hold; with none, always."""

    action: int
    conditions: tuple[Condition, ...] = ()


class ArchRules(msgspec.Struct, frozen=True):
    """The rules of one architecture by system call number. Numbers above `last` get `beyond`."""

    arch: int
    rules: dict[int, tuple[Rule, ...]]
    default: int
    last: int
    beyond: int
    x32: bool = False
    big_endian: bool = False


class _Assembler:
    """Instructions in reverse order; a label is how many there were when the target had been emitted."""

    def __init__(self) -> None:
        self._code: list[bytes] = []
        self._returns: dict[int, int] = {}

    def _emit(self, code: int, constant: int, jump_true: int = 0, jump_false: int = 0) -> int:
        self._code.append(struct.pack("=HBBI", code, jump_true, jump_false, constant))
        return len(self._code)

    def load(self, offset: int) -> int:
        return self._emit(_LOAD_ABSOLUTE, offset)

    def mask(self, bits: int) -> int:
        return self._emit(_AND, bits)

    def ret(self, action: int) -> int:
        """A return of `action`, an earlier one if it is within reach."""
        label = self._returns.get(action)
        if label is not None and len(self._code) - label < _MAX_BRANCH - 8:
            return label
        self._returns[action] = self._emit(_RETURN, action)
        return self._returns[action]

    def _distance(self, label: int) -> int:
        return len(self._code) - label

    def branch(self, code: int, constant: int, if_true: int, if_false: int) -> int:
        """A conditional jump; targets out of its reach are reached by an unconditional one."""
        if self._distance(if_true) > _MAX_BRANCH - 1:
            if_true = self._emit(_JUMP, self._distance(if_true))
        if self._distance(if_false) > _MAX_BRANCH:
            if_false = self._emit(_JUMP, self._distance(if_false))
        return self._emit(code, constant, self._distance(if_true), self._distance(if_false))

    def continue_at(self, label: int) -> None:
        """Makes what is emitted next run on into `label`."""
        if self._distance(label):
            self._emit(_JUMP, self._distance(label))

    def finish(self) -> bytes:
        """The program, which begins with what was emitted last."""
        if len(self._code) > _MAX_INSTRUCTIONS:
            raise InvalidArgument(f"seccomp profile is too large: {len(self._code)} instructions")
        return b"".join(reversed(self._code))


def _compare_word(out: _Assembler, offset: int, op: str, value: int, yes: int, no: int) -> int:
    """Compares one 32-bit word."""
    if op in ("LT", "GE"):
        out.branch(_JUMP_GREATER_EQUAL, value, *((yes, no) if op == "GE" else (no, yes)))
    elif op in ("LE", "GT"):
        out.branch(_JUMP_GREATER, value, *((yes, no) if op == "GT" else (no, yes)))
    else:
        out.branch(_JUMP_EQUAL, value, *((no, yes) if op == "NE" else (yes, no)))
    return out.load(offset)


def _condition(out: _Assembler, condition: Condition, yes: int, no: int, big_endian: bool) -> int:
    offset = _OFFSET_ARGUMENTS + 8 * condition.index
    low, high = (offset + 4, offset) if big_endian else (offset, offset + 4)
    op, value = condition.op, condition.value
    if op == "MASKED_EQ":
        mask, wanted = value, condition.value_two
        out.branch(_JUMP_EQUAL, wanted & _LOW, yes, no)
        out.mask(mask & _LOW)
        label = out.load(low)
        if not condition.narrow and (mask >> 32 or wanted >> 32):
            out.branch(_JUMP_EQUAL, wanted >> 32, label, no)
            out.mask(mask >> 32)
            label = out.load(high)
        return label
    label = _compare_word(out, low, op, value & _LOW, yes, no)
    if condition.narrow:
        return label
    # The upper words decide unless they are equal.
    if op in ("EQ", "NE"):
        out.branch(_JUMP_EQUAL, value >> 32, label, no if op == "EQ" else yes)
    else:
        label = out.branch(_JUMP_EQUAL, value >> 32, label, no if op in ("LT", "LE") else yes)
        out.branch(_JUMP_GREATER_EQUAL, value >> 32, label, yes if op in ("LT", "LE") else no)
    return out.load(high)


def _verdict(out: _Assembler, rules: tuple[Rule, ...], default: int, big_endian: bool) -> int:
    """Label of the code for one number's rules; ends at the first rule without conditions."""
    label: int | None = None
    for rule in reversed(rules):
        if not rule.conditions:
            label = out.ret(rule.action)
            continue
        otherwise = out.ret(default) if label is None else label
        label = out.ret(rule.action)
        for condition in reversed(rule.conditions):
            label = _condition(out, condition, label, otherwise, big_endian)
    return out.ret(default) if label is None else label


def _ranges(arch: ArchRules) -> list[tuple[int, tuple[Rule, ...]]]:
    """(first number, rules) of each range of numbers with the same rules, in ascending order from 0."""
    ranges: list[tuple[int, tuple[Rule, ...]]] = []
    plain = (Rule(arch.default),)

    def add(first: int, rules: tuple[Rule, ...]) -> None:
        if not ranges or ranges[-1][1] != rules:
            ranges.append((first, rules))

    following = 0
    for number in sorted(arch.rules):
        if number > following or not ranges:
            add(following, plain)
        if ranges[-1][0] == number:
            ranges.pop()
        add(number, arch.rules[number])
        following = number + 1
    if following <= arch.last:
        add(following, plain)
    add(arch.last + 1, (Rule(arch.beyond),))
    return ranges


def _tree(out: _Assembler, ranges: list[tuple[int, tuple[Rule, ...]]], arch: ArchRules) -> int:
    if len(ranges) == 1:
        return _verdict(out, ranges[0][1], arch.default, arch.big_endian)
    middle = len(ranges) // 2
    right = _tree(out, ranges[middle:], arch)
    left = _tree(out, ranges[:middle], arch)
    return out.branch(_JUMP_GREATER_EQUAL, ranges[middle][0], right, left)


def assemble(architectures: list[ArchRules], bad_arch: int = RET_KILL_THREAD) -> bytes:
    """The program: an array of struct sock_filter. x32 has x86_64's architecture word; its numbers have bit 30 set."""
    out = _Assembler()
    label = out.ret(bad_arch)
    by_word: dict[int, list[ArchRules]] = {}
    for arch in architectures:
        by_word.setdefault(arch.arch, []).append(arch)
    for word, group in reversed(by_word.items()):
        plain = [arch for arch in group if not arch.x32]
        inner = _tree(out, _ranges(plain[0]), plain[0]) if plain else out.ret(bad_arch)
        if word == AUDIT_ARCH_X86_64:
            inner = out.branch(_JUMP_GREATER_EQUAL, X32_BIT, _upper_half(out, group, bad_arch), inner)
        out.continue_at(inner)
        label = out.branch(_JUMP_EQUAL, word, out.load(_OFFSET_NUMBER), label)
    out.continue_at(label)
    out.load(_OFFSET_ARCH)
    return out.finish()


def _upper_half(out: _Assembler, group: list[ArchRules], bad_arch: int) -> int:
    """Numbers from X32_BIT up. -1 is no x32 call: a tracer sets it to have the call skipped (ptrace(2))."""
    for arch in group:
        if arch.x32:
            return _tree(out, _ranges(arch), arch)
    return out.branch(_JUMP_EQUAL, _LOW, out.ret(group[0].default), out.ret(bad_arch))
