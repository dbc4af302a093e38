"""What Docker does since 23 and later, as clients of newer API versions expect it; 20.10 is asked where it agrees."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support.engine import Engine

MAC, OTHER_MAC = "02:11:22:33:44:55", "02:11:22:33:44:56"


@pytest.fixture
def newer(engine: Engine) -> Engine:
    """Both engines, but a dockerd only of 28 on."""
    if engine.release < 28:
        pytest.skip(f"Docker differs here: {engine.release} is older than 28")
    return engine


def made(engine: Engine, version: str, **body: Any) -> tuple[int, Any]:
    answer = engine.api.request("POST", f"/v{version}/containers/create", {"Image": engine.image, "Cmd": ["x"], **body})
    return answer.status, answer.json


def test_an_image_tells_what_it_does_not_set(engine: Engine) -> None:
    """Config has all its fields until 1.51 (clients read Config["Env"]); 1.52 leaves out what isn't set."""
    name = engine.unique("image")
    engine.import_image(name, b"\0" * 10240, ["CMD x"])
    wanted = {"User", "Env", "Cmd", "Volumes", "WorkingDir", "Entrypoint", "OnBuild", "Labels"}
    for version in ("1.40", "1.51", "1.52")[: 3 if engine.is_tare else 2 if engine.release >= 28 else 1]:
        config = engine.api.request("GET", f"/v{version}/images/{name}/json").json["Config"]
        assert (wanted <= set(config)) == (version != "1.52")
        assert ("Hostname" in config) == (version == "1.40")
    engine.docker("rmi", name)


def test_the_default_network_has_a_name(newer: Engine) -> None:
    """Whether the client said "default" or nothing."""
    for mode in ({}, {"NetworkMode": "default"}):
        box = made(newer, "1.44", HostConfig=mode)[1]["Id"]
        assert newer.inspect(box)["HostConfig"]["NetworkMode"] == "bridge"
    rows = newer.api.request("GET", "/containers/json?all=1").json
    assert {row["HostConfig"]["NetworkMode"] for row in rows} == {"bridge"}


def test_a_mac_address_for_the_whole_container(newer: Engine) -> None:
    """Taken with a warning since 1.44, unless the endpoint says another; none at all is refused before anything is."""
    status, answer = made(newer, "1.44", MacAddress=MAC)
    assert status == 201 and ["deprecated" in warning for warning in answer["Warnings"]] == [True]
    assert made(newer, "1.43", MacAddress=MAC)[1]["Warnings"] == []

    def endpoint(mac: str, **more: Any) -> tuple[int, Any]:
        return made(newer, "1.44", NetworkingConfig={"EndpointsConfig": {"bridge": {"MacAddress": mac}}}, **more)

    host = {"HostConfig": {"NetworkMode": "bridge"}}
    assert endpoint(MAC, MacAddress=MAC, **host)[0] == 201
    status, answer = endpoint(OTHER_MAC, MacAddress=MAC, **host)
    assert status == 400 and answer["message"].startswith("the container-wide MAC address must match the endpoint-")
    status, answer = endpoint("zz", **host)
    assert status == 400 and answer["message"].endswith("invalid MAC address zz")


def test_an_address_that_the_network_can_not_give(newer: Engine) -> None:
    """Refused before there is a container: a failed `run --ip` leaves none behind."""
    names = [newer.unique("net"), newer.unique("net")]
    newer.docker("network", "create", "--subnet", "10.246.7.0/24", names[0])
    newer.docker("network", "create", names[1])
    try:
        for name, text in (
            (names[0], "no configured subnet"),
            (names[1], "user specified IP address is supported only when connecting to networks with user configured"),
            ("bridge", "user specified IP address is supported on user defined networks only"),
        ):
            endpoint = {"IPAMConfig": {"IPv4Address": "10.9.9.9"}}
            body = {"HostConfig": {"NetworkMode": name}, "NetworkingConfig": {"EndpointsConfig": {name: endpoint}}}
            status, answer = made(newer, "1.44", **body)
            assert status == 400 and answer["message"].startswith(f"invalid config for network {name}: ")
            assert text in answer["message"]
        assert not newer.containers()
    finally:
        newer.docker("network", "rm", *names)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ({"Annotations": {"": "x"}}, "the empty string is not permitted as an annotation key"),
        (
            {"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["bad"]]}}]},
            'invalid mount config for type "tmpfs": invalid option: bad',
        ),
    ],
)
def test_refused(newer: Engine, host: dict[str, Any], text: str) -> None:
    """With 400, in Docker's words."""
    status, answer = made(newer, "1.51", HostConfig=host)
    assert status == 400 and text in answer["message"]


