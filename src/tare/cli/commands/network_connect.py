"""`tare network connect`: connects a container to a network."""

from __future__ import annotations

from tare.cli.command import Command, Flag, Values
from tare.cli.create.checks import check_link, pairs
from tare.cli.create.networks import EMPTY_ENDPOINT
from tare.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    network, container = arguments
    config: dict[str, object] = {}
    if flags["ip"]:
        config["IPv4Address"] = flags["ip"]
    if flags["ip6"]:
        config["IPv6Address"] = flags["ip6"]
    if flags["link-local-ip"]:
        config["LinkLocalIPs"] = flags["link-local-ip"]
    endpoint = EMPTY_ENDPOINT | {
        "IPAMConfig": config or None,
        "Links": flags["link"] or None,
        "Aliases": flags["alias"],
        "DriverOpts": pairs(flags.items("driver-opt")),
        "GwPriority": flags["gw-priority"],
    }
    body = {"Container": container, "EndpointConfig": endpoint}
    session.engine.post(f"/networks/{quote(network)}/connect", None, body)
    return 0


COMMAND = Command(
    "NETWORK CONTAINER",
    run,
    (
        Flag("alias", "", "strings", "Name of the container in this network"),
        Flag("driver-opt", "", "strings", "Options of the network's driver"),
        Flag("gw-priority", "", "int", "The network with the highest gives the default gateway"),
        Flag("ip", "", "string", "IPv4 address (172.30.100.104)"),
        Flag("ip6", "", "string", "IPv6 address (2001:db8::33)"),
        Flag("link", "", "list", "Link to another container", check=check_link),
        Flag("link-local-ip", "", "strings", "Link-local address"),
    ),
    least=2,
    most=2,
)
