"""`tare network create`: makes a network."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Flag, Values
from tare.cli.create.checks import check_label, pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.session import Session


def address_pools(flags: Values) -> list[dict[str, Any]]:
    """One pool per --subnet; ranges, gateways and auxiliary addresses go to the subnet that holds them."""
    subnets = flags.items("subnet")
    try:
        networks = [_network_of(text) for text in subnets]
        for number, network in enumerate(networks):
            if network and any(
                other and network.version == other.version and network.overlaps(other) for other in networks[:number]
            ):
                raise ValueError("multiple overlapping subnet configuration is not supported")
        if max(len(flags.items("ip-range")), len(flags.items("gateway"))) > len(subnets):
            raise ValueError("every ip-range or gateway must have a corresponding subnet")
        pools: list[dict[str, Any]] = [{"Subnet": text} for text in subnets]
        for flag, key, what in (("ip-range", "IPRange", "range"), ("gateway", "Gateway", "gateway")):
            for text in flags.items(flag):
                place = _pool_of(networks, text, f"no matching subnet for {what} {text}")
                if key in pools[place]:
                    link = "for" if flag == "gateway" else "on"
                    both = f"{text}, {pools[place][key]}"
                    raise ValueError(
                        f"cannot configure multiple {what}s ({both}) {link} the same subnet ({subnets[place]})"
                    )
                pools[place][key] = text
        for name, text in pairs(flags.items("aux-address")).items():
            place = _pool_of(networks, text, f"no matching subnet for aux-address {text}")
            pools[place].setdefault("AuxiliaryAddresses", {})[name] = text
    except ValueError as error:
        raise CliError(str(error)) from None
    return pools


def _network_of(text: str) -> Any:
    """None for what is no subnet: the engine's to refuse."""
    import ipaddress

    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _pool_of(networks: list[Any], text: str, failure: str) -> int:
    import ipaddress

    address = ipaddress.ip_address(text.partition("/")[0])
    for number, network in enumerate(networks):
        if network and address in network:
            return number
    raise ValueError(failure)


def run(session: Session, flags: Values, arguments: list[str]) -> int:
    source = flags.text("config-from")
    options = pairs(flags.items("opt"))
    if flags["egress"]:
        options["tare.network.egress"] = flags["egress"]
    body: dict[str, Any] = {
        "Name": arguments[0],
        "Driver": flags["driver"],
        "Scope": flags["scope"],
        "IPAM": {
            "Driver": flags["ipam-driver"],
            "Options": pairs(flags.items("ipam-opt")),
            "Config": address_pools(flags),
        },
        "Internal": flags["internal"],
        "Attachable": flags["attachable"],
        "Ingress": flags["ingress"],
        "ConfigOnly": flags["config-only"],
        "ConfigFrom": {"Network": source} if source else None,
        "Options": options,
        "Labels": pairs(flags.items("label")),
    }
    for flag, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if flag in flags.given:
            body[key] = flags[flag]
    session.out(session.engine.post("/networks/create", None, body)["Id"])
    return 0


COMMAND = Command(
    "NETWORK",
    run,
    (
        Flag("attachable", "", "bool", "Let containers be attached by hand"),
        Flag("aux-address", "", "map", "Addresses that the driver uses itself (name=address)"),
        Flag("config-from", "", "string", "Take the configuration of this network"),
        Flag("config-only", "", "bool", "Make a configuration that other networks can take"),
        Flag("driver", "d", "string", "Driver of the network", "bridge"),
        Flag("egress", "", "string", "What its containers may send to, as with run --egress (Tare only)"),
        Flag("gateway", "", "strings", "Gateway of a subnet"),
        Flag("ingress", "", "bool", "Make Swarm's routing mesh"),
        Flag("internal", "", "bool", "No way out to other networks"),
        Flag("ip-range", "", "strings", "Give containers addresses of this part of a subnet"),
        Flag("ipam-driver", "", "string", "Driver that manages addresses", "default"),
        Flag("ipam-opt", "", "map", "Options of that driver"),
        Flag("ipv4", "", "bool", "Give containers IPv4 addresses", True),
        Flag("ipv6", "", "bool", "Give containers IPv6 addresses"),
        Flag("label", "", "list", "Set a label", check=check_label),
        Flag("opt", "o", "map", "Options of the network's driver"),
        Flag("scope", "", "string", "Where the network is known"),
        Flag("subnet", "", "strings", "A subnet of the network (10.1.0.0/16)"),
    ),
    least=1,
    most=1,
)