def test_a_tmpfs_to_run_programs_from(newer: Engine) -> None:
    """TmpfsOptions.Options, of API 1.46."""
    for option, wanted in (("exec", False), ("noexec", True)):
        mount = {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [[option]], "SizeBytes": 1 << 20}}
        box = newer.create({"Cmd": ["grep", " /x ", "/proc/mounts"], "HostConfig": {"Mounts": [mount]}}).json["Id"]
        newer.docker("start", box)
        assert newer.exit_code(box) == 0
        line = newer.logs(box)
        assert ("noexec" in line) == wanted and "size=1024k" in line


def test_force_recursive_needs_read_only(newer: Engine) -> None:
    """What contradicts itself is refused: by Docker when the container starts."""
    options = {"ReadOnlyForceRecursive": True, "Propagation": "rprivate"}
    mount = {"Type": "bind", "Source": "/tmp", "Target": "/x", "BindOptions": options}
    answer = newer.create({"Cmd": ["x"], "HostConfig": {"Mounts": [mount]}})
    if answer.status == 201:
        answer = newer.api.request("POST", f"/containers/{answer.json['Id']}/start")
    assert answer.status in (400, 500)
    assert "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive" in answer.message


def test_start_takes_no_settings(engine: Engine) -> None:
    """As before API 1.24: refused, not ignored; an empty object is none, and a checkpoint needs what isn't there."""
    box = made(engine, "1.40")[1]["Id"]
    answer = engine.api.request("POST", f"/containers/{box}/start", {"Memory": 1 << 30})
    assert answer.status == 400
    assert answer.message.startswith("starting container with non-empty request body was deprecated since")
    answer = engine.api.request("POST", f"/containers/{box}/start?checkpoint=one")
    assert answer.status in (400, 501) and "checkpoint" in answer.message
    assert engine.inspect(box)["State"]["Status"] == "created"


def test_words_that_name_what_was_asked(newer: Engine) -> None:
    """kill, rm and rename say what could not be done, of which container, as the user named it."""
    name, taken = newer.unique(), newer.unique()
    box = newer.start("--name", name)
    newer.docker("create", "--name", taken, newer.image)
    for verb, path, pattern in (
        ("POST", "no-such/kill", "^cannot kill container: no-such: No such container: no-such$"),
        ("POST", f"{name}/kill?signal=NOPE", f"^cannot kill container: {name}: invalid signal: NOPE$"),
        ("POST", f"{name}/rename?name={taken}", f'^Error when allocating new name: Conflict. .*"/{taken}" is already'),
        ("DELETE", box[:9], f'^cannot remove container "{box[:9]}": container is running: stop the container before'),
    ):
        assert re.search(pattern, newer.api.request(verb, f"/containers/{path}").message)
    newer.docker("pause", name)
    answer = newer.api.request("DELETE", f"/containers/{name}")
    assert answer.status == 409
    assert answer.message == f'cannot remove container "{name}": container is paused and must be unpaused first'


def test_info_names_the_firewall(newer: Engine) -> None:
    """FirewallBackend, of API 1.49."""
    assert newer.api.request("GET", "/v1.49/info").json["FirewallBackend"]["Driver"] in ("iptables", "nftables")
    assert "FirewallBackend" not in newer.api.request("GET", "/v1.48/info").json
