"""The syntax of Go's regular expressions (https://golang.org/s/re2syntax), as a tree. Pure.

Left out are classes of Unicode's properties (`\\pL`) and `\\C`: they are refused as wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tare.errors import InvalidArgument

REPEAT_MAX = 1000
DEPTH_MAX = 100
LENGTH_MAX = 4096
Test = Callable[[str], bool]


class Node(NamedTuple):
    """kind: char (test), assert (holds, of the letters before and after; "" at the ends), sequence, choice, repeat."""

    kind: str
    parts: tuple[Node, ...] = ()
    test: Test | None = None
    holds: Callable[[str, str], bool] | None = None
    least: int = 0
    most: int | None = None


class _Flags(NamedTuple):
    """i: letters' case is the same. s: a dot is a line's end, too. m: ^ and $ stand at lines' ends."""

    i: bool = False
    s: bool = False
    m: bool = False


def _is_word(letter: str) -> bool:
    return letter.isascii() and (letter.isalnum() or letter == "_")


def _is_digit(letter: str) -> bool:
    return letter.isascii() and letter.isdigit()


def _is_space(letter: str) -> bool:
    return letter in "\t\n\f\r "


_PERL: dict[str, Test] = {"d": _is_digit, "w": _is_word, "s": _is_space}
_POSIX: dict[str, Test] = {
    "alnum": lambda letter: letter.isascii() and letter.isalnum(),
    "alpha": lambda letter: letter.isascii() and letter.isalpha(),
    "ascii": lambda letter: letter.isascii(),
    "blank": lambda letter: letter in "\t ",
    "cntrl": lambda letter: letter < " " or letter == "\x7f",
    "digit": _is_digit,
    "graph": lambda letter: "!" <= letter <= "~",
    "lower": lambda letter: "a" <= letter <= "z",
    "print": lambda letter: " " <= letter <= "~",
    "punct": lambda letter: "!" <= letter <= "~" and not letter.isalnum(),
    "space": lambda letter: letter in "\t\n\v\f\r ",
    "upper": lambda letter: "A" <= letter <= "Z",
    "word": _is_word,
    "xdigit": lambda letter: letter in "0123456789abcdefABCDEF",
}
_ESCAPES = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _not(test: Test) -> Test:
    return lambda letter: not test(letter)


def _literal(wanted: str, flags: _Flags) -> Node:
    if flags.i:
        folded = wanted.casefold()
        return Node("char", test=lambda letter: letter.casefold() == folded)
    return Node("char", test=lambda letter: letter == wanted)


def _wrong(what: str) -> InvalidArgument:
    return InvalidArgument(f"error parsing regexp: {what}")


