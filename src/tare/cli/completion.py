"""What can stand at the cursor of a command line, for shells to offer: from the command table, names from the engine.

Answers a line that says what else may be offered (`:none`, `:files`, `:nospace`), then `value<TAB>description` lines.
Must never start an engine, ask anything, or print an error: it runs at each press of a key.
"""

from __future__ import annotations

import os

from tare.cli.command import Flag
from tare.cli.tree import ALIASES, COMMANDS, GROUPS, summary_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tare.cli.session import Session

    Offers = list[tuple[str, str]]

NONE, FILES, NOSPACE = ":none", ":files", ":nospace"
SHELLS = ("bash", "fish", "zsh")
# A word of a usage line → what stands there. Words that aren't here are the user's own, or files.
PLACES = {
    "CONTAINER": "containers",
    "CONTAINER:SOURCE": "container_paths",
    "A": "containers",
    "B": "containers",
    "IMAGE": "images",
    "SOURCE_IMAGE[:TAG]": "images",
    "NAME[:TAG|@DIGEST]": "images",
    "NAME[:TAG]": "images",
    "REPOSITORY[:TAG]": "images",
    "NETWORK": "networks",
    "VOLUME": "volumes",
    "REMOVED": "removed",
    "CONTEXT": "contexts",
    "NAME|ID": "things",
    "SHELL": "shells",
}
NEW_NAMES = frozenset({"container rename", "context create", "context import", "network create", "volume create"})
FLAG_PLACES = {
    "context": "contexts",
    "from": "contexts",
    "network": "networks",
    "net": "networks",
    "volumes-from": "containers",
    "link": "containers",
    "container": "containers",
}
FLAG_WORDS = {
    "kind": ("container", "image", "volume"),
    "restart": ("no", "always", "on-failure", "unless-stopped"),
    "pull": ("always", "missing", "never"),
    "log-driver": ("json-file", "local", "none", "syslog", "journald", "gelf", "fluentd"),
    "log-level": ("debug", "info", "warn", "error", "fatal"),
    "ipc": ("host", "none", "private", "shareable"),
    "pid": ("host",),
    "uts": ("host",),
    "cgroupns": ("host", "private"),
    "userns": ("host", "private"),
    "attach": ("stdin", "stdout", "stderr"),
    "format": ("json", "table"),
    "signal": ("SIGTERM", "SIGKILL", "SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2"),
    "cap-add": ("ALL",),
    "cap-drop": ("ALL",),
}
FILE_FLAGS = frozenset(
    {
        "config",
        "env-file",
        "label-file",
        "cidfile",
        "input",
        "output",
        "tlscacert",
        "tlscert",
        "tlskey",
        "volume",
        "mount",
    }
)
HELP = Flag("help", "", "bool", "Show what the command does and takes")
RUNNING = frozenset(f"container {verb}" for verb in ("attach", "exec", "kill", "pause", "stop", "top", "unpause"))
STOPPED = frozenset({"container start"})


def complete(words: Sequence[str]) -> str:
    """The answer for a line's words without the program's name; the last one is what is being typed, maybe ""."""
    from tare.cli.command import Values
    from tare.cli.flags import parse_flags
    from tare.cli.main import GLOBAL_FLAGS, load, make_session, use_config

    os.environ["TARE_AUTOSTART"] = "0"
    before, current = list(words[:-1]), words[-1] if words else ""
    globals_given, rest = split_flags(GLOBAL_FLAGS, before)
    if rest is None:
        return flag_value(GLOBAL_FLAGS, before[-1], current, lambda: make_session(Values({})))
    use_config(parse_flags(GLOBAL_FLAGS, globals_given, interspersed=False)[0])
    if not rest:
        return answer((*GLOBAL_FLAGS, HELP), current, sorted([*top_level(), *aliases_offered()]))
    path, *arguments = without_alias(rest)
    if path in GROUPS:
        if not arguments:
            return answer((), current, members(path))
        path, arguments = f"{path} {arguments[0]}", arguments[1:]
    if path == "help":
        return answer((), current, top_level())
    if path not in COMMANDS and path not in ALIASES:
        return f"{FILES}\n"
    path = ALIASES.get(path, path)
    command = load(path)

    def session() -> Session:
        return make_session(parse_flags(GLOBAL_FLAGS, globals_given, interspersed=False)[0])

    _, others = split_flags(command.flags, arguments, command.interspersed)
    if others is None:
        return flag_value(command.flags, arguments[-1], current, session)
    if current.startswith("--") and "=" in current:
        name, _, value = current.partition("=")
        return flag_value(command.flags, name, value, session, name + "=")
    started = bool(others) and not command.interspersed
    place = place_of(path, command.usage, len(others))
    if current.startswith("-") and not started:
        return answer((*command.flags, HELP), current, [])
    if place == "container_paths":
        offers = [offer for offer in find_offers(place, session, path) if offer[0].startswith(current)]
        return answer((), current, offers, NOSPACE if offers else FILES)
    if place:
        return answer((), current, find_offers(place, session, path))
    return f"{FILES}\n" if command.usage else f"{NONE}\n"


def split_flags(
    flags: Sequence[Flag], words: list[str], interspersed: bool = False
) -> tuple[list[str], list[str] | None]:
    """(flags with their values, other words); None instead of the others: the last word is a flag without its value."""
    long = {flag.name: flag for flag in flags}
    short = {flag.short: flag for flag in flags if flag.short}
    rest, taken, others = list(words), list[str](), list[str]()
    while rest:
        word = rest.pop(0)
        if word == "--":
            return taken, others + rest
        if not word.startswith("-") or word == "-":
            others.append(word)
            if not interspersed:
                return taken, others + rest
            continue
        taken.append(word)
        flag = long.get(word[2:]) if word.startswith("--") else short.get(word[-1])
        if flag is not None and flag.kind != "bool" and "=" not in word:
            if not rest:
                return taken, None
            taken.append(rest.pop(0))
    return taken, others


