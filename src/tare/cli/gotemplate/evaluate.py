"""Runs a parsed template over data. Never runs anything but the functions it was given, and never without end: a
template has no loop but `range` over what is there."""

from __future__ import annotations

from tare.cli.gotemplate.errors import Break, Continue, FunctionError, TemplateError
from tare.cli.gotemplate.functions import FUNCTIONS, SHORT_CIRCUIT, type_name
from tare.cli.gotemplate.nodes import Action, Branch, Chain, Dot, Field, Function, Jump, Literal, Pipe, Text, Variable
from tare.cli.gotemplate.parse import parse_template
from tare.cli.gotemplate.values import ALIASES, NO_VALUE, OPTIONAL_FIELDS, GoMap, NoValue, format_value, is_true

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from tare.cli.gotemplate.nodes import Call, Node, Operand


class Template:
    """A parsed template; `render` as often as you like."""

    def __init__(self, source: str, nodes: list[Node]) -> None:
        self.source = source
        self.nodes = nodes

    def render(self, data: Any, functions: dict[str, Callable[..., object]] | None = None) -> str:
        run = _Run(self.source, functions or FUNCTIONS, data)
        run.walk(self.nodes, data)
        return "".join(run.out)


def compile_template(source: str) -> Template:
    return Template(source, parse_template(source, {*FUNCTIONS, *SHORT_CIRCUIT}))


