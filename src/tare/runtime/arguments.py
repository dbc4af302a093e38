"""Parses tare-runtime's command line as runc's callers write it: `-b x`, `--bundle x`, `--bundle=x`, `-bundle x`."""

from __future__ import annotations

from tare.errors import InvalidArgument


class Arguments:
    """Parsed options by their long names, and what is left."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self.rest: list[str] = []

    def get(self, name: str, default: str = "") -> str:
        """The last value of an option."""
        return self.values[name][-1] if name in self.values else default

    def has(self, name: str) -> bool:
        """Whether a switch was given (and not as `=false`)."""
        return name in self.values and self.values[name][-1] != "false"

    def all(self, name: str) -> list[str]:
        """All values of an option that may be repeated."""
        return self.values.get(name, [])

    def container_id(self) -> str:
        """The first word, which all verbs but `list`, `spec` and `features` need."""
        if not self.rest:
            raise InvalidArgument("a container ID is required")
        return self.rest[0]

    def only_container_id(self) -> str:
        """The one word of a verb that takes no other: options behind it would be passed over without a word."""
        if len(self.rest) != 1:
            raise InvalidArgument("exactly 1 argument is required: the container ID")
        return self.rest[0]


def parse_arguments(words: list[str], options: dict[str, bool], short: dict[str, str]) -> Arguments:
    """Parses options up to the first word that is none. options: long name → whether it takes a value.

    short: one-letter names → long ones.
    """
    parsed = Arguments()
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            position += 1
            break
        if not word.startswith("-") or word == "-":
            break
        name, equals, value = word.lstrip("-").partition("=")
        name = short.get(name, name)
        if name not in options:
            raise InvalidArgument(f"flag provided but not defined: {word}")
        if options[name] and not equals:
            position += 1
            if position >= len(words):
                raise InvalidArgument(f"flag needs an argument: {word}")
            value = words[position]
        elif not options[name]:
            value = value if equals else "true"
        parsed.values.setdefault(name, []).append(value)
        position += 1
    parsed.rest = words[position:]
    return parsed
