"""Ships containers' logs to the servers of their drivers, from the local file that the monitor writes in any case.

A server that is down, slow or gone never blocks a container: the shipper waits and tries again, from the position that
it stored, also in the next tared. Only if the bounded file rotates entries away before the server took them are they
lost; how many is counted, logged, and shown by inspect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from tare import faults
from tare.engine.engine import Engine, in_thread
from tare.engine.log_drivers.fluentd import FluentdSink
from tare.engine.log_drivers.gelf import GelfSink
from tare.engine.log_drivers.journald import JournaldSink
from tare.engine.log_drivers.sink import Sink, Source, source_of
from tare.engine.log_drivers.syslog import SyslogSink
from tare.engine.log_files import Entry
from tare.engine.log_options import is_shipped
from tare.engine.log_position import PositionedReader, load_position, save_position
from tare.engine.records import Container, LogShipping
from tare.errors import InvalidArgument, system_text

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 15.0
LAST_WORDS_S = 3.0
"""How long a removal waits for a server that takes entries to take the last ones."""

log = logging.getLogger("tare.logs")

SINKS: dict[str, Callable[[Source], Sink]] = {
    "fluentd": FluentdSink,
    "gelf": GelfSink,
    "syslog": SyslogSink,
}


def start_shipping(engine: Engine, container: Container) -> None:
    """Has a container's log shipped until it doesn't run and all is sent; nothing to do for the other drivers."""
    if is_shipped(container) and container.id not in engine.log_shippers:
        shipper = Shipper(engine, container)
        engine.log_shippers[container.id] = shipper
        shipper.task = engine.spawn(shipper.run(), f"log shipping of {container.id[:12]}")


async def stop_shipping(engine: Engine, container_id: str) -> None:
    """Before a removal: waits a moment for a server that works, then gives up what isn't sent, and says so."""
    shipper = engine.log_shippers.get(container_id)
    if shipper is None or shipper.task is None:
        return
    if not shipper.state.error:
        await asyncio.wait([shipper.task], timeout=LAST_WORDS_S)
    if not shipper.task.done():
        log.warning(
            "container %s is removed before its log driver %s took its last entries%s",
            container_id[:12],
            shipper.state.driver,
            f": {shipper.state.error}" if shipper.state.error else "",
        )
        shipper.task.cancel()
        await asyncio.wait([shipper.task])


def shipping_state(engine: Engine, container: Container) -> LogShipping | None:
    """How shipping goes; None for drivers that ship nothing."""
    if not is_shipped(container) or container.host.log_config is None:
        return None
    shipper = engine.log_shippers.get(container.id)
    if shipper is not None:
        return shipper.state
    position = load_position(container.directory)
    return LogShipping(
        driver=container.host.log_config.type, sent=position.index - position.lost, dropped=position.lost
    )


def _words(error: Exception) -> str:
    """What went wrong, without the attempt's details, so that the same text means the same."""
    if type(error) in (ConnectionRefusedError, FileNotFoundError, TimeoutError, BrokenPipeError, ConnectionResetError):
        number = error.errno if isinstance(error, OSError) else None
        return system_text(number) if number else str(error) or "the server doesn't answer in time"
    return str(error) or type(error).__name__


class Shipper:
    """The shipping of one container's log."""

    def __init__(self, engine: Engine, container: Container) -> None:
        assert container.host.log_config is not None
        self._engine = engine
        self._container = container
        self.task: asyncio.Task[None] | None = None
        self.state = LogShipping(driver=container.host.log_config.type)

    async def run(self) -> None:
        """Ships until the container has ended and everything is sent."""
        container = self._container
        reader = PositionedReader(container.log_path, await in_thread(load_position, container.directory))
        sink: Sink | None = None
        try:
            sink = self._make_sink()
            self._take_stock(reader)
            await self._ship(reader, sink)
        finally:
            self._engine.log_shippers.pop(container.id, None)
            reader.close()
            if sink is not None:
                with contextlib.suppress(OSError):
                    await sink.close()

    def _make_sink(self) -> Sink:
        source = source_of(self._container)
        if self.state.driver == "journald":
            return JournaldSink(source, self._engine.settings.journald_socket)
        return SINKS[self.state.driver](source)

    async def _ship(self, reader: PositionedReader, sink: Sink) -> None:
        container_id = self._container.id
        while True:
            live = self._engine.live.get(container_id)
            known = live.link.log_written_bytes if live is not None else 0
            ended = live is None or live.link.ended.done()
            entries = await in_thread(reader.read)
            self._tell_lost(reader)
            if entries:
                await self._deliver(sink, entries)
                faults.point("engine.logs.shipped")
                await in_thread(save_position, self._container.directory, reader.position)
                self._take_stock(reader)
            elif ended and self._engine.live.get(container_id) is live:
                return
            elif live is not None:
                await live.link.wait_log(known)

    async def _deliver(self, sink: Sink, entries: list[Entry]) -> None:
        delay_s = FIRST_DELAY_S
        while True:
            try:
                await sink.send(entries)
            except (OSError, InvalidArgument) as error:
                text = _words(error)
                if text != self.state.error:
                    log.warning(
                        "container %s: log driver %s: %s; its log waits in %s",
                        self._container.id[:12],
                        self.state.driver,
                        text,
                        self._container.log_path,
                    )
                self._change(error=text)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, LONGEST_DELAY_S)
            else:
                if self.state.error:
                    log.info("container %s: log driver %s works again", self._container.id[:12], self.state.driver)
                return

    def _tell_lost(self, reader: PositionedReader) -> None:
        new = reader.position.lost - self.state.dropped
        if new > 0:
            log.warning(
                "container %s: %d log entries were rotated away before log driver %s could send them",
                self._container.id[:12],
                new,
                self.state.driver,
            )
            self._change(dropped=reader.position.lost)

    def _take_stock(self, reader: PositionedReader) -> None:
        position = reader.position
        self._change(sent=position.index - position.lost, dropped=position.lost, error="")

    def _change(self, *, sent: int | None = None, dropped: int | None = None, error: str | None = None) -> None:
        old = self.state
        self.state = LogShipping(
            driver=old.driver,
            sent=old.sent if sent is None else sent,
            dropped=old.dropped if dropped is None else dropped,
            error=old.error if error is None else error,
        )
