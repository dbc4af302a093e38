"""What a command is: its usage, flags, number of arguments and the function that runs it. Pure declarations.

Imported by every start of `tare`, so it imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tare.cli.session import Session


class Flag:
    """One flag. kind: see `flagkinds.KINDS`. check: called with each value's text, returns the value to keep."""

    __slots__ = ("about", "check", "default", "kind", "name", "short", "since")

    def __init__(
        self,
        name: str,
        short: str,
        kind: str,
        about: str,
        default: object = None,
        check: Callable[[str], object] | None = None,
        since: str = "",
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.about = about  # "" hides the flag from --help
        self.default = default
        self.check = check
        self.since = since  # the API version that brought it

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Command:
    """One command. least, most: how many arguments it takes (most None: any number)."""

    __slots__ = ("flags", "interspersed", "least", "most", "run", "usage")

    def __init__(
        self,
        usage: str,
        run: Callable[[Session, Values, list[str]], int],
        flags: tuple[Flag, ...] = (),
        least: int = 0,
        most: int | None = None,
        interspersed: bool = True,
    ) -> None:
        self.usage = usage
        self.run = run
        self.flags = flags
        self.least = least
        self.most = most
        self.interspersed = interspersed


class Values:
    """What the flags said: `values["name"]`; `values.given` has the names that were set by the user."""

    __slots__ = ("given", "values")

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.given: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def text(self, name: str) -> str:
        value = self.values[name]
        assert isinstance(value, str)
        return value

    def on(self, name: str) -> bool:
        return bool(self.values[name])

    def items(self, name: str) -> list[str]:
        value = self.values[name]
        assert isinstance(value, list)
        return value


class CliError(Exception):
    """Ends the command with a message on stderr and this exit code; `prefix`: say "tare: " before it, as run does."""

    def __init__(self, message: str, code: int = 1, prefix: bool = False) -> None:
        self.message = message
        self.code = code
        self.prefix = prefix
        super().__init__(message)


class UsageError(Exception):
    """The command line is wrong. `named`: a message that starts with "tare: " (argument counts) and exits with 1."""

    def __init__(self, message: str, named: bool = False, see: str = "Run") -> None:
        self.message = message
        self.named = named
        self.see = see
        super().__init__(message)


FORMAT_ABOUT = (
    "Show it in another form: 'table' (the default), 'table TEMPLATE' (a table with columns of your choice), 'json' "
    "(one JSON object a line) or a Go template"
)
FORMAT_TABLE = Flag("format", "", "string", FORMAT_ABOUT, "")
FORMAT_INSPECT = Flag("format", "f", "string", "Show it through a Go template, or as one line of JSON with 'json'", "")
FILTER = Flag("filter", "f", "filter", "Show only what matches (name=value)")
PRUNE_FILTER = Flag("filter", "", "filter", 'Remove only what matches (such as "until=24h")')
FORCE_PRUNE = Flag("force", "f", "bool", "Don't ask first")
NO_TRASH = Flag("no-trash", "", "bool", "Delete it for good: don't let it wait in the trash")
NO_TRUNC = Flag("no-trunc", "", "bool", "Show everything in full length")
DETACH_KEYS = Flag("detach-keys", "", "string", "Keys that detach from the container (default ctrl-p,ctrl-q)", "")
