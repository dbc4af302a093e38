"""Engines behind ssh, with an `ssh` that runs the other end on this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from far_engines import TARE, call, over_ssh, write_program

import tare
from support.deadline import wait_until
from support.engine import Engine, docker_clients
from support.processes import marked
from tare.client.errors import BadHost
from tare.client.host import parse_host


def test_commands_behind_ssh(engine: Engine, ssh: Path) -> None:
    """Input, its end, exit codes and several calls at once pass through ssh; user, port and socket reach it."""
    environment = over_ssh(ssh, f"ssh://me@there:2222{engine.socket}")
    data = os.urandom(1 << 20).hex().encode()
    line = [*TARE, "run", "--rm", "-i", engine.image, "sh", "-c", "cat; echo end; exit 3"]
    done = call(line, environment, data)
    assert (done.code, done.out, done.err) == (3, data.decode() + "end\n", "")
    asked = (ssh / "ssh.log").read_text().splitlines()
    assert all(line.startswith("-o ConnectTimeout=30 -T -l me -p 2222 -- there sh -c '") for line in asked)
    names = [engine.unique() for _ in range(20)]
    for name in names:
        assert engine.create({}, name).status == 201
    done = call([*TARE, "rm", *names], environment)
    assert (done.code, done.out.split()) == (0, names)


def test_what_the_other_end_has_is_used(engine: Engine, ssh: Path) -> None:
    """Where there is no tare, docker's own dial-stdio serves; without a path in the address, its default is used."""
    (ssh / "tare").unlink()
    write_program(ssh / "docker", f'#!/bin/sh\nexec {docker_clients()[0]} -H unix://{engine.socket} "$@"\n')
    environment = over_ssh(ssh, "ssh://there")
    environment["PATH"] = f"{ssh}:/usr/bin:/bin"
    done = call([*TARE, "version", "-f", "{{.Server.Os}}"], environment)
    assert (done.code, done.out, done.err) == (0, "linux\n", "")


def test_dockers_client_is_served_by_our_dial_stdio(engine: Engine, ssh: Path) -> None:
    """`docker -H ssh://…` works with a tare that answers to the name docker at the other end."""
    (ssh / "tare").rename(ssh / "docker")
    environment = over_ssh(ssh, f"ssh://there{engine.socket}")
    data = os.urandom(1 << 20).hex().encode()
    line = [docker_clients()[0], "run", "--rm", "-i", engine.image, "sh", "-c", "cat; echo end"]
    done = call(line, environment, data)
    assert (done.code, done.out) == (0, data.decode() + "end\n"), done.err


def test_the_library_behind_ssh(engine: Engine, ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both faces speak through ssh, and leave no process behind."""
    for name, value in over_ssh(ssh, "", SSH_TEST_MARK=str(ssh)).items():
        monkeypatch.setenv(name, value)
    address = f"ssh://there{engine.socket}"
    with tare.connect(address) as client:
        assert client.run(engine.image, "cat", input=b"x" * (1 << 20)).stdout == b"x" * (1 << 20)

    async def story() -> None:
        async with tare.AsyncClient(address) as client:
            assert (await client.run(engine.image, "cat", input="hello")).output == "hello"

    asyncio.run(story())
    wait_until(
        lambda: not [argv for argv in marked(str(ssh)).values() if "dial-stdio" in argv], "the other end is gone"
    )


def test_ssh_that_fails_says_why(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh's own words and status are in the error."""
    done = call([*TARE, "ps"], over_ssh(ssh, "ssh://there", FAKE_SSH="broken"))
    assert done.code == 1
    assert done.err == "ssh://there: ssh ended with status 255: ssh: no route to host\n"
    monkeypatch.setenv("PATH", str(ssh.parent))
    with pytest.raises(tare.ClientError, match="can't run ssh"):
        tare.connect("ssh://there")


@pytest.mark.parametrize(
    "address",
    [
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-lroot@there",
        "ssh://me:secret@there",
        "ssh://@there",
        "ssh://there:x",
        "ssh://there:99999",
        "ssh://there/run/x'; rm -rf /; '",
        "ssh://there/run/$(id)",
        "ssh://there/run/x?query",
        "ssh://a b",
        "ssh://there\nother",
    ],
)
def test_addresses_that_are_no_machines(address: str) -> None:
    """What could become an option of ssh or a shell's word is refused."""
    with pytest.raises(BadHost):
        parse_host(address)


def test_addresses_that_are() -> None:
    """Users, ports, IPv6 and paths are understood."""
    host = parse_host("ssh://me@[fe80::1]:22/run/x.sock")
    assert (host.target, host.port) == ("fe80::1", 22)
    assert host.http_name == "api.tare.localhost"
