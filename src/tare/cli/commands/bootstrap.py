"""`tare bootstrap`: makes an image of a distribution's packages, the same one each time."""

from __future__ import annotations

import os

from tare.cli.bootstrap import (
    PLATFORMS,
    Recipe,
    check_keyring,
    choose_program,
    default_mirror,
    host_architecture,
    parse_system,
    release_time,
    root_archive,
)
from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.progress import show_progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session

LABEL = "io.tare.bootstrap"


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    recipe = Recipe(*parse_system(arguments[0]))
    program = choose_program(flags.text("with"))
    recipe.architecture = flags.text("arch") or host_architecture()
    recipe.components = flags.text("components") or "main"
    recipe.include = [name for text in flags.items("include") for name in text.split(",") if name]
    recipe.insecure = flags.on("insecure")
    recipe.keyring = flags.text("keyring")
    recipe.mirror = (flags.text("mirror") or default_mirror(recipe.system)).rstrip("/")
    recipe.quiet = flags.on("quiet")
    recipe.variant = flags.text("variant") or "minbase"
    check_keyring(recipe)
    recipe.epoch = _epoch(recipe, flags.text("epoch"))
    recipe.cache = "" if flags.on("no-cache") else _cache(recipe, flags.text("cache"))
    name = arguments[1] if len(arguments) > 1 else arguments[0]
    if not recipe.quiet:
        session.err(f"{arguments[0]} ({recipe.variant}, {recipe.architecture}) from {recipe.mirror}")
    query: dict[str, str | list[str]] = {
        "fromSrc": "-",
        "repo": name,
        "created": str(recipe.epoch),
        "message": f"tare bootstrap {arguments[0]}",
        "changes": _changes(recipe, os.path.basename(program)),
    }
    if recipe.architecture in PLATFORMS:
        query["platform"] = PLATFORMS[recipe.architecture]
    headers = {"Content-Type": "text/plain"}
    response = session.engine.call("POST", "/images/create", query, root_archive(program, recipe), headers)
    show_progress(response.messages())
    return 0


def _epoch(recipe: Recipe, given: str) -> int:
    text = given or os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return release_time(recipe.mirror, recipe.suite)
    if not (text.isascii() and text.isdigit()):
        raise CliError(f"{text[:40]!r} is no time in seconds")
    return int(text)


def _cache(recipe: Recipe, given: str) -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = given or f"{home}/tare/bootstrap/{recipe.system}-{recipe.suite}-{recipe.architecture}"
    os.makedirs(path, exist_ok=True)
    return os.path.abspath(path)


def _changes(recipe: Recipe, program: str) -> list[str]:
    labels = {
        LABEL: f"{recipe.system}:{recipe.suite}",
        f"{LABEL}.architecture": recipe.architecture,
        f"{LABEL}.variant": recipe.variant,
        f"{LABEL}.program": program,
    }
    if recipe.include:
        labels[f"{LABEL}.include"] = " ".join(recipe.include)
    return ['CMD ["bash"]', *(f'LABEL {name}="{value}"' for name, value in labels.items())]


COMMAND = Command(
    "SYSTEM:SUITE [REPOSITORY[:TAG]]",
    run,
    (
        Flag("arch", "", "string", "Architecture, in dpkg's words (this machine's)", ""),
        Flag("cache", "", "string", "Directory in which packages are kept (below ~/.cache/tare)", ""),
        Flag("components", "", "string", 'Parts of the archive, with commas (default "main")', ""),
        Flag("epoch", "", "string", "Latest time in the image, in seconds (SOURCE_DATE_EPOCH, or the mirror's)", ""),
        Flag("include", "", "list", "Further packages, with commas"),
        Flag("insecure", "", "bool", "Take packages whose signature nobody checks"),
        Flag("keyring", "", "string", "File of the keys that the archive is signed with", ""),
        Flag("mirror", "", "string", "Address of the archive (as apt has it here, or the distribution's)", ""),
        Flag("no-cache", "", "bool", "Keep no packages"),
        Flag("quiet", "q", "bool", "Don't show how it goes"),
        Flag("variant", "", "string", 'Which packages, in the program\'s words (default "minbase")', ""),
        Flag("with", "", "string", "Program that does it: mmdebstrap or debootstrap (the first that is there)", ""),
    ),
    least=1,
    most=2,
)
