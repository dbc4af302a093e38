"""The rules of health checks: what options are right, what command probes, what a result means. Pure.

Rules and defaults are Docker's (Engine API 1.55, HealthConfig and Health); what to do about an unhealthy container
(`health_on_failure`) is Tare's own.
"""

from __future__ import annotations

import msgspec

from tare.engine.options import HealthcheckOptions
from tare.engine.records import Container, Health, HealthProbe
from tare.errors import InvalidArgument
from tare.oci.image_spec import Healthcheck

DEFAULT_INTERVAL_NS = 30 * 10**9
DEFAULT_TIMEOUT_NS = 30 * 10**9
DEFAULT_START_INTERVAL_NS = 5 * 10**9
DEFAULT_RETRIES = 3
KEPT_PROBES = 5
SHORTEST_NS = 10**6
ON_FAILURE = ("", "none", "kill", "stop", "restart")


def check_options(options: HealthcheckOptions | None) -> None:
    """Raises InvalidArgument with Docker's texts."""
    if options is None:
        return
    for name in ("interval", "timeout", "start_period", "start_interval"):
        value = getattr(options, name)
        if value and value < SHORTEST_NS:
            raise InvalidArgument(f"{name.title().replace('_', '')} in Healthcheck cannot be less than 1ms")
    if options.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    if options.test and options.test[0] not in ("NONE", "CMD", "CMD-SHELL", ""):
        raise InvalidArgument(f"Unknown healthcheck type '{options.test[0]}' (expected 'CMD')")


def merged(options: HealthcheckOptions | None, image: Healthcheck | None) -> HealthcheckOptions | None:
    """A container's health check, completed from its image's."""
    if image is None:
        return options
    mine = options or HealthcheckOptions()
    return HealthcheckOptions(
        test=mine.test or tuple(image.test),
        interval=mine.interval or image.interval,
        timeout=mine.timeout or image.timeout,
        retries=mine.retries or image.retries,
        start_period=mine.start_period or image.start_period,
        start_interval=mine.start_interval or image.start_interval,
    )


def command(container: Container) -> tuple[str, ...]:
    """The probe's command line; empty if the container has no health check."""
    options = container.config.healthcheck
    test = (options.test if options else None) or ()
    if test[:1] == ("CMD",):
        return test[1:]
    if test[:1] == ("CMD-SHELL",) and len(test) > 1:
        return (*(container.config.shell or ("/bin/sh", "-c")), test[1])
    return ()


def at_start(container: Container) -> Health | None:
    """The health of a container that has just been started."""
    return Health(status="starting") if command(container) else None


def at_end(container: Container) -> Health | None:
    """The health of a container that has ended: nobody looks any more, so that it isn't healthy (as in Docker)."""
    health = container.state.health
    return msgspec.structs.replace(health, status="unhealthy") if health is not None else None


def delay_ns(container: Container, options: HealthcheckOptions, now_ns: int) -> int:
    """How long to wait before the next probe: less while the container starts."""
    health = container.state.health
    starting = health is not None and health.status == "starting"
    if starting and now_ns - container.state.started_ns < options.start_period:
        return options.start_interval or DEFAULT_START_INTERVAL_NS
    return options.interval or DEFAULT_INTERVAL_NS


def after(container: Container, options: HealthcheckOptions, probe: HealthProbe) -> Health:
    """The container's health after one more probe. Failures while it starts don't count."""
    before = container.state.health or Health(status="starting")
    starting = before.status == "starting" and probe.start_ns - container.state.started_ns < options.start_period
    if probe.exit_code == 0:
        status, streak = "healthy", 0
    elif starting:
        status, streak = before.status, 0
    else:
        streak = before.failing_streak + 1
        status = "unhealthy" if streak >= (options.retries or DEFAULT_RETRIES) else before.status
    return Health(status=status, failing_streak=streak, log=(*before.log, probe)[-KEPT_PROBES:])
