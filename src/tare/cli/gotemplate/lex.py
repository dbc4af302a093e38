"""Cuts a template into text and actions, and an action into tokens. Pure."""

from __future__ import annotations

from tare.cli.gotemplate.errors import TemplateError

BLANKS = " \t\r\n"
_SPECIALS = "(),|="
_KEYWORDS = frozenset("if else end range with define template block break continue nil".split())


class Token:
    """kind: field, name, variable, keyword, string, number, bool, dot, space, or the character itself."""

    __slots__ = ("at", "kind", "text")

    def __init__(self, kind: str, text: str, at: int) -> None:
        self.kind = kind
        self.text = text
        self.at = at


class Piece:
    """Literal text (`tokens` None) or one action."""

    __slots__ = ("at", "text", "tokens")

    def __init__(self, text: str, tokens: list[Token] | None, at: int) -> None:
        self.text = text
        self.tokens = tokens
        self.at = at


def line_of(source: str, at: int) -> int:
    return source.count("\n", 0, at) + 1


def parse_error(source: str, at: int, what: str) -> TemplateError:
    return TemplateError(f"template: :{line_of(source, at)}: {what}", parsing=True)


def split_pieces(source: str) -> list[Piece]:
    pieces: list[Piece] = []
    at = 0
    trim_next = False
    while True:
        start = source.find("{{", at)
        text = source[at:] if start < 0 else source[at:start]
        if trim_next:
            text = text.lstrip(BLANKS)
        trim_next = False
        if start >= 0 and source[start + 2 : start + 3] == "-" and source[start + 3 : start + 4] in tuple(BLANKS):
            text = text.rstrip(BLANKS)
            inner = start + 3
        else:
            inner = start + 2
        if text:
            pieces.append(Piece(text, None, at))
        if start < 0:
            return pieces
        body = source[inner:].lstrip(BLANKS)
        if body.startswith("/*"):
            at, trim_next = _skip_comment(source, inner)
            continue
        tokens, at, trim_next = _lex_action(source, inner)
        pieces.append(Piece("", tokens, start))


def _skip_comment(source: str, at: int) -> tuple[int, bool]:
    end = source.find("*/", at)
    if end < 0:
        raise parse_error(source, at, "unclosed comment")
    end += 2
    rest = source[end:]
    if rest.startswith("}}"):
        return end + 2, False
    if rest[:1] in BLANKS and rest.lstrip(BLANKS).startswith("-}}"):
        return source.index("-}}", end) + 3, True
    raise parse_error(source, at, "comment ends before closing delimiter")


def _lex_action(source: str, at: int) -> tuple[list[Token], int, bool]:
    tokens: list[Token] = []
    depth = 0
    while True:
        if at >= len(source):
            raise parse_error(source, at, "unclosed action")
        letter = source[at]
        if source.startswith("}}", at):
            if depth:
                raise parse_error(source, at, "unclosed left paren")
            return tokens, at + 2, False
        if letter in BLANKS:
            end = at
            while end < len(source) and source[end] in BLANKS:
                end += 1
            if source.startswith("-}}", end):
                if depth:
                    raise parse_error(source, at, "unclosed left paren")
                return tokens, end + 3, True
            tokens.append(Token("space", source[at:end], at))
            at = end
            continue
        token = _lex_token(source, at)
        depth += (token.kind == "(") - (token.kind == ")")
        if depth < 0:
            raise parse_error(source, at, "unexpected right paren")
        tokens.append(token)
        at += len(token.text)


def _lex_token(source: str, at: int) -> Token:
    letter = source[at]
    following = source[at + 1 : at + 2]
    if letter in _SPECIALS:
        return Token(letter, letter, at)
    if letter == ":":
        if following != "=":
            raise parse_error(source, at, "expected :=")
        return Token(":=", ":=", at)
    if letter in "\"`'":
        return _lex_quoted(source, at)
    if letter == "." and not following.isdigit():
        if _is_word(following):
            return Token("field", source[at : _word_end(source, at + 1)], at)
        return Token("dot", ".", at)
    if letter == "$":
        return Token("variable", source[at : _word_end(source, at + 1)], at)
    if letter.isdigit() or letter in "+-" or (letter == "." and following.isdigit()):
        end = at + 1
        while end < len(source) and (
            source[end].isalnum() or source[end] in "._" or source[end - 1 : end + 1] in ("e-", "e+")
        ):
            end += 1
        return Token("number", source[at:end], at)
    if _is_word(letter):
        word = source[at : _word_end(source, at)]
        kind = "keyword" if word in _KEYWORDS else "bool" if word in ("true", "false") else "name"
        return Token(kind, word, at)
    raise parse_error(source, at, f"unexpected {_shown(letter)} in command" if letter in "}{" else _bad(letter))


def _bad(letter: str) -> str:
    return f"unrecognized character in action: U+{ord(letter):04X} {_shown(letter)}"


def _shown(letter: str) -> str:
    return f"'{letter}'" if letter not in "}{" else f'"{letter}"'


def _is_word(letter: str) -> bool:
    return bool(letter) and (letter == "_" or letter.isalnum())


def _word_end(source: str, at: int) -> int:
    while at < len(source) and _is_word(source[at]):
        at += 1
    return at


def _lex_quoted(source: str, at: int) -> Token:
    mark = source[at]
    what = {
        '"': "unterminated quoted string",
        "`": "unterminated raw quoted string",
        "'": "unterminated character constant",
    }
    end = at + 1
    while True:
        if end >= len(source) or (source[end] == "\n" and mark != "`"):
            raise parse_error(source, at, what[mark])
        if source[end] == "\\" and mark != "`":
            end += 2
            continue
        if source[end] == mark:
            return Token("string" if mark != "'" else "char", source[at : end + 1], at)
        end += 1


_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "'": "'", '"': '"'}
_HEX_LENGTHS = {"x": 2, "u": 4, "U": 8}


def unquote(source: str, token: Token) -> str:
    """The value of a Go string or character literal."""
    inner = token.text[1:-1]
    if token.text[0] == "`" or "\\" not in inner:
        return inner
    parts = []
    at = 0
    while at < len(inner):
        letter = inner[at]
        at += 1
        if letter != "\\":
            parts.append(letter)
            continue
        kind = inner[at : at + 1]
        at += 1
        if kind in _ESCAPES:
            parts.append(_ESCAPES[kind])
            continue
        length = _HEX_LENGTHS.get(kind)
        digits = inner[at : at + length] if length else inner[at - 1 : at + 2]
        try:
            parts.append(chr(int(digits, 16 if length else 8)))
        except ValueError:
            raise parse_error(source, token.at, "invalid syntax") from None
        at += length if length else 2
    return "".join(parts)
