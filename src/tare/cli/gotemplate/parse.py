"""From tokens to the tree, with Go's complaints about what doesn't parse. Pure."""

from __future__ import annotations

from tare.cli.gotemplate.errors import TemplateError
from tare.cli.gotemplate.lex import Piece, Token, parse_error, split_pieces, unquote
from tare.cli.gotemplate.nodes import (
    Action,
    Branch,
    Call,
    Chain,
    Dot,
    Field,
    Function,
    Jump,
    Literal,
    Pipe,
    Text,
    Variable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from tare.cli.gotemplate.nodes import Node, Operand

MAX_DEPTH = 100


def parse_template(source: str, functions: Container[str]) -> list[Node]:
    parser = _Parser(source, functions)
    nodes, end = parser.take_list(0, in_range=False)
    if end:
        raise parser.error(parser.last_at, f"unexpected {{{{{end}}}}}")
    return nodes


class _Parser:
    def __init__(self, source: str, functions: Container[str]) -> None:
        self.source = source
        self.functions = functions
        self.pieces: list[Piece] = split_pieces(source)
        self.at = 0
        self.last_at = 0
        self.variables: list[str] = ["$"]
        self.pending: list[Token] = []

    def error(self, at: int, what: str) -> TemplateError:
        return parse_error(self.source, at, what)

    def take_list(self, depth: int, in_range: bool) -> tuple[list[Node], str]:
        """Nodes up to {{end}} or {{else…}}, and which it was ("" at the end of the text)."""
        if depth > MAX_DEPTH:
            raise self.error(self.last_at, "the template is nested too deeply")
        nodes: list[Node] = []
        while self.at < len(self.pieces):
            piece = self.pieces[self.at]
            self.at += 1
            self.last_at = piece.at
            if piece.tokens is None:
                nodes.append(Text(piece.text))
                continue
            tokens = _trim(piece.tokens)
            if not tokens:
                raise self.error(piece.at, "missing value for command")
            first = tokens[0]
            if first.kind == "keyword" and first.text in ("end", "else"):
                self.pending = _trim(tokens[1:])
                return nodes, first.text
            nodes.append(self._take_action(first, tokens, depth, in_range))
        return nodes, ""

    def _take_action(self, first: Token, tokens: list[Token], depth: int, in_range: bool) -> Node:
        if first.kind == "keyword" and first.text in ("if", "with", "range"):
            return self._take_branch(first.text, _trim(tokens[1:]), depth, in_range)
        if first.kind == "keyword" and first.text in ("break", "continue"):
            if not in_range:
                raise self.error(first.at, f"{{{{{first.text}}}}} outside {{{{range}}}}")
            return Jump(first.text)
        if first.kind == "keyword" and first.text != "nil":
            raise self.error(first.at, f"{{{{{first.text}}}}} is not supported")
        return Action(self._take_pipe(tokens, "command"))

    def _take_branch(self, kind: str, tokens: list[Token], depth: int, in_range: bool) -> Node:
        known = len(self.variables)
        pipe = self._take_pipe(tokens, kind)
        inside = in_range or kind == "range"
        then, end = self.take_list(depth + 1, inside)
        otherwise: list[Node] = []
        if end == "else":
            following = self.pending
            if following:
                if following[0].kind != "keyword" or following[0].text != kind or kind == "range":
                    raise self.error(following[0].at, f"unexpected <{following[0].text}> in else")
                otherwise = [self._take_branch(kind, _trim(following[1:]), depth + 1, in_range)]
                del self.variables[known:]
                return Branch(kind, pipe, then, otherwise)
            otherwise, end = self.take_list(depth + 1, in_range)
            if end == "else":
                raise self.error(self.last_at, "expected end; found {{else}}")
        if not end:
            raise self.error(len(self.source), "unexpected EOF")
        del self.variables[known:]
        return Branch(kind, pipe, then, otherwise)

    def _take_pipe(self, tokens: list[Token], context: str) -> Pipe:
        variables, assign, tokens = self._take_declarations(tokens, context)
        calls: list[Call] = []
        for group in _split(tokens, "|"):
            call = self._take_call(_trim(group), context)
            if calls and isinstance(call.operands[0], Literal | Dot):
                raise self.error(
                    call.operands[0].at,
                    f"non executable command in pipeline stage {len(calls) + 1}",
                )
            calls.append(call)
        for name in variables:
            if not assign:
                self.variables.append(name)
        return Pipe(tokens[0].at if tokens else self.last_at, variables, assign, calls)

    def _take_declarations(self, tokens: list[Token], context: str) -> tuple[list[str], bool, list[Token]]:
        solid = [token for token in tokens if token.kind != "space"]
        names: list[str] = []
        at = 0
        while at < len(solid) and solid[at].kind == "variable":
            names.append(solid[at].text)
            following = solid[at + 1].kind if at + 1 < len(solid) else ""
            if following in (":=", "="):
                if len(names) > 1 and (context != "range" or len(names) > 2):
                    raise self.error(solid[at].at, f"too many declarations in {context}")
                if following == "=":
                    for name in names:
                        self._check_variable(name, solid[at].at)
                rest = tokens[tokens.index(solid[at + 1]) + 1 :]
                return names, following == "=", _trim(rest)
            if following != "," or context != "range":
                break
            at += 2
        return [], False, tokens

    def _check_variable(self, name: str, at: int) -> None:
        if name not in self.variables:
            raise self.error(at, f'undefined variable "{name}"')

    def _take_call(self, tokens: list[Token], context: str) -> Call:
        if not tokens:
            raise self.error(self.last_at, f"missing value for {context}")
        operands: list[Operand] = []
        at = 0
        while at < len(tokens):
            if tokens[at].kind == "space":
                at += 1
                continue
            operand, at = self._take_operand(tokens, at)
            operands.append(operand)
            if at < len(tokens) and tokens[at].kind not in ("space", "("):
                raise self.error(tokens[at].at, f"unexpected <{tokens[at].text}> in operand")
        return Call(operands)

    def _take_operand(self, tokens: list[Token], at: int) -> tuple[Operand, int]:
        token = tokens[at]
        operand: Operand
        if token.kind == "(":
            end = _closing(tokens, at)
            operand = self._take_pipe(_trim(tokens[at + 1 : end]), "parenthesized pipeline")
            at = end + 1
        else:
            operand = self._take_term(token)
            at += 1
        names = []
        chained_at = tokens[at].at if at < len(tokens) else 0
        while at < len(tokens) and tokens[at].kind == "field":
            names.append(tokens[at].text[1:])
            at += 1
        if not names:
            return operand, at
        if isinstance(operand, Field):
            return Field(chained_at, operand.names + names), at
        if isinstance(operand, Variable):
            return Variable(chained_at, operand.name, operand.names + names), at
        if isinstance(operand, Literal | Dot):
            raise self.error(chained_at, f'unexpected . after term "{operand.shown}"')
        return Chain(chained_at, operand, names), at

    def _take_term(self, token: Token) -> Operand:
        kind, text = token.kind, token.text
        if kind == "field":
            return Field(token.at, [text[1:]])
        if kind == "dot":
            return Dot(token.at)
        if kind == "variable":
            self._check_variable(text, token.at)
            return Variable(token.at, text, [])
        if kind == "string":
            return Literal(token.at, unquote(self.source, token), text)
        if kind == "char":
            return Literal(token.at, ord(unquote(self.source, token)), text)
        if kind == "bool":
            return Literal(token.at, text == "true", text)
        if kind == "number":
            return Literal(token.at, self._number(token), text)
        if kind == "keyword" and text == "nil":
            return Literal(token.at, None, text)
        if kind == "name":
            if text not in self.functions:
                raise self.error(token.at, f'function "{text}" not defined')
            return Function(token.at, text)
        raise self.error(
            token.at, f'unexpected "{text}" in operand' if kind != "keyword" else f"unexpected <{text}> in operand"
        )

    def _number(self, token: Token) -> int | float:
        try:
            return int(token.text, 0)
        except ValueError:
            pass
        try:
            return float(token.text)
        except ValueError:
            raise self.error(token.at, f'bad number syntax: "{token.text}"') from None


def _trim(tokens: list[Token]) -> list[Token]:
    start, end = 0, len(tokens)
    while start < end and tokens[start].kind == "space":
        start += 1
    while end > start and tokens[end - 1].kind == "space":
        end -= 1
    return tokens[start:end]


def _split(tokens: list[Token], mark: str) -> list[list[Token]]:
    groups: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.kind == "(") - (token.kind == ")")
        if token.kind == mark and not depth:
            groups.append([])
        else:
            groups[-1].append(token)
    return groups


def _closing(tokens: list[Token], at: int) -> int:
    depth = 0
    for number in range(at, len(tokens)):
        depth += (tokens[number].kind == "(") - (tokens[number].kind == ")")
        if not depth:
            return number
    raise AssertionError("the lexer has checked the parentheses")
