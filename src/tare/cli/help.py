"""--help, laid out as Docker's, from the tables that also parse: what it shows is what is accepted."""

from __future__ import annotations

from tare.cli.flagkinds import LIST_KINDS, PLACEHOLDERS
from tare.cli.tree import ALIASES, COMMANDS, COMMON, GROUPS, names_of, summary_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tare.cli.command import Flag

DEFAULT_WIDTH = 80


def terminal_width() -> int:
    import os

    try:
        return max(os.get_terminal_size(1).columns, 40)
    except OSError:
        return DEFAULT_WIDTH


def usage_line(path: str) -> str:
    """`tare run [OPTIONS] IMAGE [COMMAND] [ARG...]`"""
    from tare.cli.main import load

    if not path:
        return "tare [OPTIONS] COMMAND [ARG...]"
    if path in GROUPS:
        return f"tare {path} COMMAND"
    command = load(path)
    options = "[OPTIONS] " if any(flag.about for flag in command.flags) else ""
    return f"tare {path} {options}{command.usage}".rstrip()


def format_help(path: str) -> str:
    from tare.cli.main import GLOBAL_FLAGS, load

    if not path:
        return _top_help(GLOBAL_FLAGS)
    if path in GROUPS:
        return _group_help(path)
    command = load(path)
    lines = [f"Usage:  {usage_line(path)}", "", summary_of(path)]
    names = names_of(path)
    if len(names) > 1:
        lines += ["", "Aliases:", "  " + ", ".join(f"tare {name}" for name in names)]
    if any(flag.about for flag in command.flags):
        lines += ["", "Options:", *_flag_lines(command.flags)]
    return "\n".join(lines)


def _top_help(flags: Sequence[Flag]) -> str:
    lines = ["Usage:  tare [OPTIONS] COMMAND", "", "A container engine that speaks Docker's language"]
    lines += ["", "Common Commands:", *_columns((name, summary_of(name)) for name in COMMON)]
    lines += ["", "Management Commands:", *_columns(GROUPS.items())]
    single = sorted(name for name in (*COMMANDS, *ALIASES) if " " not in name and name not in COMMON)
    lines += ["", "Commands:", *_columns((name, summary_of(name)) for name in single)]
    lines += ["", "Global Options:", *_flag_lines(flags)]
    lines += ["", "Run 'tare COMMAND --help' for more information on a command."]
    return "\n".join(lines)


def _group_help(path: str) -> str:
    members = [(name.partition(" ")[2], about) for name, about in COMMANDS.items() if name.startswith(path + " ")]
    lines = [f"Usage:  tare {path} COMMAND", "", GROUPS[path], "", "Commands:", *_columns(members)]
    lines += ["", f"Run 'tare {path} COMMAND --help' for more information on a command."]
    return "\n".join(lines)


def _columns(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name:<11} {about}" for name, about in pairs]


def _flag_lines(flags: Sequence[Flag]) -> list[str]:
    shown = sorted((flag for flag in flags if flag.about), key=lambda flag: flag.name)
    heads = []
    for flag in shown:
        short = f"-{flag.short}, " if flag.short else "    "
        kind = "" if flag.kind == "bool" else " " + PLACEHOLDERS.get(flag.kind, flag.kind)
        heads.append(f"  {short}--{flag.name}{kind}")
    width = max(map(len, heads), default=0) + 3
    lines = []
    for head, flag in zip(heads, shown, strict=True):
        about = flag.about + _default_text(flag)
        for number, piece in enumerate(wrap(about, max(terminal_width() - width, 24))):
            lines.append((head if number == 0 else "").ljust(width) + piece)
    return lines


def _default_text(flag: Flag) -> str:
    if flag.kind in LIST_KINDS or flag.default in (None, "", False, 0) or "(default" in flag.about:
        return ""
    if flag.default is True:
        return " (default true)"
    return f' (default "{flag.default}")' if flag.kind == "string" else f" (default {flag.default})"


def wrap(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]
