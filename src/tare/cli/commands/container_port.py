"""`tare port`: shows where a container's ports are published."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Values
from tare.cli.session import container_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def place_of(binding: dict[str, str]) -> str:
    address, port = binding.get("HostIp", ""), binding.get("HostPort", "")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def order_of(key: str) -> tuple[int, str]:
    number, _, protocol = key.partition("/")
    return int(number), protocol


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    found = session.engine.get(container_path(arguments[0], "json"))
    ports = {key: bindings for key, bindings in (found["NetworkSettings"].get("Ports") or {}).items() if bindings}
    if len(arguments) > 1:
        wanted = arguments[1]
        number, _, protocol = wanted.partition("/")
        bindings = ports.get(f"{number}/{protocol.lower() or 'tcp'}")
        if not bindings:
            raise CliError(f"Error: No public port '{wanted}' published for {arguments[0]}")
        for place in sorted(map(place_of, bindings)):
            session.out(place)
        return 0
    for key in sorted(ports, key=order_of):
        for place in sorted(map(place_of, ports[key])):
            session.out(f"{key} -> {place}")
    return 0


COMMAND = Command("CONTAINER [PRIVATE_PORT[/PROTO]]", run, least=1, most=2)
