"""The one table from error to HTTP status, and Docker's form of an error."""

from __future__ import annotations

import logging

import msgspec

from tare import errors
from tare.api.messages import Response
from tare.storage.full_disk import full_disk_error

log = logging.getLogger("tare.api")

STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.NotFound, 404),
    (errors.TooLarge, 413),
    (errors.InvalidArgument, 400),
    (errors.Conflict, 409),
    (errors.NotModified, 304),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.Unavailable, 503),
    (errors.Unsupported, 501),
    (errors.ResourceExhausted, 500),
    (errors.Internal, 500),
    (errors.TareError, 500),
)
JSON_TYPE = {"Content-Type": "application/json"}


def status_of(error: BaseException) -> int:
    """The HTTP status of an error; 500 for what nobody raised on purpose."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def error_response(status: int, message: str) -> Response:
    """`{"message": …}`."""
    if status == 304:
        return Response(304)
    return Response(status, JSON_TYPE, msgspec.json.encode({"message": _printable(message)}) + b"\n")


def _printable(message: str) -> str:
    """A message that surely is UTF-8: a path from the file system in it may not be."""
    return message.encode("utf-8", "replace").decode()


def response_of(error: BaseException, doing: str) -> Response:
    """The answer to a request that failed with error. doing: the operation, for the log."""
    error = full_disk_error(error) or error
    return error_response(status_of(error), text_of(error, doing))


def text_of(error: BaseException, doing: str) -> str:
    """What a client is told of an error; one that is ours to worry about is logged. doing: the operation."""
    error = full_disk_error(error) or error
    if isinstance(error, errors.TareError):
        if status_of(error) == 500:
            log.warning("%s: %s", doing, error)
        return _printable(str(error))
    log.error("%s failed unexpectedly", doing, exc_info=error)
    return _printable(f"{type(error).__name__}: {error}"[:500] if str(error) else type(error).__name__)
