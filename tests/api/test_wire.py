"""Records to JSON and back, and what is refused, in Go's words."""

from __future__ import annotations

import json
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_bodies import ACCEPTED, REFUSED

from support.engine import Engine
from tare.api import wire
from tare.api.container_bodies import EMPTY_CONFIG_TEXT, parse_commit, parse_create
from tare.api.json_text import check_depth, parse_json
from tare.api.wire_names import GO_FIELD_TYPES
from tare.engine.options import (
    ContainerConfig,
    EndpointOptions,
    ExecOptions,
    HostOptions,
    MountOptions,
    NetworkingOptions,
    UpdateOptions,
)
from tare.errors import InvalidArgument

TEXTS = st.text(alphabet="abz/:=-\u00e9 ", max_size=6)


def strategy(kind: Any, name: str = "", owner: str = "") -> st.SearchStrategy[Any]:
    """All values of a field's type."""
    if get_origin(kind) in (types.UnionType, Union):
        return st.one_of(
            *(st.none() if option is type(None) else strategy(option, name, owner) for option in get_args(kind))
        )
    go = GO_FIELD_TYPES.get((owner, name)) or GO_FIELD_TYPES.get(("", name)) or "int64"
    if kind is int:
        unsigned = go in ("uint16", "uint", "[2]uint", "fs.FileMode")
        return st.integers(0, 65535) if unsigned else st.integers(-(1 << 63), (1 << 63) - 1)
    plain = {str: TEXTS, bool: st.booleans(), object: TEXTS}
    if kind in plain:
        return plain[kind]
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return st.dictionaries(TEXTS, strategy(arguments[1], name, owner), max_size=2)
    if get_origin(kind) is tuple and arguments[-1] is Ellipsis:
        return st.lists(strategy(arguments[0], name, owner), max_size=2).map(tuple)
    if get_origin(kind) is tuple:
        return st.tuples(*(strategy(argument, name, owner) for argument in arguments))
    return records(kind)


def records(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """All records of a kind."""
    hints = get_type_hints(kind)
    fields = {name: strategy(hints[name], name, kind.__name__) for name in kind.__struct_fields__}
    return st.builds(kind, **fields)


@pytest.mark.parametrize(
    "kind", [ContainerConfig, HostOptions, NetworkingOptions, EndpointOptions, ExecOptions, UpdateOptions, MountOptions]
)
def test_options_survive_json(kind: type[msgspec.Struct]) -> None:
    """Any record, printed as Docker prints it and read again, prints the same; what isn't left out is equal."""

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(records(kind))
    def check(record: Any) -> None:
        printed = wire.encode(record)
        again = wire.decode(kind, parse_json(msgspec.json.encode(printed)))
        assert wire.encode(again) == printed
        for name in wire.given_fields(kind, printed):
            assert _plain(getattr(again, name)) == _plain(getattr(record, name))

    check()


def _plain(value: Any) -> Any:
    """A value without the difference between what was left out and what is empty."""
    if isinstance(value, msgspec.Struct):
        return {name: inner for name in value.__struct_fields__ if (inner := _plain(getattr(value, name)))}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(("body", "message"), REFUSED)
def test_wrong_bodies_are_refused_in_gos_words(body: str, message: str) -> None:
    """Each recorded body gets dockerd's own sentence."""
    with pytest.raises(InvalidArgument) as caught:
        parse_create(parse_json(body.encode()))
    assert str(caught.value) == message


@pytest.mark.parametrize("body", ACCEPTED)
def test_odd_bodies_that_go_accepts(body: str) -> None:
    """What Go takes, Tare takes: bare strings for lists, keys in any case, nulls, anything behind the document."""
    config, _, _ = parse_create(parse_json(body.encode()))
    assert config.image == "some/image"


@pytest.mark.parametrize(("body", "message"), REFUSED)
def test_both_engines_refuse_wrong_bodies_alike(any_engine: Engine, body: str, message: str) -> None:
    """The recorded sentences are those of the dockerd that runs here, and of tared; tared says 400, as newer Docker."""
    answer = any_engine.api.request(
        "POST", "/containers/create", body.encode("latin-1"), headers={"Content-Type": "application/json"}
    )
    assert answer.status in ((400,) if any_engine.release > 20 else (400, 500)), answer
    if not any_engine.is_tare and any_engine.release > 20:
        return  # the names of Go's types are others there, and say no more
    assert answer.message.removeprefix("invalid JSON: ") == message


def test_an_empty_config_is_refused() -> None:
    """A body with nothing of a container's config is Docker's 400, whatever else it holds."""
    for body in (None, {}, {"HostConfig": {}}, {"Image": None}, {"Foo": 1}):
        with pytest.raises(InvalidArgument, match=EMPTY_CONFIG_TEXT):
            parse_create(body)
    assert parse_commit({}) is None and parse_commit(None) is None
    assert parse_commit({"Cmd": ["x"]}) == ContainerConfig(cmd=("x",))


def test_what_the_docker_cli_sends() -> None:
    """A body as the official CLI sends it for `docker run` is understood whole."""
    body = {
        "Hostname": "box",
        "AttachStdout": True,
        "Tty": False,
        "Env": ["A=b"],
        "Cmd": ["sh", "-c", "true"],
        "Image": "busybox",
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": {"x": "y"},
        "HostConfig": {
            "Binds": ["/tmp:/x:ro"],
            "ContainerIDFile": "/tmp/cid",
            "LogConfig": {"Type": "", "Config": {}},
            "NetworkMode": "default",
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "CapAdd": ["NET_ADMIN"],
            "Dns": ["1.1.1.1"],
            "UTSMode": "host",
            "ShmSize": 1024,
            "ConsoleSize": [24, 80],
            "NanoCpus": 500000000,
            "BlkioDeviceReadIOps": [{"Path": "/dev/sda", "Rate": 5}],
            "Ulimits": [{"Name": "nofile", "Hard": 20, "Soft": 10}],
            "IOMaximumIOps": 7,
            "Mounts": [
                {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 9, "Mode": 448}},
                {"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"NonRecursive": True}},
            ],
            "DeviceRequests": [{"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]]}],
            "MaskedPaths": None,
            "OomKillDisable": False,
        },
        "NetworkingConfig": {
            "EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": "10.1.2.3"}, "Aliases": ["web"]}}
        },
    }
    config, host, networking = parse_create(json.loads(json.dumps(body)))
    assert config.cmd == ("sh", "-c", "true") and config.exposed_ports == {"80/tcp": {}}
    assert host.container_id_file == "/tmp/cid" and host.uts_mode == "host" and host.console_size == (24, 80)
    assert host.blkio_device_read_iops is not None and host.blkio_device_read_iops[0].rate == 5
    assert host.io_maximum_iops == 7 and host.masked_paths is None and host.oom_kill_disable is False
    assert host.mounts is not None and host.mounts[0].tmpfs_options is not None
    assert host.mounts[0].tmpfs_options.mode == 448
    assert host.device_requests is not None and host.device_requests[0].capabilities == (("gpu",),)
    assert networking.endpoints_config is not None
    endpoint = networking.endpoints_config["bridge"]
    assert endpoint is not None and endpoint.ipam_config is not None and endpoint.ipam_config.ipv4_address == "10.1.2.3"


