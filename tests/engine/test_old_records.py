"""Containers that an earlier engine stored are read as they were meant."""

from __future__ import annotations

import msgspec

from tare.engine.network_link import endpoint_requests
from tare.engine.records import Container

OLD = """{"id": "%s", "name": "web", "created_ns": 1, "image_id": "sha256:0", "layers": [], "path": "sh", "args": [],
"config": {"image": "box"}, "host": {"network_mode": "default"}, "state": {"status": "running", "pid": 7},
"endpoint": {"network": "bridge", "network_id": "n1", "endpoint_id": "e1", "ip_address": "10.0.0.2",
"prefix_length": 24, "gateway": "10.0.0.1", "mac_address": "02:42:0a:00:00:02", "aliases": [],
"ports": [{"container_port": 80, "protocol": "tcp", "host_ip": "0.0.0.0", "host_port": 8080}]}}""" % ("a" * 64)


def test_container_with_its_single_endpoint() -> None:
    """Before containers could be on several networks, their record had one endpoint: it is the first and only one."""
    container = msgspec.json.decode(OLD, type=Container)
    assert [endpoint.network for endpoint in container.endpoints] == ["bridge"]
    assert container.endpoints[0].ports[0].host_port == 8080
    assert [request.mode for request in endpoint_requests(container)] == ["bridge"]
    assert msgspec.json.decode(msgspec.json.encode(container), type=Container) == container


def test_container_without_endpoint() -> None:
    """A record of a container that was never connected is on no network until its start."""
    container = msgspec.json.decode(OLD.replace('"endpoint": {', '"ignored": {'), type=Container)
    assert container.endpoints == ()
    assert [request.mode for request in endpoint_requests(container)] == ["bridge"]
