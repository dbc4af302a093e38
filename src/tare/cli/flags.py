"""Turns arguments into flag values, by a table, with the syntax and the error texts of Docker's command line.

Pure: no I/O, no knowledge of any command.
"""

from __future__ import annotations

from tare.cli.command import Flag, UsageError, Values
from tare.cli.flagkinds import LIST_KINDS, empty_value, parse_flag_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class HelpAsked(Exception):
    """--help was among the flags. `short`: as -h, which Docker has deprecated."""

    def __init__(self, short: bool = False) -> None:
        self.short = short
        super().__init__()


class _Parser:
    def __init__(self, flags: Sequence[Flag]) -> None:
        self.long = {flag.name: flag for flag in flags}
        self.short = {flag.short: flag for flag in flags if flag.short}
        self.values = Values({flag.name: empty_value(flag) for flag in flags})

    def set(self, flag: Flag, text: str) -> None:
        try:
            value = parse_flag_value(flag, text)
        except ValueError as error:
            raise UsageError(f'invalid argument "{text}" for "{flag.label}" flag: {error}') from None
        if flag.kind in LIST_KINDS:
            kept = self.values.values[flag.name]
            if flag.name not in self.values.given:
                kept = self.values.values[flag.name] = []  # the user's values replace a default
            if isinstance(value, list):
                kept.extend(value)
            else:
                kept.append(value)
        else:
            self.values.values[flag.name] = value
        self.values.given.add(flag.name)

    def take_long(self, argument: str, rest: list[str]) -> None:
        name, separator, text = argument[2:].partition("=")
        flag = self.long.get(name)
        if flag is None:
            if name == "help":
                raise HelpAsked
            if not name or name.startswith("-"):
                raise UsageError(f"bad flag syntax: {argument}")
            raise UsageError(f"unknown flag: --{name}")
        if separator:
            self.set(flag, text)
        elif flag.kind == "bool":
            self.set(flag, "true")
        elif rest:
            self.set(flag, rest.pop(0))
        else:
            raise UsageError(f"flag needs an argument: {argument}")

    def take_short(self, argument: str, rest: list[str]) -> None:
        cluster = argument[1:]
        while cluster:
            letter, cluster = cluster[0], cluster[1:]
            flag = self.short.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpAsked(short=True)
                raise UsageError(f"unknown shorthand flag: '{letter}' in -{letter}{cluster}")
            if len(cluster) > 1 and cluster[0] == "=":
                self.set(flag, cluster[1:])
                return
            if flag.kind == "bool":
                self.set(flag, "true")
            elif cluster:
                self.set(flag, cluster)
                return
            elif rest:
                self.set(flag, rest.pop(0))
            else:
                raise UsageError(f"flag needs an argument: '{letter}' in -{letter}")


def parse_flags(flags: Sequence[Flag], arguments: Sequence[str], interspersed: bool) -> tuple[Values, list[str]]:
    """The flags' values and the other arguments. With `interspersed` False, flags end at the first other argument."""
    parser = _Parser(flags)
    rest = list(arguments)
    others: list[str] = []
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return parser.values, others + rest
        if argument.startswith("--"):
            parser.take_long(argument, rest)
        elif argument.startswith("-") and len(argument) > 1:
            parser.take_short(argument, rest)
        elif interspersed:
            others.append(argument)
        else:
            return parser.values, [argument, *rest]
    return parser.values, others


def check_count(path: str, usage: str, least: int, most: int | None, arguments: Sequence[str]) -> None:
    """Docker's complaint about too few or too many arguments."""
    count = len(arguments)
    if count >= least and (most is None or count <= most):
        return
    see = "Run"
    if most == 0:
        wanted = "accepts no arguments"
    elif most is None:
        wanted = f"requires at least {least} {_plural(least)}"
        see = "See"
    elif least == most:
        wanted = f"requires {least} {_plural(least)}"
    elif least == 0:
        wanted = f"requires at most {most} {_plural(most)}"
        see = "See"
    else:
        wanted = f"requires at least {least} and at most {most} {_plural(most)}"
    raise UsageError(f"'tare {path}' {wanted}", named=True, see=see)


def _plural(count: int) -> str:
    return "argument" if count == 1 else "arguments"
