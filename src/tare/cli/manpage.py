"""Manual pages (man 7 man) of the commands, from the tables that also parse: they show what is accepted. Pure."""

from __future__ import annotations

from tare.cli.flagkinds import LIST_KINDS, PLACEHOLDERS
from tare.cli.main import GLOBAL_FLAGS, load
from tare.cli.tree import COMMANDS, GROUPS, names_of, summary_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tare.cli.command import Flag

EXIT_STATUS = (
    ("0", "It worked."),
    ("1", "It didn't; the reason is on standard error."),
    ("125", "An unknown flag or a bad value; for run: the engine refused."),
    ("126, 127", "run: the command can't be executed, doesn't exist."),
    ("128+n", "run, exec, start -a, attach: the container ended by signal n."),
    ("other", "run, exec, start -a, attach: the container's own."),
)
ENVIRONMENT = (
    ("TARE_HOST, DOCKER_HOST", "The engine's address: unix://, ssh:// or tcp://."),
    ("DOCKER_CONTEXT", "The context to use; an address that is set wins over it."),
    ("DOCKER_TLS_VERIFY, DOCKER_TLS", "If not empty, tcp:// addresses are spoken to with TLS, checked or not."),
    ("DOCKER_CERT_PATH", "Folder of ca.pem, cert.pem and key.pem."),
    ("TARE_CONFIG, DOCKER_CONFIG", "Folder of config.json and contexts (default ~/.docker)."),
    ("DOCKER_API_VERSION", "Speak this version of the API instead of agreeing on one."),
    ("TARE_AUTOSTART", "If 0, never start an engine."),
)


def escape(text: str) -> str:
    """Text as roff takes it: no control characters at the start of a line, dashes that can be copied."""
    text = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha")
    )
    return "\\&" + text if text.startswith(".") else text


def page_name(path: str) -> str:
    """`tare-container-run`"""
    return "-".join(["tare", *path.split()])


def page_names() -> list[str]:
    """All pages' paths: "" for tare itself, groups, commands."""
    return ["", *GROUPS, *COMMANDS]


def format_page(path: str, version: str) -> str:
    """The page of a command, a group, or of `tare` itself."""
    if not path:
        return _top_page(version)
    if path in GROUPS:
        return _group_page(path, version)
    command = load(path)
    lines = _head(path, version, summary_of(path))
    lines += [".SH SYNOPSIS", f".B tare {escape(path)}"]
    synopsis = ("[OPTIONS] " if any(flag.about for flag in command.flags) else "") + command.usage
    lines += [escape(synopsis)] if synopsis.strip() else []
    lines += [".SH DESCRIPTION", escape(summary_of(path) + ".")]
    names = names_of(path)
    if len(names) > 1:
        lines += [".PP", "Also: " + ", ".join(f"\\fBtare {escape(name)}\\fR" for name in names[1:]) + "."]
    if any(flag.about for flag in command.flags):
        lines += [".SH OPTIONS", *_flags(command.flags)]
    group = path.partition(" ")[0] if " " in path else ""
    lines += [".SH SEE ALSO", f".BR {escape(page_name(group))} (1)," if group else "", ".BR tare (1)"]
    return _join(lines)


def _head(path: str, version: str, about: str) -> list[str]:
    name = page_name(path)
    title = escape(name.upper())
    return [
        '.\\" Made from the command table by scripts/manpages.',
        f'.TH {title} 1 "" "Tare {escape(version)}" "Tare"',
        ".SH NAME",
        f"{escape(name)} \\- {escape(about[0].lower() + about[1:])}",
    ]


def _join(lines: Iterable[str]) -> str:
    return "\n".join(line for line in lines if line) + "\n"


def _flags(flags: Sequence[Flag]) -> list[str]:
    lines = []
    for flag in sorted(flags, key=lambda flag: flag.name):
        if not flag.about:
            continue
        kind = "" if flag.kind == "bool" else f" \\fI{escape(PLACEHOLDERS.get(flag.kind, flag.kind))}\\fR"
        short = f"\\fB\\-{flag.short}\\fR, " if flag.short else ""
        repeated = " May be given more than once." if flag.kind in LIST_KINDS else ""
        lines += [".TP", f"{short}\\fB\\-\\-{escape(flag.name)}\\fR{kind}", escape(flag.about + ".") + repeated]
    return lines


def _items(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [line for name, about in pairs for line in (".TP", f"\\fB{escape(name)}\\fR", escape(about))]


def _members(names: Iterable[str]) -> list[str]:
    return _items((f"{page_name(name)}(1)", (GROUPS.get(name) or summary_of(name)) + ".") for name in names)


def _group_page(path: str, version: str) -> str:
    lines = _head(path, version, GROUPS[path])
    lines += [".SH SYNOPSIS", f".B tare {escape(path)}", "COMMAND"]
    lines += [".SH COMMANDS", *_members(name for name in COMMANDS if name.startswith(path + " "))]
    return _join([*lines, ".SH SEE ALSO", ".BR tare (1)"])


def _top_page(version: str) -> str:
    lines = _head("", version, "A container engine that speaks Docker's language")
    lines += [".SH SYNOPSIS", ".B tare", "[OPTIONS] COMMAND"]
    lines += [".SH DESCRIPTION", "Drives a Tare engine, or any that speaks Docker\\(aqs API. Without an address,"]
    lines += ["the engine of this machine is meant; if none runs, it is started."]
    lines += [".SH OPTIONS", *_flags(GLOBAL_FLAGS)]
    single = [name for name in COMMANDS if " " not in name]
    lines += [".SH COMMANDS", *_members([*GROUPS, *single])]
    lines += [".SH EXIT STATUS", *_items(EXIT_STATUS), ".SH ENVIRONMENT", *_items(ENVIRONMENT)]
    return _join([*lines, ".SH SEE ALSO", ".BR tared (8)"])