def parse(text: str) -> Node:
    """Raises InvalidArgument."""
    if len(text) > LENGTH_MAX:
        raise _wrong("expression too large")
    parser = _Parser(text)
    tree = parser.choice(_Flags(), 0)
    if parser.at < len(text):
        raise _wrong("unexpected ): `" + text + "`")
    return tree


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        letter = self.peek()
        if not letter:
            raise _wrong("unexpected end")
        self.at += 1
        return letter

    def takes(self, wanted: str) -> bool:
        if self.text.startswith(wanted, self.at):
            self.at += len(wanted)
            return True
        return False

    def choice(self, flags: _Flags, depth: int) -> Node:
        """Up to a closing parenthesis, or the end."""
        if depth > DEPTH_MAX:
            raise _wrong("expression nests too deeply")
        ways: list[Node] = []
        parts: list[Node] = []
        while (letter := self.peek()) not in ("", ")"):
            if letter == "|":
                self.at += 1
                ways.append(Node("sequence", tuple(parts)))
                parts = []
            elif self.takes("(?P<") or self.takes("(?<"):
                parts.append(self._named(flags, depth))
            elif self.takes("(?"):
                flags, inner = self._flagged(flags, depth)
                parts += [inner] if inner is not None else []
            else:
                parts += self._piece(flags, depth)
        ways.append(Node("sequence", tuple(parts)))
        return ways[0] if len(ways) == 1 else Node("choice", tuple(ways))

    def _flagged(self, flags: _Flags, depth: int) -> tuple[_Flags, Node | None]:
        """After `(?`: flags for the rest of the group, or a group of its own with or without flags."""
        values, on = flags._asdict(), True
        while (letter := self.take()) not in (":", ")"):
            if letter == "-" and on:
                on = False
            elif letter in values:
                values[letter] = on
            elif letter != "U":  # ungreedy: no difference here
                raise _wrong("invalid or unsupported Perl syntax: `(?" + letter + "`")
        if letter == ")":
            return _Flags(**values), None
        return flags, self._repeated(self._group(_Flags(**values), depth))

    def _group(self, flags: _Flags, depth: int) -> Node:
        inner = self.choice(flags, depth + 1)
        if not self.takes(")"):
            raise _wrong("missing closing ): `" + self.text + "`")
        return inner

    def _named(self, flags: _Flags, depth: int) -> Node:
        """After `(?P<` or `(?<`."""
        end = self.text.find(">", self.at)
        name = self.text[self.at : max(end, self.at)]
        if not name or not all(_is_word(letter) for letter in name):
            raise _wrong("invalid named capture: `" + self.text + "`")
        self.at = end + 1
        return self._repeated(self._group(flags, depth))

    def _piece(self, flags: _Flags, depth: int) -> list[Node]:
        """One or, for `\\Q…\\E`, several things with what repeats them."""
        if self.takes("\\Q"):
            end = self.text.find("\\E", self.at)
            quoted = self.text[self.at : end if end >= 0 else len(self.text)]
            self.at += len(quoted) + (2 if end >= 0 else 0)
            nodes = [_literal(letter, flags) for letter in quoted]
            return [*nodes[:-1], self._repeated(nodes[-1])] if nodes else []
        letter = self.take()
        if letter == "(":
            return [self._repeated(self._group(flags, depth))]
        return [self._repeated(self._single(letter, flags))]

    def _single(self, letter: str, flags: _Flags) -> Node:
        if letter in "*+?":
            raise _wrong("missing argument to repetition operator: `" + letter + "`")
        if letter == ".":
            return Node("char", test=(lambda _: True) if flags.s else (lambda found: found != "\n"))
        if letter == "^":
            lines = flags.m
            return Node("assert", holds=lambda before, _: before == "" or (lines and before == "\n"))
        if letter == "$":
            lines = flags.m
            return Node("assert", holds=lambda _, after: after == "" or (lines and after == "\n"))
        if letter == "[":
            return Node("char", test=self._class(flags))
        return self._escape(flags) if letter == "\\" else _literal(letter, flags)

    def _escape(self, flags: _Flags) -> Node:
        letter = self.peek()
        if letter and letter in "AzbB":
            self.at += 1
            return Node(
                "assert",
                holds={
                    "A": lambda before, _: before == "",
                    "z": lambda _, after: after == "",
                    "b": lambda before, after: _is_word_or_end(before) != _is_word_or_end(after),
                    "B": lambda before, after: _is_word_or_end(before) == _is_word_or_end(after),
                }[letter],
            )
        if letter and letter.lower() in _PERL:
            self.at += 1
            test = _PERL[letter.lower()]
            return Node("char", test=test if letter.islower() else _not(test))
        return _literal(self._escaped(), flags)

    def _escaped(self) -> str:
        """The letter that an escape stands for."""
        letter = self.take()
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        if letter == "x":
            return self._hexadecimal()
        if letter in "01234567":
            digits = letter
            while len(digits) < 3 and self.peek() and self.peek() in "01234567":
                digits += self.take()
            if letter != "0" and len(digits) < 2:
                raise _wrong("invalid escape sequence: `\\" + letter + "`")  # a back reference
            return chr(int(digits, 8))
        if letter.isascii() and letter.isalnum():
            raise _wrong("invalid escape sequence: `\\" + letter + "`")
        return letter

    def _hexadecimal(self) -> str:
        if self.takes("{"):
            end = self.text.find("}", self.at)
            digits = self.text[self.at : max(end, self.at)]
            self.at = end + 1
        else:
            digits = self.text[self.at : self.at + 2]
            self.at += 2
        value = int(digits, 16) if digits and all(d in "0123456789abcdefABCDEF" for d in digits) else -1
        if not 0 <= value <= 0x10FFFF or (len(digits) != 2 and self.text[self.at - 1] != "}"):
            raise _wrong("invalid escape sequence: `\\x" + digits + "`")
        return chr(value)

    def _class(self, flags: _Flags) -> Test:
        negated = self.takes("^")
        tests: list[Test] = []
        first = True
        while first or self.peek() != "]":
            first = False
            tests.append(self._class_part(flags))
        self.at += 1

        def has(letter: str) -> bool:
            return any(test(letter) for test in tests)

        if flags.i:
            return lambda letter: (has(letter.lower()) or has(letter.upper())) != negated
        return lambda letter: has(letter) != negated

    def _class_part(self, flags: _Flags) -> Test:
        if self.text.startswith("[:", self.at):
            end = self.text.find(":]", self.at)
            name = self.text[self.at + 2 : end] if end >= 0 else ""
            if end >= 0:
                if name.removeprefix("^") not in _POSIX:
                    raise _wrong("invalid character class range: `" + name + "`")
                self.at = end + 2
                test = _POSIX[name.removeprefix("^")]
                return _not(test) if name.startswith("^") else test
        low = self.take()
        if low == "\\":
            letter = self.peek()
            if letter and letter.lower() in _PERL:
                self.at += 1
                return _PERL[letter] if letter.islower() else _not(_PERL[letter.lower()])
            low = self._escaped()
        if not (self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", "")):
            return lambda letter: letter == low
        self.at += 1
        high = self.take()
        if high == "\\":
            high = self._escaped()
        if high < low:
            raise _wrong("invalid character class range: `" + low + "-" + high + "`")
        return lambda letter: low <= letter <= high

    def _repeated(self, node: Node) -> Node:
        """What stands behind a piece: * + ? {n} {n,} {n,m}, each maybe with the ? of the least greedy."""
        bounds = self._bounds()
        if bounds is None:
            return node
        self.takes("?")
        before = self.at
        if self._bounds() is not None:
            raise _wrong("invalid nested repetition operator: `" + self.text[before - 1 : self.at] + "`")
        return Node("repeat", (node,), least=bounds[0], most=bounds[1])

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.takes(sign):
                return bounds
        end = self.text.find("}", self.at)
        if self.peek() != "{" or end < 0:
            return None
        least, comma, most = self.text[self.at + 1 : end].partition(",")
        if not _is_number(least) or (most and not _is_number(most)):
            return None  # an ordinary brace
        found = int(least[:5]), (int(most[:5]) if most else None) if comma else int(least[:5])
        if max(found[0], found[1] or 0) > REPEAT_MAX or (found[1] is not None and found[1] < found[0]):
            raise _wrong("invalid repeat count: `" + self.text[self.at : end + 1] + "`")
        self.at = end + 1
        return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_word_or_end(letter: str) -> bool:
    return letter != "" and _is_word(letter)
