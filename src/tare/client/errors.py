"""What can go wrong between the client and an engine. Stands beside `tare.errors`: the client also drives real Docker.

ClientError
├── BadHost             the address can't be used (unknown scheme, TLS, ssh …)
├── CannotConnect       nobody listens there, or we may not
├── CredentialsError    config.json, or a helper that it names, doesn't give or take a registry's credentials
├── ProtocolError       the answer is not HTTP as we know it, or broke off
│   └── NoAnswer        it closed the connection before the first byte of an answer
└── ApiError            the engine answered with an error: `status` and `message`
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of all errors of this room."""


class BadHost(ClientError):
    """The engine's address can't be used."""


class CannotConnect(ClientError):
    """The engine can't be reached. `host`: its address as the user wrote it; `errno`: the kernel's reason."""

    def __init__(self, host: str, errno: int, reason: str) -> None:
        self.host = host
        self.errno = errno
        self.reason = reason
        super().__init__(f"{host}: {reason}")


class CredentialsError(ClientError):
    """A registry's credentials can't be read or kept."""


class ProtocolError(ClientError):
    """The peer's answer can't be understood or ended too early."""


class NoAnswer(ProtocolError):
    """The peer closed the connection before it answered at all."""


class ApiError(ClientError):
    """The engine's own error. str() is its message."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)
