"""The tree of a parsed template. Plain records; `at` is the place in the source that errors name."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Node: TypeAlias = "Text | Action | Branch | Jump"
    Operand: TypeAlias = "Literal | Dot | Field | Variable | Function | Chain | Pipe"


class Text:
    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Literal:
    __slots__ = ("at", "shown", "value")

    def __init__(self, at: int, value: object, shown: str) -> None:
        self.at = at
        self.value = value
        self.shown = shown


class Dot:
    __slots__ = ("at",)
    shown = "."

    def __init__(self, at: int) -> None:
        self.at = at


class Field:
    """.A.B of dot."""

    __slots__ = ("at", "names")

    def __init__(self, at: int, names: list[str]) -> None:
        self.at = at
        self.names = names

    @property
    def shown(self) -> str:
        return "".join("." + name for name in self.names)


class Variable:
    """$x, or $x.A.B"""

    __slots__ = ("at", "name", "names")

    def __init__(self, at: int, name: str, names: list[str]) -> None:
        self.at = at
        self.name = name
        self.names = names

    @property
    def shown(self) -> str:
        return ".".join([self.name, *self.names])


class Function:
    __slots__ = ("at", "name")

    def __init__(self, at: int, name: str) -> None:
        self.at = at
        self.name = name

    @property
    def shown(self) -> str:
        return self.name


class Chain:
    """(pipeline).A.B"""

    __slots__ = ("at", "names", "operand")

    def __init__(self, at: int, operand: Operand, names: list[str]) -> None:
        self.at = at
        self.operand = operand
        self.names = names

    @property
    def shown(self) -> str:
        return f"({self.operand.shown})" + "".join("." + name for name in self.names)


class Call:
    """One command of a pipeline: an operand and its arguments."""

    __slots__ = ("operands",)

    def __init__(self, operands: list[Operand]) -> None:
        self.operands = operands

    @property
    def shown(self) -> str:
        return " ".join(f"({item.shown})" if isinstance(item, Pipe) else item.shown for item in self.operands)


class Pipe:
    """[$a, $b :=] call | call …"""

    __slots__ = ("assign", "at", "calls", "variables")

    def __init__(self, at: int, variables: list[str], assign: bool, calls: list[Call]) -> None:
        self.at = at
        self.variables = variables
        self.assign = assign
        self.calls = calls

    @property
    def shown(self) -> str:
        return " | ".join(call.shown for call in self.calls)


class Action:
    __slots__ = ("pipe",)

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe


class Branch:
    """if, with or range."""

    __slots__ = ("kind", "otherwise", "pipe", "then")

    def __init__(self, kind: str, pipe: Pipe, then: list[Node], otherwise: list[Node]) -> None:
        self.kind = kind
        self.pipe = pipe
        self.then = then
        self.otherwise = otherwise


class Jump:
    """break or continue."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind
