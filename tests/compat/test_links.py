"""--link on the default bridge: aliases in /etc/hosts and the environment, a new address, removal; on both engines."""

from __future__ import annotations

import pytest

from support.deadline import wait_until
from support.engine import Engine


def linked(engine: Engine) -> tuple[str, str]:
    """Names of a container and of one that is linked to it as `db`."""
    child, parent = engine.unique("child"), engine.unique("parent")
    engine.start(flags=["--name", child, "-e", "FLAVOUR=sweet", "--expose", "5432", "--stop-signal", "KILL"])
    engine.start(flags=["--name", parent, "--link", f"{child}:db", "--stop-signal", "KILL"])
    return child, parent


def test_alias_and_environment(engine: Engine) -> None:
    """A linked container is reached by its alias, and the environment tells its address, port and variables."""
    child, parent = linked(engine)
    address = engine.inspect(child)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    hosts = engine.docker("exec", parent, "cat", "/etc/hosts").out
    line = next(line for line in hosts.splitlines() if line.startswith(f"{address}\t"))
    assert line.split("\t")[1].split()[0] == "db" and child in line
    for command in (["exec", parent, "env"], ["inspect", "-f", "{{json .HostConfig.Links}}", parent]):
        seen = engine.docker(*command).out
        wanted = [f'["/{child}:/{parent}/db"]'] if command[0] == "inspect" else [
            f"DB_NAME=/{parent}/db",
            f"DB_PORT=tcp://{address}:5432",
            f"DB_PORT_5432_TCP_ADDR={address}",
            "DB_PORT_5432_TCP_PROTO=tcp",
            "DB_ENV_FLAVOUR=sweet",
        ]  # fmt: skip
        assert set(wanted) <= set(seen.splitlines()), seen


@pytest.mark.parametrize(
    ("ports", "start", "end"),
    [
        ("8000-8003/tcp", "8000", "8003"),
        ("8000-8002/udp", "8000", "8002"),
        ("8000-8001/tcp", "8000", "8001"),
    ],
)
def test_environment_tells_ranges(engine: Engine, ports: str, start: str, end: str) -> None:
    """Exposed ports in a row are told as a range, too; by Docker 20.10 only if they are three."""
    name = engine.unique("db")
    child = engine.start("--name", name, "--expose", ports)
    address = engine.inspect(child)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    told = engine.run("--link", f"{name}:db", "@", "env").out.splitlines()
    protocol = ports[-3:]
    found = {line for line in told if "_START=" in line or "_END=" in line}
    first = f"DB_PORT_{start}_{protocol.upper()}"
    wanted = {f"{first}_START={protocol}://{address}:{start}", f"{first}_PORT_START={start}"}
    wanted |= {f"{first}_END={protocol}://{address}:{end}", f"{first}_PORT_END={end}"}
    assert found == (wanted if engine.release > 20 or end != "8001" else set())
    assert f"DB_PORT_8001_{protocol.upper()}_PORT=8001" in told


def test_address_follows_the_linked_container(engine: Engine) -> None:
    """Once the linked container was started again, its alias leads to where it is now."""
    child, parent = linked(engine)
    engine.docker("stop", child)
    engine.start()  # takes the address
    engine.docker("start", child)
    address = engine.inspect(child)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]

    def follows() -> bool:
        hosts = engine.docker("exec", parent, "cat", "/etc/hosts").out
        return [line.split()[0] for line in hosts.splitlines() if "db" in line.split()] == [address]

    wait_until(follows, "the alias leads to the new address")


def test_links_end(engine: Engine) -> None:
    """A link to what doesn't run can't be started; rm --link takes a link away and leaves the containers."""
    child, parent = linked(engine)
    engine.docker("stop", parent, child)
    refused = engine.docker("start", parent, check=False)
    assert refused.code == 1
    assert f"Cannot link to a non running container: /{child} AS /{parent}/db" in refused.err
    engine.docker("rm", "--link", f"{parent}/db")
    assert not engine.inspect(parent)["HostConfig"]["Links"]
    engine.docker("start", parent)


def test_wrong_links(engine: Engine) -> None:
    """A link to nothing, or from where links can't be, is refused."""
    missing = engine.create({"HostConfig": {"Links": ["no-such:db"]}})
    assert missing.status == 400 and "could not get container for no-such" in missing.message
    host = engine.create({"HostConfig": {"Links": ["no-such:db"], "NetworkMode": "host"}})
    assert host.status in (400, 500)
    assert "conflicting options: host type networking can't be used with links" in host.message
