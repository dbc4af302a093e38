"""Go's view of the values that templates meet: which dicts are maps, what nil looks like, how %v prints. Pure."""

from __future__ import annotations

from tare.client.jsontext import format_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class GoMap(dict[str, "Any"]):
    """A map: a missing key is no error, and it prints as map[a:b]. Other dicts stand for structs."""


class NilMap(GoMap):
    """A map that is nil: `null` in JSON, map[] in text."""


class NilList(list["Any"]):
    """A slice that is nil: `null` in JSON, [] in text."""


class NoValue:
    """What a missing key gives."""

    def __bool__(self) -> bool:
        return False


NO_VALUE = NoValue()


def is_true(value: object) -> bool:
    if isinstance(value, dict) and not isinstance(value, GoMap):
        return True
    return bool(value) or hasattr(value, "fields")


def format_value(value: object, quoted: bool = False) -> str:
    """%v"""
    if isinstance(value, str):
        return value
    if isinstance(value, NoValue):
        return "<no value>"
    if value is None:
        return "<nil>"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, float):
        return format_go_float(value)
    if isinstance(value, GoMap):
        return "map[" + " ".join(f"{key}:{format_value(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, dict):
        return "{" + " ".join(format_value(item) for item in value.values()) + "}"
    if isinstance(value, list | tuple):
        return "[" + " ".join(format_value(item) for item in value) + "]"
    as_dict = getattr(value, "as_dict", None)
    if as_dict is not None:
        return format_value(GoMap(as_dict()))
    return str(value)


def format_go_float(value: float) -> str:
    """%v of a float64: shortest digits, an exponent below 1e-4 and from 1e21."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    _, _, exponent = text.partition("e")
    if exponent and 16 <= int(exponent) < 21:
        return f"{value:.0f}"
    return text


def json_ready(value: object) -> Any:
    """`value` with maps sorted and nils as null: what Go's encoder would see."""
    if isinstance(value, NilList | NilMap | NoValue):
        return None
    if isinstance(value, GoMap):
        return {key: json_ready(value[key]) for key in sorted(value)}
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    as_dict = getattr(value, "as_dict", None)
    return json_ready(as_dict()) if as_dict is not None else value


def to_json(value: object) -> str:
    """The template function `json`. A row's own encoder escapes HTML, the function doesn't."""
    return format_json(json_ready(value), escape_html=hasattr(value, "as_dict"))


# Go types of the API's fields whose JSON doesn't show them.
MAP_NAMES = frozenset(
    "Labels Options DriverOpts Sysctls Networks Ports PortBindings ExposedPorts Volumes Annotations StorageOpt Tmpfs "
    "Data Details EndpointsConfig Containers Services IndexConfigs Runtimes Attributes Status".split()
)
LIST_NAMES = frozenset(
    "Cmd Entrypoint Env OnBuild Binds CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links VolumesFrom "
    "SecurityOpt Devices DeviceCgroupRules DeviceRequests Ulimits BlkioWeightDevice BlkioDeviceReadBps "
    "BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps MaskedPaths ReadonlyPaths ExecIDs Aliases DNSNames "
    "Args Mounts RepoTags RepoDigests Layers SecondaryIPAddresses SecondaryIPv6Addresses Shell Warnings".split()
)


# Fields that the API leaves out when they are empty, and what a template sees then.
OPTIONAL_FIELDS: dict[str, Any] = {
    "Health": None,
    "SizeRw": None,
    "SizeRootFs": None,
    "Healthcheck": None,
    "StopTimeout": None,
    "Init": None,
    "ImageManifestDescriptor": None,
    "Descriptor": None,
    "StopSignal": "",
    "Runtime": "",
    "Variant": "",
    "Comment": "",
    "Author": "",
    "Parent": "",
    "MacAddress": "",
    "Mounts": NilList(),
    "Shell": NilList(),
    "Manifests": NilList(),
    "ConsoleSize": [0, 0],
    "Tmpfs": NilMap(),
    "Annotations": NilMap(),
    "Sysctls": NilMap(),
    "StorageOpt": NilMap(),
    "ExposedPorts": NilMap(),
}
# Where Go's field and its JSON are named differently.
ALIASES = {"APIVersion": "ApiVersion", "MinAPIVersion": "MinApiVersion"}


def with_go_types(value: Any, name: str = "") -> Any:
    """JSON from the API with maps and nils marked as such, by the names of the fields that hold them."""
    if value is None:
        return NilMap() if name in MAP_NAMES else NilList() if name in LIST_NAMES else None
    if isinstance(value, dict):
        if name in MAP_NAMES or (name == "Config" and set(value) <= {"max-size", "max-file", "tag", "mode"}):
            return GoMap({key: with_go_types(item, "") for key, item in value.items()})
        return {key: with_go_types(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [with_go_types(item) for item in value]
    return value
