"""What inspect shows of an endpoint, as dockerd would. Real ipvlan links: tests/network/test_network_ipvlan.py."""

from __future__ import annotations

import pytest

from tare.engine.network_link import endpoint_state
from tare.network.records import EndpointRecord


@pytest.mark.parametrize(
    ("driver", "routed", "mac", "gateway"),
    [
        ("bridge", False, "02:42:0a:07:00:02", "10.7.0.1"),
        ("macvlan", False, "02:42:0a:07:00:02", "10.7.0.1"),
        ("ipvlan", False, "", "10.7.0.1"),
        ("ipvlan", True, "", ""),
    ],
)
def test_ipvlan_shows_no_mac_and_on_layer_3_no_gateway(driver: str, routed: bool, mac: str, gateway: str) -> None:
    record = EndpointRecord(
        container_id="c" * 64,
        endpoint_id="e" * 64,
        network="lan",
        network_id="n" * 64,
        ip="10.7.0.2",
        prefix=24,
        gateway="10.7.0.1",
        mac="02:42:0a:07:00:02",
        ip6="fd00:7::2",
        prefix6=64,
        gateway6="fd00:7::1",
        driver=driver,
        routed_by_parent=routed,
    )
    shown = endpoint_state(record)
    assert (shown.mac_address, shown.gateway) == (mac, gateway)
    assert shown.ipv6_gateway == ("" if routed else "fd00:7::1")
    assert (shown.ip_address, shown.ipv6_address) == ("10.7.0.2", "fd00:7::2")
