"""What the user's config.json has for a command: aliases, default formats, detach keys, prune filters, headers.

Read only where there is such a file. Must never override what the command line says.
"""

from __future__ import annotations

from tare.cli.command import CliError
from tare.client.config_file import read_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.command import Values
    from tare.cli.session import Session

FORMATS = {
    "container ls": "psFormat",
    "image ls": "imagesFormat",
    "network ls": "networksFormat",
    "volume ls": "volumesFormat",
    "container stats": "statsFormat",
}
OURS = frozenset({"host", "user-agent", "content-length", "content-type", "transfer-encoding", "connection", "upgrade"})


def apply_config(session: Session, path: str, values: Values) -> None:
    """path: the command's canonical name."""
    config = read_config()
    wanted = config.get(FORMATS.get(path, ""))
    if isinstance(wanted, str) and wanted and not values["format"] and not values.values.get("quiet"):
        values.values["format"] = wanted
    keys = config.get("detachKeys")
    if isinstance(keys, str) and values.values.get("detach-keys") == "":
        values.values["detach-keys"] = keys
    if path.endswith(" prune"):
        values.values["filter"] = [*values.items("filter"), *prune_filters(config, values.items("filter"))]
    session.headers = headers(config)


def alias(name: str) -> list[str]:
    """What the user means by a command that isn't there: plugins.tare."alias.NAME", or aliases.NAME; [] for nothing.

    Docker's command line refuses a file with other `aliases` than `builder`, and passes over `plugins` of names it
    doesn't know. An alias of an alias is none. Raises CliError for quotes that don't end.
    """
    found = aliases().get(name)
    if found is None:
        return []
    from shlex import split

    try:
        return split(found)
    except ValueError as error:
        raise CliError(f"alias {name} in config.json: {error}".lower()) from None


def aliases() -> dict[str, str]:
    """All aliases of the file, whatever they mean."""
    config = read_config()
    plugins, found = config.get("plugins"), config.get("aliases")
    named = dict(found) if isinstance(found, dict) else {}
    ours = plugins.get("tare") if isinstance(plugins, dict) else None
    if isinstance(ours, dict):
        named |= {key.removeprefix("alias."): text for key, text in ours.items() if key.startswith("alias.")}
    return {name: text for name, text in named.items() if isinstance(text, str)}


def prune_filters(config: dict[str, Any], given: list[str]) -> list[str]:
    """Those of the file, but for labels about which the command line says the opposite."""
    found = []
    for text in config.get("pruneFilters") or []:
        name, _, value = text.partition("=") if isinstance(text, str) else ("", "", "")
        opposite = {"label": "label!", "label!": "label"}.get(name, "")
        if value and f"{opposite}={value}" not in given:
            found.append(text)
    return found


def headers(config: dict[str, Any]) -> dict[str, str]:
    """HttpHeaders, but for those that say what a request is, and what isn't one line of text."""
    wanted = config.get("HttpHeaders")
    if not isinstance(wanted, dict):
        return {}
    return {
        name: value
        for name, value in wanted.items()
        if isinstance(value, str)
        and name.lower() not in OURS
        and name.replace("-", "").replace("_", "").isalnum()
        and value.isprintable()
    }