class _Run:
    def __init__(self, source: str, functions: dict[str, Callable[..., object]], data: Any) -> None:
        self.source = source
        self.functions = functions
        self.out: list[str] = []
        self.variables: list[tuple[str, Any]] = [("$", data)]

    def fail(self, node: Operand, what: str, shown: str = "") -> TemplateError:
        before = self.source[: node.at]
        line = before.count("\n") + 1
        column = len(before[before.rfind("\n") + 1 :].encode()) if line > 1 else len(before.encode())
        shown = shown or node.shown
        if len(shown) > 20:
            shown = shown[:20] + "..."
        return TemplateError(f'template: :{line}:{column}: executing "" at <{shown}>: {what}')

    # -- statements

    def walk(self, nodes: list[Node], dot: Any) -> None:
        for node in nodes:
            if isinstance(node, Text):
                self.out.append(node.text)
            elif isinstance(node, Action):
                value = self.pipe(node.pipe, dot)
                if not node.pipe.variables:
                    self.out.append(format_value(value))
            elif isinstance(node, Branch):
                self._branch(node, dot)
            else:
                raise Break if node.kind == "break" else Continue

    def _branch(self, node: Branch, dot: Any) -> None:
        known = len(self.variables)
        value = self.pipe(node.pipe, dot)
        if node.kind == "range":
            self._range(node, value, dot)
        elif is_true(value):
            self.walk(node.then, value if node.kind == "with" else dot)
        else:
            self.walk(node.otherwise, dot)
        del self.variables[known:]

    def _range(self, node: Branch, value: Any, dot: Any) -> None:
        names = node.pipe.variables
        if not node.pipe.assign:
            del self.variables[len(self.variables) - len(names) :]
        empty = True
        known = len(self.variables)
        for key, item in self._items(node, value):
            empty = False
            pair = (key, item)[2 - len(names) :] if names else ()
            for name, part in zip(names, pair, strict=True):
                if node.pipe.assign:
                    self._assign(name, part)
                else:
                    self.variables.append((name, part))
            try:
                self.walk(node.then, item)
            except Continue:
                pass
            except Break:
                del self.variables[known:]
                break
            del self.variables[known:]
        if empty:
            self.walk(node.otherwise, dot)

    def _items(self, node: Branch, value: Any) -> Iterator[tuple[Any, Any]]:
        if value is None or isinstance(value, NoValue):
            return iter(())
        if isinstance(value, dict):
            return iter([(key, value[key]) for key in sorted(value)])
        if isinstance(value, list | tuple):
            return iter(list(enumerate(value)))
        if isinstance(value, int) and not isinstance(value, bool):
            return iter([(number, number) for number in range(value)])
        raise self.fail(node.pipe, f"range can't iterate over {format_value(value)}")

    # -- expressions

    def _assign(self, name: str, value: Any) -> None:
        for number in range(len(self.variables) - 1, -1, -1):
            if self.variables[number][0] == name:
                self.variables[number] = (name, value)
                return

    def pipe(self, pipe: Pipe, dot: Any) -> Any:
        value: Any = None
        for number, call in enumerate(pipe.calls):
            value = self._call(call, dot, [value] if number else [])
        for name in pipe.variables:
            if pipe.assign:
                self._assign(name, value)
            else:
                self.variables.append((name, value))
        return value

    def _call(self, call: Call, dot: Any, final: list[Any]) -> Any:
        first, rest = call.operands[0], call.operands[1:]
        if isinstance(first, Function):
            if first.name in SHORT_CIRCUIT:
                return self._short_circuit(first, rest, dot, final)
            arguments = [self._operand(item, dot) for item in rest] + final
            return self._apply(first, arguments, call.shown)
        if isinstance(first, Field) and (rest or final):
            arguments = [self._operand(item, dot) for item in rest] + final
            owner = self._fields(first, dot, first.names[:-1])
            return self._method(first, owner, first.names[-1], arguments)
        if isinstance(first, Literal) and first.shown == "nil":
            raise self.fail(first, "nil is not a command")
        if rest or final:
            if isinstance(first, Variable | Chain):
                raise self.fail(first, f"{first.shown} is not a method but has arguments")
            raise self.fail(first, f"can't give argument to non-function {first.shown}")
        return self._operand(first, dot)

    def _short_circuit(self, node: Function, rest: list[Operand], dot: Any, final: list[Any]) -> Any:
        if not rest and not final:
            raise self.fail(node, f"wrong number of args for {node.name}: want at least 1 got 0")
        value: Any = None
        for item in rest:
            value = self._operand(item, dot)
            if is_true(value) == (node.name == "or"):
                return value
        return final[0] if final else value

    def _apply(self, node: Function, arguments: list[Any], shown: str = "") -> Any:
        try:
            return self.functions[node.name](*arguments)
        except FunctionError as error:
            raise self.fail(node, f"error calling {node.name}: {error}", shown) from None
        except TypeError as error:
            if "argument" in str(error):
                raise self.fail(node, f"wrong number of args for {node.name}: got {len(arguments)}") from None
            raise self.fail(node, f"wrong type of value for {node.name}: {error}", shown) from None

    def _operand(self, node: Operand, dot: Any) -> Any:
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Dot):
            return dot
        if isinstance(node, Field):
            return self._fields(node, dot, node.names)
        if isinstance(node, Variable):
            return self._fields(node, self._variable(node), node.names)
        if isinstance(node, Pipe):
            return self.pipe(node, dot)
        if isinstance(node, Chain):
            return self._fields(node, self._operand(node.operand, dot), node.names)
        return self._apply(node, [])

    def _variable(self, node: Variable) -> Any:
        for name, value in reversed(self.variables):
            if name == node.name:
                return value
        raise self.fail(node, f"undefined variable: {node.name}")

    def _fields(self, node: Operand, value: Any, names: list[str]) -> Any:
        for name in names:
            value = self._field(node, value, name)
        return value

    def _field(self, node: Operand, value: Any, name: str) -> Any:
        if isinstance(value, dict):
            if name in value:
                return value[name]
            if isinstance(value, GoMap):
                return NO_VALUE
            if name in OPTIONAL_FIELDS:
                return OPTIONAL_FIELDS[name]
            if ALIASES.get(name) in value:
                return value[ALIASES[name]]
            raise self.fail(node, f'map has no entry for key "{name}"')
        fields = getattr(value, "fields", None)
        if fields is not None:
            if name in fields:
                return fields[name]()
            if name in value.methods:
                raise self.fail(node, f"wrong number of args for {name}: want 1 got 0")
            raise self.fail(node, f"can't evaluate field {name} in type {value.kind}")
        if value is None or isinstance(value, NoValue):
            raise self.fail(node, f"nil pointer evaluating interface {{}}.{name}")
        raise self.fail(node, f"can't evaluate field {name} in type {type_name(value)}")

    def _method(self, node: Field, owner: Any, name: str, arguments: list[Any]) -> Any:
        methods = getattr(owner, "methods", {})
        if name not in methods:
            self._field(node, owner, name)
            raise self.fail(node, f"{name} has arguments but cannot be invoked as function")
        if len(arguments) != 1:
            raise self.fail(node, f"wrong number of args for {name}: want 1 got {len(arguments)}")
        return methods[name](arguments[0])


__all__ = ["Jump", "Template", "compile_template"]
