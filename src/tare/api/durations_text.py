"""How Docker words a span of time (`About a minute`) and a container's status. Pure."""

from __future__ import annotations

from tare.engine.records import ContainerState

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def human_duration(seconds: float) -> str:
    """A span in the words of Docker's lists."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < _MINUTE:
        return f"{whole} seconds"
    minutes = whole // _MINUTE
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / _HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    whole_hours = whole // _HOUR
    if whole_hours < 24 * 7 * 2:
        return f"{whole_hours // 24} days"
    if whole_hours < 24 * 30 * 2:
        return f"{whole_hours // 24 // 7} weeks"
    if whole_hours < 24 * 365 * 2:
        return f"{whole_hours // 24 // 30} months"
    return f"{whole_hours // 24 // 365} years"


def status_text(state: ContainerState, now_ns: int) -> str:
    """`Up 5 minutes`, `Exited (0) 2 seconds ago` …"""
    if state.status in ("running", "paused"):
        up = f"Up {human_duration((now_ns - state.started_ns) / 1e9)}"
        if state.status == "paused":
            return f"{up} (Paused)"
        if state.health is None:
            return up
        return f"{up} (health: starting)" if state.health.status == "starting" else f"{up} ({state.health.status})"
    ended = human_duration((now_ns - state.finished_ns) / 1e9)
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {ended} ago"
    if state.status == "removing":
        return "Removal In Progress"
    if state.status == "dead":
        return "Dead"
    if state.status == "created" or (not state.started_ns and not state.finished_ns):
        return "Created"
    return f"Exited ({state.exit_code}) {ended} ago" if state.finished_ns else ""
