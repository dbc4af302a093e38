"""What can go wrong, by what the caller can do about it.

ClientError                 of tare.client.errors, as are the next three
├── BadHost                 the engine's address can't be used
├── CannotConnect           nobody listens there, or we may not
├── ProtocolError           the engine's answer can't be understood, or broke off
├── ApiError                the engine said no: status, message
│   ├── InvalidArgument     400   the request itself is wrong
│   ├── Unauthorized        401
│   ├── Forbidden           403
│   ├── NotFound            404   no such container, image, path …
│   ├── Conflict            409   a name in use, a state that forbids it
│   ├── Unavailable         503   not now
│   ├── Unsupported         501   the engine doesn't have it
│   └── EngineFailed        5xx   something in the engine failed
├── CommandFailed           a command that should have succeeded (check=True) ended with another code: result
├── UnsafeArchive           what a container sent would be unpacked outside the directory meant for it
└── ContainerEnded          a container ended while something of it was waited for: exit_code

What takes too long raises Python's own TimeoutError, wrong arguments ValueError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tare.client.errors import ApiError, BadHost, CannotConnect, ClientError, NoAnswer, ProtocolError

if TYPE_CHECKING:
    from tare.sdk.records import Result

__all__ = [
    "ApiError",
    "BadHost",
    "CannotConnect",
    "ClientError",
    "CommandFailed",
    "Conflict",
    "ContainerEnded",
    "EngineFailed",
    "Forbidden",
    "InvalidArgument",
    "NoAnswer",
    "NotFound",
    "ProtocolError",
    "Unauthorized",
    "Unavailable",
    "UnsafeArchive",
    "Unsupported",
    "error_of",
]


class InvalidArgument(ApiError):
    """The request is wrong; repeating it can't help."""


class Unauthorized(ApiError):
    """Credentials are missing or wrong."""


class Forbidden(ApiError):
    """The caller may not do this."""


class NotFound(ApiError):
    """What was named does not exist."""


class Conflict(ApiError):
    """A name is taken, or a state forbids the request."""


class EngineFailed(ApiError):
    """Something in the engine failed."""


class Unavailable(EngineFailed):
    """Not possible now; later it may be."""


class Unsupported(EngineFailed):
    """The engine knows what is meant, and doesn't have it."""


class CommandFailed(ClientError):
    """A command ended with an exit code that is not 0."""

    def __init__(self, result: Result, command: str) -> None:
        self.result = result
        self.command = command
        words = (result.errors or result.output).strip()[-1000:]
        super().__init__(f"{command} ended with exit code {result.exit_code}" + (f": {words}" if words else ""))


class ContainerEnded(ClientError):
    """The container ended before what was waited for could happen."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class UnsafeArchive(ClientError):
    """An archive with links, names or devices that may not be unpacked here."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidArgument,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    501: Unsupported,
    503: Unavailable,
}


def error_of(status: int, message: str) -> ApiError:
    """The error for an answer's status."""
    kind = _BY_STATUS.get(status, EngineFailed if status >= 500 else ApiError)
    return kind(status, message)
