"""testcontainers for Python: a throw-away server whose port is reached, waiting for its log, copying files, exec."""

from __future__ import annotations

import os
import urllib.request

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

IMAGE = os.environ["IMAGE"]
NAME = os.environ["NAME"]
SERVER = "mkdir -p /www && cp /seed/index.html /www; echo ready to serve; httpd -f -p 80 -h /www"


def main() -> None:
    container = DockerContainer(IMAGE)
    container.with_exposed_ports(80).with_env("A", "1").with_name(NAME).with_kwargs(labels={"scenario": NAME})
    container.with_volume_mapping(os.environ["SCRATCH"], "/seed", "ro")
    container.with_command(["sh", "-c", SERVER])
    container.waiting_for(LogMessageWaitStrategy("ready to serve").with_startup_timeout(120))
    with open(f"{os.environ['SCRATCH']}/index.html", "w") as file:
        file.write("from a container")
    with container as running:
        host, port = running.get_container_host_ip(), running.get_exposed_port(80)
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=60) as answer:
            assert answer.read() == b"from a container"
        code, output = running.exec(["sh", "-c", "echo $A; exit 4"])
        assert (code, output) == (4, b"1\n"), (code, output)
        out, err = running.get_logs()
        assert out == b"ready to serve\n" and err == b"", (out, err)
        wrapped = running.get_wrapped_container()
        wrapped.reload()
        assert wrapped.status == "running" and wrapped.labels["org.testcontainers"] == "true"
    assert NAME not in [one.name for one in wrapped.client.containers.list(all=True)]


main()
