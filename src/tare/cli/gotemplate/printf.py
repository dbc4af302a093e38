"""printf as Go's fmt has it: the verbs that make sense for strings, numbers, truth values and lists. Pure."""

from __future__ import annotations

from tare.cli.gotemplate.values import format_value
from tare.cli.units import go_quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_WIDTH = 1_000_000


def format_printf(pattern: str, *values: Any) -> str:
    out = []
    rest = list(values)
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter != "%":
            out.append(letter)
            continue
        end = at
        while end < len(pattern) and pattern[end] in "+-# 0123456789.*":
            end += 1
        spec, verb = pattern[at:end], pattern[end : end + 1]
        at = end + 1
        if verb == "%":
            out.append("%")
            continue
        if not verb:
            out.append("%!(NOVERB)")
            continue
        while "*" in spec:
            number = rest.pop(0) if rest else 0
            spec = spec.replace("*", str(number), 1)
        if not rest:
            out.append(f"%!{verb}(MISSING)")
            continue
        out.append(_format_one(spec, verb, rest.pop(0)))
    if rest:
        from tare.cli.gotemplate.functions import type_name

        out.append("%!(EXTRA " + ", ".join(f"{type_name(value)}={format_value(value)}" for value in rest) + ")")
    return "".join(out)


def _format_one(spec: str, verb: str, value: Any) -> str:
    flags = spec[: len(spec) - len(spec.lstrip("+-# 0"))]
    width_text, dot, precision_text = spec[len(flags) :].partition(".")
    width = min(int(width_text or 0), MAX_WIDTH)
    precision = min(int(precision_text or 0), MAX_WIDTH) if dot else None
    text = _convert(verb, value, precision, flags)
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and isinstance(value, int | float) and not isinstance(value, bool):
        sign = text[:1] if text[:1] in ("+", "-") else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _convert(verb: str, value: Any, precision: int | None, flags: str) -> str:
    if isinstance(value, list | tuple) and verb not in "vT":
        return "[" + " ".join(_convert(verb, item, precision, flags) for item in value) + "]"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if verb == "v":
        text = format_value(value)
        return ("+" + text) if "+" in flags and number and value >= 0 else text
    if verb == "s" and not number and not isinstance(value, bool):
        text = format_value(value)
        return text if precision is None else text[:precision]
    if verb == "q" and isinstance(value, str):
        return go_quote(value if precision is None else value[:precision])
    if verb == "t" and isinstance(value, bool):
        return "true" if value else "false"
    if verb == "T":
        from tare.cli.gotemplate.functions import type_name

        return type_name(value)
    if verb in "xX" and isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").hex() if verb == "x" else value.encode().hex().upper()
    if number:
        found = _number(verb, value, precision, flags)
        if found is not None:
            return found
    from tare.cli.gotemplate.functions import type_name

    return f"%!{verb}({type_name(value)}={format_value(value)})"


def _number(verb: str, value: int | float, precision: int | None, flags: str) -> str | None:
    sign = "+" if "+" in flags else " " if " " in flags else ""
    if isinstance(value, int):
        if verb in "dxXob":
            prefix = "#" if "#" in flags and verb != "d" else ""
            return f"{value:{sign}{prefix}{verb}}"
        if verb == "c":
            return chr(value)
        if verb == "q":
            return f"'{chr(value)}'"
        if verb == "U":
            return f"U+{value:04X}"
        return None
    if verb in "feEgG":
        digits = 6 if precision is None and verb in "feE" else precision
        if digits is None:
            return (sign if value >= 0 else "") + format_value(value)
        return f"{value:{sign}.{digits}{verb}}"
    if verb == "F":
        return f"{value:{sign}.{6 if precision is None else precision}f}"
    return None
