"""why: what became of a container, in plain words. Only tells; what it can't know it says."""

from __future__ import annotations

import signal

import msgspec

from tare.engine.engine import Engine, in_thread
from tare.engine.log_files import LogReader
from tare.engine.records import Container, ContainerState
from tare.values.signals import signal_name
from tare.values.units import format_bytes_binary

LAST_LINES = 5
_CAUSES = {
    signal.SIGSEGV: "it touched memory that isn't its own (a crash in native code)",
    signal.SIGABRT: "it aborted itself (a failed assertion, or an uncaught error in native code)",
    signal.SIGILL: "it ran an instruction that this processor doesn't have: the image may be for another processor",
    signal.SIGBUS: "it touched memory that could not be had: a truncated file it had mapped, or a full /dev/shm",
    signal.SIGFPE: "it divided by zero, or the like",
    signal.SIGPIPE: "it wrote to somebody who was gone",
    signal.SIGSYS: "it made a system call that its seccomp profile forbids",
}
_START_FAILURES = (
    (
        "executable file not found in $PATH",
        "the image has no such command in its PATH: a typing error, or a package that the image lacks",
    ),
    (
        "exec format error",
        "the command is no program for this machine: a script without `#!`, or a program for another processor",
    ),
    ("permission denied", "the command may not be executed: it lacks the x bit, or lies on a mount with noexec"),
    ("is a directory", "the command is a directory"),
    (
        "no such file or directory",
        "the command is there only in name: it, its interpreter (`#!`) or its dynamic loader is missing in the image",
    ),
    ("port is already allocated", "another container publishes that port of the host"),
    ("address already in use", "a program on the host listens on that port"),
    ("unable to find user", "the image's /etc/passwd has no such user"),
    ("unable to find group", "the image's /etc/group has no such group"),
)


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """summary: one sentence. details: what supports it, a line each. output: the last lines of the log."""

    summary: str
    details: tuple[str, ...] = ()
    output: tuple[str, ...] = ()


async def explain(engine: Engine, ref: str) -> Explanation:
    """Why a container is as it is. Raises NotFound."""
    container = engine.containers.find(ref)
    output = await in_thread(_last_lines, container.log_path) if container.log_path else ()
    return Explanation(summary=summarize(container), details=tuple(_details(container)), output=output)


def summarize(container: Container) -> str:
    """The one sentence."""
    state, name = container.state, container.name
    if state.status == "created":
        return f"{name} could not be started: {_start_failure(state)}." if state.error else f"{name} was never started."
    if state.status == "running":
        if state.health is not None and state.health.status == "unhealthy":
            return f"{name} runs, but its health check fails ({state.health.failing_streak} times in a row)."
        return f"{name} runs."
    if state.status == "paused":
        return f"{name} is paused: all its processes are frozen."
    if state.status == "exited" and state.error and not state.started_ns:
        return f"{name} could not be started: {_start_failure(state)}."
    return f"{name} {_end(container, state)}."


def _start_failure(state: ContainerState) -> str:
    for mark, meaning in _START_FAILURES:
        if mark in state.error:
            return meaning
    return "see the engine's error below"


def _end(container: Container, state: ContainerState) -> str:
    if state.oom_killed:
        return f"was killed by the kernel because it used up its memory ({_memory(container, state)})"
    if state.exit_code == 255 and not state.ended_by and not state.memory_peak_bytes:
        return "ended with code 255: its program said so, or nobody saw it end because the machine went down"
    number = state.exit_code - 128
    if 0 < number < 65:
        by = f": {state.ended_by}" if state.ended_by else ""
        cause = _CAUSES.get(number)  # type: ignore[call-overload]
        if not by and cause:
            by = f": {cause}"
        elif not by:
            by = ", sent from inside or by somebody on the host; not by the engine"
        return f"ended by {signal_name(number)} (exit code {state.exit_code}){by}"
    if state.exit_code == 0:
        return f"ended by itself, successfully{f', after {state.ended_by}' if state.ended_by else ''}"
    hint = {
        126: " (in a shell's words: a command can't be executed)",
        127: " (in a shell's words: a command was not found)",
    }.get(state.exit_code, "")
    return f"ended by itself with exit code {state.exit_code}{hint}; its output may tell more"


def _memory(container: Container, state: ContainerState) -> str:
    limit = container.host.memory
    peak = format_bytes_binary(state.memory_peak_bytes) if state.memory_peak_bytes else "an unknown amount"
    return f"{peak} of {format_bytes_binary(limit)} allowed" if limit else f"{peak}; the machine itself ran out"


def _details(container: Container) -> list[str]:
    state, found = container.state, []
    if state.started_ns and state.finished_ns > state.started_ns:
        found.append(f"It ran for {(state.finished_ns - state.started_ns) / 1e9:.1f} s.")
    if state.error:
        found.append(f"The engine's error: {state.error}")
    policy = container.host.restart_policy
    if policy is not None and policy.name not in ("", "no"):
        found.append(f"Its restart policy is {policy.name}; it was started again {state.restart_count} times.")
    if state.oom_killed:
        found.append("A higher limit (`update --memory`) or less work at a time would help.")
    if state.health is not None and state.health.log:
        probe = state.health.log[-1]
        text = probe.output.strip().splitlines()
        found.append(f"Its last health check ended with {probe.exit_code}{f': {text[-1]}' if text else ''}")
    return found


def _last_lines(path: str) -> tuple[str, ...]:
    reader = LogReader(path)
    try:
        reader.seek_tail(LAST_LINES)
        return tuple(entry.log.rstrip("\n") for entry in reader.read()[-LAST_LINES:])
    finally:
        reader.close()