def test_only_what_was_given_counts_as_given() -> None:
    """null and unknown keys aren't given; case doesn't matter."""
    assert wire.given_fields(UpdateOptions, {"memory": 1, "CpuShares": None, "Nope": 1, "NanoCPUs": 0}) == {
        "memory",
        "nano_cpus",
    }


def test_pointers_to_zero_are_printed() -> None:
    """Init false and StopTimeout 0 are kept apart from not given."""
    assert wire.encode(HostOptions(init=False))["Init"] is False and "Init" not in wire.encode(HostOptions())
    assert wire.encode(ContainerConfig(stop_timeout=0))["StopTimeout"] == 0


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_json_is_refused_before_it_is_parsed(opening: bytes) -> None:
    """A megabyte of brackets is an error, not a crash; brackets in strings don't count."""
    with pytest.raises(InvalidArgument, match="exceeded max depth"):
        parse_json(opening * 300_000)
    assert parse_json(b'"' + b"[" * 1000 + b'"') == "[" * 1000
    check_depth(b"[]" * 10_000)


@pytest.mark.timeout(100)
def test_depth_is_checked_in_linear_time() -> None:
    """Megabytes of quotes and backslashes behind brackets take no longer than other megabytes."""
    for filling in (b'\\"', b'"', b"\\", b'"\\'):
        with pytest.raises(InvalidArgument):
            parse_json(b"[" * 150 + b"[]" * 100 + b'"' + filling * 2_000_000)


def test_what_is_no_text_and_no_number() -> None:
    """Half surrogate pairs are replaced, as in Go; NaN, infinities and endless numbers are refused."""
    assert parse_json(rb'{"Image":"a\ud800b"}') == {"Image": "a?b"}
    huge = [b'{"HostConfig":{"Memory":' + digits + b"}}" for digits in (b"1" * 10_000, b"1e999", b"-1e999", b"1" * 30)]
    for wrong in (b"NaN", b'{"a":-Infinity}', b'{"a":' + b"1" * 10_000 + b"}x", *huge):
        with pytest.raises(InvalidArgument):
            parse_create(parse_json(wrong))


def test_any_bytes_are_json_or_refused() -> None:
    """No input makes the parser fail with anything but InvalidArgument."""

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(st.binary(max_size=40), st.text("{}[]\":,truefalsn0123.e-\\ '\n", max_size=40).map(str.encode)))
    def check(data: bytes) -> None:
        try:
            parse_json(data)
        except InvalidArgument as error:
            assert str(error)

    check()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def test_any_shape_is_accepted_or_refused() -> None:
    """Whatever JSON stands at a known key, the answer is a record or InvalidArgument, never another error."""
    keys = st.sampled_from([wire.json_key(name) for name in HostOptions.__struct_fields__])

    @settings(max_examples=300, deadline=None)
    @given(st.dictionaries(keys, JSON, max_size=4))
    def check(host: dict[str, Any]) -> None:
        try:
            parse_create({"Image": "x", "HostConfig": host})
        except InvalidArgument as error:
            assert str(error).startswith("json: cannot unmarshal ")

    check()
