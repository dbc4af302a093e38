"""The error tree: classes named for what the caller can do; `api/errors.py` maps each to one HTTP status.

    TareError
    ├── NotFound            404   the thing named does not exist
    ├── InvalidArgument     400   the request itself is wrong; repeating it can't help
    │   └── TooLarge        413   … because it is larger than the engine accepts
    ├── Conflict            409   the thing is in a state, or has a name, that forbids this
    ├── NotModified         304   the thing already is as asked
    ├── Unauthorized        401
    ├── Forbidden           403
    ├── Unavailable         503   not now; later may work
    ├── Unsupported         501   a known option or verb that this engine or kernel doesn't have
    ├── ResourceExhausted   500   no address, space, descriptor … left
    └── Internal            500
        └── KernelError           a system call failed; carries errno, call and path

Error texts are protocol (docker-py tells ImageNotFound from NotFound by the text), so each is built in one place.
"""

from __future__ import annotations

import errno
import os

# What musl words otherwise than glibc (man 3 strerror), of what an engine meets; Docker's texts agree with glibc's.
_TEXTS = {
    errno.EIO: "Input/output error",
    errno.ECHILD: "No child processes",
    errno.ENOMEM: "Cannot allocate memory",
    errno.EBUSY: "Device or resource busy",
    errno.EXDEV: "Invalid cross-device link",
    errno.EMFILE: "Too many open files",
    errno.ENOTTY: "Inappropriate ioctl for device",
    errno.ESPIPE: "Illegal seek",
    errno.EDOM: "Numerical argument out of domain",
    errno.ERANGE: "Numerical result out of range",
    errno.EDEADLK: "Resource deadlock avoided",
    errno.ENAMETOOLONG: "File name too long",
    errno.ELOOP: "Too many levels of symbolic links",
    errno.ETIME: "Timer expired",
    errno.EREMOTE: "Object is remote",
    errno.EOVERFLOW: "Value too large for defined data type",
    errno.EILSEQ: "Invalid or incomplete multibyte or wide character",
    errno.EUSERS: "Too many users",
    errno.ENOTSOCK: "Socket operation on non-socket",
    errno.EMSGSIZE: "Message too long",
    errno.EOPNOTSUPP: "Operation not supported",
    errno.EADDRINUSE: "Address already in use",
    errno.EADDRNOTAVAIL: "Cannot assign requested address",
    errno.ENETUNREACH: "Network is unreachable",
    errno.ENETRESET: "Network dropped connection on reset",
    errno.ECONNABORTED: "Software caused connection abort",
    errno.EISCONN: "Transport endpoint is already connected",
    errno.ENOTCONN: "Transport endpoint is not connected",
    errno.ESHUTDOWN: "Cannot send after transport endpoint shutdown",
    errno.ETIMEDOUT: "Connection timed out",
    errno.EHOSTUNREACH: "No route to host",
    errno.EINPROGRESS: "Operation now in progress",
    errno.EUCLEAN: "Structure needs cleaning",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EOWNERDEAD: "Owner died",
}


def system_text(number: int) -> str:
    """strerror(3) as Docker's users know it, whatever the C library: clients compare these texts."""
    return _TEXTS.get(number) or os.strerror(number)


class TareError(Exception):
    """Base of every error that Tare raises on purpose. `str(error)` is the sentence the user reads."""


class NotFound(TareError):
    """The thing named does not exist."""


class InvalidArgument(TareError):
    """The request is malformed or asks for something impossible."""


class TooLarge(InvalidArgument):
    """The request is larger than the engine accepts."""


class Conflict(TareError):
    """The thing is in a state, or bears a name, that forbids the request."""


class NotModified(TareError):
    """The thing already is as asked."""


class Unauthorized(TareError):
    """Credentials are missing or wrong."""


class Forbidden(TareError):
    """The caller may not do this."""


class Unavailable(TareError):
    """Not possible now; the same request may work later."""


class Unsupported(TareError):
    """A known option or verb that this engine, or this kernel, doesn't have."""


class ResourceExhausted(TareError):
    """Nothing left to hand out: addresses, disk space, descriptors."""


class Internal(TareError):
    """Something that should not fail did."""


class KernelError(Internal):
    """A system call failed.

    errno: the kernel's error number. call: the system call's name. path: the path or object it was about, if any.
    """

    def __init__(self, errno: int, call: str, path: str | None = None, context: str | None = None) -> None:
        self.errno = errno
        self.call = call
        self.path = path
        self.context = context
        where = f" {path}" if path is not None else ""
        why = f"{context}: " if context else ""
        super().__init__(f"{why}{call}{where}: {system_text(errno)}")
