"""`tare-runtime`: an OCI runtime's command line, with runc's flags, so that containerd and Docker can use it.

A verb is a function of the container store and its words; its modules are imported when it is used.
"""

from __future__ import annotations

import os
import sys
import time

from tare.errors import InvalidArgument, TareError, Unsupported

_GLOBAL = {
    "root": True,
    "log": True,
    "log-format": True,
    "debug": False,
    "systemd-cgroup": False,
    "rootless": True,
    "criu": True,
    "help": False,
    "version": False,
}
_SHORT = {"h": "help", "v": "version"}
# verb: module below tare.runtime.verbs, function, what it does
_VERBS = {
    "create": ("create", "create", "make a container from a bundle, and hold it"),
    "start": ("create", "start", "start the program of a created container"),
    "run": ("create", "run", "create and start a container"),
    "state": ("show", "state", "print the state of a container"),
    "kill": ("delete", "kill", "send a signal to a container"),
    "delete": ("delete", "delete", "remove a container"),
    "exec": ("execute", "execute", "run one more process in a container"),
    "list": ("show", "list_containers", "list containers"),
    "pause": ("control", "pause", "stop all processes of a container"),
    "resume": ("control", "resume", "let them go on"),
    "ps": ("control", "ps", "list the processes of a container"),
    "update": ("control", "update", "change the limits of a container"),
    "features": ("show", "features", "print what this runtime can do"),
    "spec": ("show", "spec", "write a config.json to start from"),
}
_FORKING = ("create", "run", "exec")
_REFUSED = {"checkpoint": "checkpoint", "restore": "restore", "events": "events"}
DEFAULT_ROOT = "/run/tare-runtime"


def _usage() -> str:
    lines = ["usage: tare-runtime [--root DIR] [--log FILE] [--log-format text|json] VERB …", ""]
    lines += [f"  {verb:<9} {text}" for verb, (_, _, text) in _VERBS.items()]
    return "\n".join(lines)


def _version() -> str:
    import tare
    from tare.oci.runtime_spec import OCI_VERSION

    return f"tare-runtime version {tare.__version__}\nspec: {OCI_VERSION}"


def _log_error(path: str, layout: str, message: str) -> None:
    """Appends an error to the log file; containerd reads the last one to tell its client."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if layout == "json":
        import msgspec

        line = msgspec.json.encode({"level": "error", "msg": message, "time": now}).decode()
    else:
        quoted = message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        line = f'time="{now}" level=error msg="{quoted}"'
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(fd, (line + "\n").encode())
    os.close(fd)


def _run_verb(root: str, verb: str, words: list[str]) -> int:
    if verb in _FORKING:
        from tare.runtime.interpreter import protect_interpreter

        protect_interpreter()  # before everything else is imported in vain
    from importlib import import_module

    from tare.runtime.store import ContainerStore

    if verb in _REFUSED:
        raise Unsupported(f"{verb} is not supported")
    if verb not in _VERBS:
        raise InvalidArgument(f"no help topic for '{verb}'")
    module, function, _ = _VERBS[verb]
    code: int = getattr(import_module(f"tare.runtime.verbs.{module}"), function)(ContainerStore(root), words)
    return code


def main() -> int:
    """Runs the command line; returns the exit code (1 for an error of our own, 255 from `exec`)."""
    from tare.runtime.arguments import Arguments, parse_arguments

    options = Arguments()
    try:
        options = parse_arguments(sys.argv[1:], _GLOBAL, _SHORT)
        if options.has("version"):
            print(_version())
            return 0
        if options.has("help") or not options.rest or options.rest[0] == "help":
            print(_usage())
            return 0
        if options.has("systemd-cgroup"):
            raise Unsupported("--systemd-cgroup is not supported: cgroups are made by tare-runtime itself")
        return _run_verb(os.path.abspath(options.get("root", DEFAULT_ROOT)), options.rest[0], options.rest[1:])
    except TareError as error:
        verb = options.rest[0] if options.rest else ""
        message = {"exec": "exec failed: ", "create": "create failed: ", "run": "run failed: "}.get(verb, "") + str(
            error
        )
        if options.get("log"):
            _log_error(options.get("log"), options.get("log-format", "text"), message)
        print(f"tare-runtime: {message}", file=sys.stderr)
        # runc's: a program's own exit code is never 255 by accident, so that callers of `exec` can tell.
        return 255 if verb == "exec" else 1


if __name__ == "__main__":
    sys.exit(main())
