"""Entry of `tare`: global flags, which command, exit code.

Every start passes here, so it imports only what any command needs: no argparse, json, re, socket, enum.
"""

from __future__ import annotations

import os
import sys

from tare.cli.command import CliError, Command, Flag, UsageError, Values
from tare.cli.flags import HelpAsked, check_count, parse_flags
from tare.cli.session import Session, describe, shown
from tare.cli.tree import ABSENT, ALIASES, COMMANDS, GROUPS, module_of
from tare.client.config_file import config_directory
from tare.client.errors import ClientError

GLOBAL_FLAGS = (
    Flag("config", "", "string", "Where the client's own settings are"),
    Flag("context", "c", "string", "Name of the context to use: a named address (overrides DOCKER_HOST)"),
    Flag("debug", "D", "bool", "Show where an unexpected error came from"),
    Flag("host", "H", "list", "The engine's address: unix:///path, ssh://user@host or tcp://host:port"),
    Flag("log-level", "l", "string", "Accepted for compatibility; tare keeps no log", "info"),
    Flag("tls", "", "bool", "Use TLS; implied by --tlsverify"),
    Flag("tlscacert", "", "string", "Trust certificates signed only by this authority (default ~/.docker/ca.pem)"),
    Flag("tlscert", "", "string", "TLS certificate file (default ~/.docker/cert.pem)"),
    Flag("tlskey", "", "string", "TLS key file (default ~/.docker/key.pem)"),
    Flag("tlsverify", "", "bool", "Use TLS and verify the engine"),
    Flag("version", "v", "bool", "Print the version and quit"),
)
EXIT_USAGE = 125
TLS_FLAGS = ("tls", "tlsverify", "tlscacert", "tlscert", "tlskey")  # as TlsWish has them


def load(path: str) -> Command:
    module = __import__(module_of(path), fromlist=["COMMAND"])
    command: Command = module.COMMAND
    return command


def split_path(arguments: list[str]) -> tuple[str, list[str]]:
    """The command's path and its arguments; the path may name a group, or be unknown."""
    first, rest = arguments[0], arguments[1:]
    if first in GROUPS and rest and not rest[0].startswith("-"):
        return f"{first} {rest[0]}", rest[1:]
    return first, rest


def is_command(path: str) -> bool:
    return path in GROUPS or path in COMMANDS or path in ALIASES


def unaliased(path: str, rest: list[str]) -> list[str]:
    """The words that config.json has for a word that is no command; the words themselves where it has none."""
    words = [*path.split(" "), *rest]
    if not os.path.exists(os.path.join(config_directory(), "config.json")):
        return words
    from tare.cli.configured import alias

    meant = alias(words[0])
    return [*meant, *words[1:]] if meant and is_command(split_path(meant)[0]) else words


def use_config(globals_: Values) -> None:
    """What --config says holds for all that looks for the directory."""
    if globals_["config"]:
        os.environ.pop("TARE_CONFIG", None)
        os.environ["DOCKER_CONFIG"] = globals_.text("config")


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    path = ""
    try:
        globals_, rest = parse_flags(GLOBAL_FLAGS, arguments, interspersed=False)
        use_config(globals_)
        if globals_.on("version"):
            import tare

            print(f"Tare version {tare.__version__}")
            return 0
        if rest and rest[0] == "help":
            raise_help_for(rest[1:])
        if not rest:
            return show_help("", sys.stderr)
        if rest[0] == "__complete":
            return print_completion(rest[1:])
        path, rest = split_path(rest)
        if not is_command(path):
            path, rest = split_path(unaliased(path, rest))
        if path in GROUPS:
            return run_group(path, rest)
        if not is_command(path):
            return unknown_command(path)
        session = make_session(globals_)
        session.path = path
        command = load(path)
        values, others = parse_flags(command.flags, rest, command.interspersed)
        check_count(path, command.usage, command.least, command.most, others)
        if os.path.exists(os.path.join(config_directory(), "config.json")):
            from tare.cli.configured import apply_config

            apply_config(session, ALIASES.get(path, path), values)
        return command.run(session, values, others)
    except HelpAsked as asked:
        if asked.args:
            path = str(asked.args[0])
        if asked.short:
            print("Flag shorthand -h has been deprecated, use --help")
        return show_help(path, sys.stdout)
    except UsageError as error:
        return usage_error(path, error)
    except CliError as error:
        return cli_error(path, error)
    except ClientError as error:
        sys.stdout.flush()
        sys.stderr.write(shown(describe(error), sys.stderr) + "\n")
        return 1


def make_session(values: Values) -> Session:
    tls = None
    if not values.given.isdisjoint(TLS_FLAGS):
        from tare.client.endpoint import TlsWish

        tls = TlsWish(*(values[name] if name in values.given else None for name in TLS_FLAGS))
    return Session(values.items("host")[-1] if values.items("host") else None, values["context"] or None, tls)


def print_completion(arguments: list[str]) -> int:
    """For the scripts of `tare completion`: `--line LINE`, or `-- WORD…`."""
    from tare.cli.completion import complete, split_line

    words = split_line(arguments[1]) if arguments[:1] == ["--line"] and len(arguments) > 1 else arguments[1:]
    sys.stdout.write(complete(words))
    return 0


def raise_help_for(words: list[str]) -> None:
    asked = HelpAsked()
    asked.args = (" ".join(words),)
    path = " ".join(words)
    if path and path not in GROUPS and path not in COMMANDS and path not in ALIASES:
        raise CliError(f"unknown help topic: {path}")
    raise asked


def run_group(path: str, rest: list[str]) -> int:
    if not rest:
        return show_help(path, sys.stderr)
    parse_flags((), rest, interspersed=False)
    return show_help(path, sys.stderr)


def unknown_command(path: str) -> int:
    if path in ABSENT or path.partition(" ")[0] in ABSENT:
        sys.stderr.write(f"tare: '{path}' is not implemented yet\n")
        return 1
    group, _, name = path.partition(" ")
    usage = f"\nUsage:  tare {group}\n" if name else ""
    hint = f"tare {group} --help" if name else "tare --help"
    sys.stderr.write(f"tare: unknown command: tare {path}\n{usage}\nRun '{hint}' for more information\n")
    return 1


def usage_error(path: str, error: UsageError) -> int:
    from tare.cli.help import usage_line

    named = f"tare {path}".rstrip()
    prefix = "tare: " if error.named else ""
    sys.stderr.write(
        f"{prefix}{error.message}\n\nUsage:  {usage_line(path)}\n\n{error.see} '{named} --help' for more information\n"
    )
    return 1 if error.named else EXIT_USAGE


def cli_error(path: str, error: CliError) -> int:
    sys.stdout.flush()
    if error.message:
        text = error.message
        if error.prefix:
            text = f"tare: {text}\n\nRun 'tare {path} --help' for more information"
        sys.stderr.write(shown(text, sys.stderr) + "\n")
    return error.code


def show_help(path: str, stream: object) -> int:
    from tare.cli.help import format_help

    print(format_help(path), file=stream)  # type: ignore[call-overload]
    return 0


def main() -> None:
    """The console entry. Leaves by `os._exit`: nothing here needs Python's tidying up, which takes a millisecond."""
    import _signal  # type: ignore[import-not-found]

    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    code = 1
    try:
        code = run(sys.argv[1:])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException as error:
        sys.stdout.flush()
        if "-D" in sys.argv or "--debug" in sys.argv:
            import traceback

            traceback.print_exc()
        else:
            sys.stderr.write(f"tare: {type(error).__name__}: {error}\n")
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
