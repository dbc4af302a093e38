"""logs: what a container wrote, and what it writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

from tare.engine.engine import Engine, in_thread
from tare.engine.log_files import Entry, LogReader
from tare.engine.log_options import is_shipped
from tare.engine.options import LogsOptions
from tare.engine.records import Container
from tare.errors import InvalidArgument, Unsupported
from tare.runtime.jsonlog import clear_files
from tare.runtime.streams import frame
from tare.values.timestamps import parse_rfc3339


class LogStream:
    """Log output for a client: framed as attach's unless the container has a terminal."""

    def __init__(self, engine: Engine, container: Container, options: LogsOptions) -> None:
        self.tty = container.config.tty
        self._engine = engine
        self._container = container
        self._options = options

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._run()

    async def close(self) -> None:
        """Nothing is held between two chunks."""

    async def _run(self) -> AsyncIterator[bytes]:
        reader = LogReader(self._container.log_path)
        options = self._options
        try:
            if options.tail is not None:
                await in_thread(reader.seek_tail, options.tail)
            while True:
                live = self._engine.live.get(self._container.id)
                known = live.link.log_written_bytes if live is not None else 0
                ended = live is None or live.link.ended.done()
                while entries := await in_thread(reader.read):
                    chunk, past = self._format(entries)
                    if chunk:
                        yield chunk
                    if past:
                        return
                if not options.follow or ended or live is None:
                    return
                await live.link.wait_log(known)
        finally:
            reader.close()

    def _format(self, entries: list[Entry]) -> tuple[bytes, bool]:
        """(what the client gets of these entries, whether `until` is past)."""
        options = self._options
        out: list[bytes] = []
        bounded = options.since_ns or options.until_ns
        for entry in entries:
            if bounded:
                instant = _instant(entry)
                if options.until_ns and instant > options.until_ns:
                    return b"".join(out), True
                if instant < options.since_ns:
                    continue
            if not (options.stderr if entry.stream == "stderr" else options.stdout):
                continue
            data = entry.log.encode("utf-8", "surrogatepass")
            if options.details:
                data = _details(entry.attrs) + data
            if options.timestamps:
                data = f"{entry.time} ".encode() + data
            out.append(data if self.tty else frame(entry.stream, len(data)) + data)
        return b"".join(out), False


def _details(attributes: dict[str, str]) -> bytes:
    """`a=1,b=2 ` in front of a line, as `--details` shows what the log options `labels` and `env` chose."""
    pairs = (f"{quote(name)}={quote(value)}" for name, value in sorted(attributes.items()))
    return (",".join(pairs) + " ").encode()


def _instant(entry: Entry) -> int:
    try:
        return parse_rfc3339(entry.time)
    except InvalidArgument:
        return 0


async def clear_logs(engine: Engine, ref: str) -> None:
    """Empties a container's log, running or not. Raises NotFound, Unsupported for the driver `none`."""
    container = engine.containers.find(ref)
    if not container.log_path:
        raise Unsupported("configured logging driver does not support reading")
    live = engine.live.get(container.id)
    if live is not None:
        try:
            live.link.clear_log()
            return
        except OSError:
            pass  # its monitor has just gone
    await in_thread(clear_files, container.log_path, counted=is_shipped(container))


async def container_logs(engine: Engine, ref: str, options: LogsOptions) -> LogStream:
    """A container's log. Raises NotFound, InvalidArgument with Docker's text, Unsupported for the driver `none`."""
    if not (options.stdout or options.stderr):
        raise InvalidArgument("You must choose at least one stream")
    container = engine.containers.find(ref)
    if not container.log_path:
        raise Unsupported("configured logging driver does not support reading")
    return LogStream(engine, container, options)
