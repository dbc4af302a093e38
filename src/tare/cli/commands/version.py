"""`tare version`: the versions of client and engine."""

from __future__ import annotations

import os
import sys

import tare
from tare.cli.command import Command, Flag, Values
from tare.client.engine import WRITTEN_FOR, format_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def client_facts(api_version: str) -> dict[str, Any]:
    machine = os.uname().machine
    return {
        "Platform": {"Name": "Tare"},
        "Version": tare.__version__,
        "ApiVersion": api_version,
        "DefaultAPIVersion": format_version(WRITTEN_FOR),
        "PythonVersion": ".".join(map(str, sys.version_info[:3])),
        "Os": "linux",
        "Arch": ARCHITECTURES.get(machine, machine),
        "Context": "default",
    }


def run(session: Session, flags: Values, _arguments: list[str]) -> int:
    from tare.cli.session import describe
    from tare.client.errors import ClientError

    server: dict[str, Any] | None = None
    failure = ""
    try:
        server = readable_times(session.engine.get("/version"))
    except ClientError as error:
        failure = describe(error)
    client = client_facts(session.engine.version or format_version(WRITTEN_FOR))
    template = flags.text("format")
    if template:
        from tare.cli.templated import render_one

        session.out(render_one(template, {"Client": client, "Server": server}))
    else:
        session.out("\n".join(client_lines(client)))
        if server is not None:
            session.out("\n" + "\n".join(server_lines(server)))
    if failure:
        session.err(failure)
    return 1 if failure else 0


def readable_times(server: dict[str, Any]) -> dict[str, Any]:
    """Components' build times the way `date` prints them."""
    for component in server.get("Components") or []:
        details = component.get("Details") or {}
        if "T" in details.get("BuildTime", ""):
            details["BuildTime"] = format_ctime(details["BuildTime"])
    return server


def format_ctime(moment: str) -> str:
    import time

    from tare.cli.units import parse_rfc3339

    try:
        return time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(parse_rfc3339(moment)[0]))
    except ValueError:
        return moment


def _line(name: str, value: object, indent: int = 1, width: int = 18) -> str:
    return f"{' ' * indent}{(name + ':'):<{width}} {value}"


def client_lines(client: dict[str, Any]) -> list[str]:
    api = client["ApiVersion"]
    if api != client["DefaultAPIVersion"]:
        api += f" (downgraded from {client['DefaultAPIVersion']})"
    return [
        "Client: Tare",
        _line("Version", client["Version"]),
        _line("API version", api),
        _line("Python version", client["PythonVersion"]),
        _line("OS/Arch", f"{client['Os']}/{client['Arch']}"),
        _line("Context", client["Context"]),
    ]


# The engine's details, in the order that Docker shows them: label, key.
ENGINE_DETAILS = (
    ("Go version", "GoVersion"),
    ("Python version", "PythonVersion"),
    ("Git commit", "GitCommit"),
    ("Built", "BuildTime"),
)


def server_lines(server: dict[str, Any]) -> list[str]:
    platform = (server.get("Platform") or {}).get("Name", "")
    lines = [f"Server: {platform}".rstrip()]
    components = server.get("Components") or []
    if not components:
        components = [{"Name": "Engine", "Version": server.get("Version", ""), "Details": server}]
    for component in components:
        details = component.get("Details") or {}
        lines += [f" {component['Name']}:", _line("Version", component.get("Version", ""), 2, 17)]
        if component["Name"] == "Engine":
            lines += _engine_lines(details)
        else:
            lines += [_line(name, details[name], 2, 17) for name in sorted(details)]
    return lines


def _engine_lines(details: dict[str, Any]) -> list[str]:
    minimum = details.get("MinAPIVersion") or details.get("MinApiVersion", "")
    lines = [_line("API version", f"{details.get('ApiVersion', '')} (minimum version {minimum})", 2, 17)]
    lines += [_line(label, details[key], 2, 17) for label, key in ENGINE_DETAILS if details.get(key)]
    lines.append(_line("OS/Arch", f"{details.get('Os', '')}/{details.get('Arch', '')}", 2, 17))
    experimental = details.get("Experimental", "false")
    lines.append(_line("Experimental", str(experimental).lower(), 2, 17))
    return lines


COMMAND = Command("", run, (Flag("format", "f", "string", "Show it through a Go template, or 'json'", ""),), most=0)