def flag_value(flags: Sequence[Flag], word: str, current: str, session: Callable[[], Session], stem: str = "") -> str:
    """What can follow a flag. stem: `--name=`, which stands in the same word."""
    if word.startswith("--"):
        found = [flag for flag in flags if word == f"--{flag.name}"]
    else:
        found = [flag for flag in flags if word[-1:] == flag.short]
    name = found[0].name if found else ""
    if name in FLAG_WORDS:
        offers = [(value, "") for value in FLAG_WORDS[name]]
    elif name in FLAG_PLACES:
        offers = find_offers(FLAG_PLACES[name], session, "")
    else:
        return f"{FILES if name in FILE_FLAGS or not name else NONE}\n"
    return answer((), stem + current, [(stem + value, about) for value, about in offers])


def place_of(path: str, usage: str, number: int) -> str:
    """What the argument number `number` is, by the command's usage line."""
    if path in NEW_NAMES and number == (1 if path == "container rename" else 0):
        return ""
    words = usage.split()
    repeated = words[-1].rstrip("]").endswith("...") if words else False
    plain = [word.removesuffix("...]").removeprefix("[").removesuffix("...") for word in words]
    names = [word if word in PLACES else word.removesuffix("]") for word in plain if word not in ("|", "or")]
    if path == "container cp":
        return "container_paths" if number < 2 else ""
    if number < len(names):
        return PLACES.get(names[number], "")
    return PLACES.get(names[-1], "") if repeated and names else ""


def answer(flags: Sequence[Flag], current: str, offers: Offers, mode: str = NONE) -> str:
    """The lines that begin with what has been typed."""
    if current.startswith("-") and flags:
        offers = [(f"--{flag.name}", flag.about) for flag in flags if flag.about]
    lines = [f"{value}\t{about}" if about else value for value, about in offers if value.startswith(current)]
    return "\n".join([mode, *lines, ""])


def top_level() -> Offers:
    single = [name for name in (*COMMANDS, *ALIASES) if " " not in name]
    return sorted([*GROUPS.items(), *((name, summary_of(name)) for name in single)])


def without_alias(words: list[str]) -> list[str]:
    """A line's words with those that config.json has for the first one."""
    from tare.cli.command import CliError
    from tare.cli.main import is_command, unaliased
    from tare.client.errors import ClientError

    try:
        return words if is_command(words[0]) else unaliased(words[0], words[1:])
    except (CliError, ClientError, OSError):
        return words


def aliases_offered() -> Offers:
    """The aliases of config.json that mean a command."""
    from tare.cli.configured import aliases
    from tare.cli.main import is_command
    from tare.client.errors import ClientError

    try:
        return [
            (name, text) for name, text in aliases().items() if not is_command(name) and without_alias([name]) != [name]
        ]
    except (ClientError, OSError):
        return []


def members(group: str) -> Offers:
    names = [name for name in (*COMMANDS, *ALIASES) if name.startswith(group + " ")]
    return [(name.partition(" ")[2], summary_of(name)) for name in names]


def find_offers(place: str, session: Callable[[], Session], path: str) -> Offers:
    """Names of things; none if the engine can't be asked."""
    from tare.client.errors import ClientError

    if place == "shells":
        return [(shell, "") for shell in SHELLS]
    try:
        if place == "contexts":
            from tare.client.contexts import list_contexts

            return [("default", ""), *((context.name, context.description) for context in list_contexts())]
        if place == "things":
            return [offer for each in ("containers", "images", "volumes", "networks") for offer in ask(each, session())]
        return ask(place, session(), path)
    except (ClientError, OSError, ValueError, KeyError, TypeError):
        return []


def ask(place: str, session: Session, path: str = "") -> Offers:
    """Asks the engine."""
    engine = session.engine
    if place in ("containers", "container_paths"):
        query: dict[str, str | list[str]] = {} if path in RUNNING else {"all": "1"}
        found = engine.get("/containers/json", query)
        if path in STOPPED:
            found = [item for item in found if item["State"] != "running"]
        end = ":" if place == "container_paths" else ""
        return [(item["Names"][0].lstrip("/") + end, f"{item['Image']}, {item['Status']}") for item in found]
    if place == "images":
        tags = [tag for item in engine.get("/images/json") for tag in item.get("RepoTags") or ()]
        return [(tag.removesuffix(":latest"), "") for tag in tags if tag != "<none>:<none>"]
    if place == "networks":
        return [(item["Name"], item["Driver"]) for item in engine.get("/networks")]
    if place == "removed":
        return [(name, item["Kind"]) for item in engine.get("/tare/trash") for name in item["Names"]]
    return [(item["Name"], item["Driver"]) for item in engine.get("/volumes").get("Volumes") or ()]


def split_line(line: str) -> list[str]:
    """A line's words as a shell would have them, the last one as far as it is typed; without the program's name."""
    words, word, quote, began = [], "", "", False
    at = 0
    while at < len(line):
        letter = line[at]
        at += 1
        if letter == "\\" and quote != "'" and at < len(line):
            word, began = word + line[at], True
            at += 1
        elif quote:
            quote, word = ("", word) if letter == quote else (quote, word + letter)
        elif letter in "'\"":
            quote, began = letter, True
        elif letter in " \t\n":
            if began:
                words.append(word)
            word, began = "", False
        else:
            word, began = word + letter, True
    return [*words, word][1:]
