"""Tare: a container engine in plain Python that speaks Docker's Engine API.

`tare.connect()`, `tare.Client` and `tare.AsyncClient` are the library's entry; they are loaded when first asked for,
since the command line and the daemon start through this module too.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.sdk import AsyncClient, Client, connect
    from tare.sdk.errors import ApiError, ClientError, CommandFailed, Conflict, ContainerEnded, NotFound

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "CommandFailed",
    "Conflict",
    "ContainerEnded",
    "NotFound",
    "connect",
]


def __getattr__(name: str) -> object:
    """PEP 562."""
    if name not in __all__:
        raise AttributeError(f"module 'tare' has no attribute {name!r}")
    from tare import sdk
    from tare.sdk import errors

    found: object = getattr(sdk, name, None) or getattr(errors, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
