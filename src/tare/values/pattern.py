"""Regular expressions in Go's (RE2's) syntax, matched in time linear in the text. Pure.

For patterns that strangers send: Python's own `re` may take longer than the universe has for twenty letters. A pattern
becomes a non-deterministic automaton whose states are followed all at once, with what was found out about a set of
states kept (a deterministic automaton, made as far as it is needed). Only whether it matches is told, so greediness and
groups make no difference. Look-around and back references don't exist, as in Go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tare.errors import InvalidArgument
from tare.values.pattern_syntax import Node, parse

STATES_MAX = 2_000
NODES_MAX = 20_000
STEPS_MAX = 500_000
"""For all texts that one filter is held against: about half a second. Only made-up cases come near it."""
KEPT_MAX = 5_000


class _Instruction(NamedTuple):
    """kind: char (test it, then go to `to`), split (go to `to` and `other`), assert (if it holds, `to`), match."""

    kind: str
    to: int = 0
    other: int = 0
    test: Callable[[str], bool] | None = None
    holds: Callable[[str, str], bool] | None = None


class _Program:
    """The automaton of a tree; built from the end, so that each part knows where it goes on."""

    def __init__(self, tree: Node) -> None:
        self.code = [_Instruction("match")]
        self.nodes = 0
        self.start = self._add(tree, 0)

    def _put(self, instruction: _Instruction) -> int:
        if len(self.code) >= STATES_MAX:
            raise InvalidArgument("invalid filter: the regular expression is too large")
        self.code.append(instruction)
        return len(self.code) - 1

    def _add(self, node: Node, after: int) -> int:
        self.nodes += 1  # nothing, repeated, makes no states, but takes its time
        if self.nodes > NODES_MAX:
            raise InvalidArgument("invalid filter: the regular expression is too large")
        if node.kind == "char":
            return self._put(_Instruction("char", after, test=node.test))
        if node.kind == "assert":
            return self._put(_Instruction("assert", after, holds=node.holds))
        if node.kind == "sequence":
            for part in reversed(node.parts):
                after = self._add(part, after)
            return after
        if node.kind == "choice":
            first = self._add(node.parts[0], after)
            for part in node.parts[1:]:
                first = self._put(_Instruction("split", first, self._add(part, after)))
            return first
        return self._repeat(node, after)

    def _repeat(self, node: Node, after: int) -> int:
        (part,) = node.parts
        if node.most is None:
            loop = self._put(_Instruction("split", after, after))
            self.code[loop] = _Instruction("split", self._add(part, loop), after)
            after = loop
        else:
            end = after
            for _ in range(node.most - node.least):
                after = self._put(_Instruction("split", self._add(part, after), end))
        for _ in range(node.least):
            after = self._add(part, after)
        return after


class Budget:
    """What the patterns of one filter may cost together, in steps."""

    def __init__(self, steps: int = STEPS_MAX) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Raises InvalidArgument when it is used up."""
        self.left -= steps
        if self.left < 0:
            raise InvalidArgument("invalid filter: the regular expression takes too long")


class Pattern:
    """A compiled regular expression. Raises InvalidArgument if it is wrong, too large, or (in use) takes too long."""

    def __init__(self, text: str, budget: Budget | None = None) -> None:
        program = _Program(parse(text))
        self._code, self._start = program.code, program.start
        self._known: dict[tuple[frozenset[int], str, str], tuple[bool, frozenset[int]]] = {}
        self._budget = budget or Budget()
        self._budget.spend(program.nodes)

    def search(self, text: str) -> bool:
        """Whether it matches anywhere in the text."""
        states: frozenset[int] = frozenset()
        before = ""
        for at in range(len(text) + 1):
            letter = text[at] if at < len(text) else ""
            matched, states = self._step(states, before, letter)
            if matched:
                return True
            before = letter
        return False

    def _step(self, states: frozenset[int], before: str, letter: str) -> tuple[bool, frozenset[int]]:
        key = (states, before, letter)
        found = self._known.get(key)
        if found is None:
            found = self._follow(states, before, letter)
            if len(self._known) >= KEPT_MAX:
                self._known.clear()
            self._known[key] = found
        self._budget.spend(1)
        return found

    def _follow(self, states: Iterable[int], before: str, letter: str) -> tuple[bool, frozenset[int]]:
        """Where all the states, and a new start, get to between two letters; then over the second one."""
        todo, seen = [self._start, *states], set[int]()
        reached: set[int] = set()
        while todo:
            at = todo.pop()
            if at in seen:
                continue
            seen.add(at)
            step = self._code[at]
            if step.kind == "match":
                return True, frozenset()
            if step.kind == "split":
                todo += (step.to, step.other)
            elif step.holds is not None:
                if step.holds(before, letter):
                    todo.append(step.to)
            elif letter and step.test is not None and step.test(letter):
                reached.add(step.to)
        self._budget.spend(len(seen))
        return False, frozenset(reached)


def _is_right(text: str) -> bool:
    try:
        parse(text)
    except InvalidArgument:
        return False
    return True


def matcher(texts: Iterable[str]) -> Callable[[str], bool]:
    """Docker's way with a filter's values: equal to one, or matched by one anywhere; a wrong pattern matches nothing.

    Raises InvalidArgument for a pattern that is too large, and the result of it for one that takes too long.
    """
    exact = frozenset(texts)
    budget = Budget()
    patterns = [Pattern(text, budget) for text in exact if _is_right(text)]
    return lambda name: name in exact or any(pattern.search(name) for pattern in patterns)
