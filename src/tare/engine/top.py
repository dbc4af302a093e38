"""top: the processes of a container, in the columns of ps(1). Read from /proc: nothing is executed (CVE-2022-1227)."""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable

import msgspec

from tare.engine.engine import Engine
from tare.engine.records import ProcessTable
from tare.errors import Conflict, InvalidArgument, KernelError
from tare.runtime.cgroups import open_cgroup

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process(msgspec.Struct, frozen=True):
    """One process, from /proc/PID/stat, status and cmdline (proc(5))."""

    pid: int
    ppid: int
    pgid: int
    sid: int
    tty: int
    foreground: int
    state: str
    uid: int
    gid: int
    nice: int
    priority: int
    threads: int
    ticks: int
    start_ticks: int
    virtual_bytes: int
    resident_pages: int
    command: str
    arguments: str


async def container_top(engine: Engine, ref: str, ps_args: str) -> ProcessTable:
    """The container's processes. ps_args: as ps(1) takes them: `-ef` (the default), `aux`, `-o pid,user,args`.

    Raises NotFound, Conflict (not running), InvalidArgument (arguments that this engine doesn't know).
    """
    container = engine.containers.find(ref)
    if engine.live.get(container.id) is None:
        raise Conflict(f"container {container.id} is not running")
    columns = parse_ps_args(ps_args or "-ef")
    try:
        pids = open_cgroup(engine.cgroup_path(container.id, container.host.cgroup_parent)).pids()
    except (OSError, KernelError) as error:
        raise Conflict(f"container {container.id} is not running") from error
    processes = [process for pid in sorted(pids) if (process := read_process(pid)) is not None]
    engine.events.container(container, "top")
    return ProcessTable(
        titles=tuple(title for title, _ in columns),
        processes=tuple(tuple(show(process) for _, show in columns) for process in processes),
    )


def read_process(pid: int) -> Process | None:
    """A process, or None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
        info = os.stat(f"/proc/{pid}")
        with open(f"/proc/{pid}/cmdline", "rb") as file_bytes:
            words = file_bytes.read(65536).rstrip(b"\0").split(b"\0")
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    f = text[text.rindex(")") + 2 :].split()
    arguments = b" ".join(words).decode("utf-8", "replace")
    return Process(
        pid=pid,
        state=f[0],
        ppid=int(f[1]),
        pgid=int(f[2]),
        sid=int(f[3]),
        tty=int(f[4]),
        foreground=int(f[5]),
        ticks=int(f[11]) + int(f[12]),
        priority=int(f[15]),
        nice=int(f[16]),
        threads=int(f[17]),
        start_ticks=int(f[19]),
        virtual_bytes=int(f[20]),
        resident_pages=int(f[21]),
        uid=info.st_uid,
        gid=info.st_gid,
        command=name,
        arguments=arguments or f"[{name}]",
    )


def _uptime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _user(process: Process) -> str:
    try:
        return pwd.getpwuid(process.uid).pw_name
    except KeyError:
        return str(process.uid)


def _group(process: Process) -> str:
    try:
        return grp.getgrgid(process.gid).gr_name
    except KeyError:
        return str(process.gid)


def _tty(process: Process) -> str:
    if process.tty == 0:
        return "?"
    major, minor = os.major(process.tty), os.minor(process.tty)
    return f"pts/{(major - 136) * 256 + minor}" if 136 <= major <= 143 else f"tty{minor}"


def _start(process: Process) -> str:
    began = time.time() - _uptime_s() + process.start_ticks / _TICKS
    same_day = time.localtime(began)[:3] == time.localtime()[:3]
    return time.strftime("%H:%M" if same_day else "%b%d", time.localtime(began))


def _cpu_percent(process: Process) -> float:
    lived = _uptime_s() - process.start_ticks / _TICKS
    return 100 * process.ticks / _TICKS / lived if lived > 0 else 0.0


def _time(process: Process) -> str:
    seconds = process.ticks // _TICKS
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _bsd_time(process: Process) -> str:
    seconds = process.ticks // _TICKS
    return f"{seconds // 60}:{seconds % 60:02d}"


def _states(process: Process) -> str:
    """The state with what ps adds: < N for its priority, s a session's leader, l threads, + in the foreground."""
    nice = "<" if process.nice < 0 else "N" if process.nice > 0 else ""
    leader = "s" if process.sid == process.pid else ""
    threads = "l" if process.threads > 1 else ""
    return process.state + nice + leader + threads + ("+" if process.foreground == process.pgid else "")


def _elapsed(process: Process) -> str:
    seconds = int(_uptime_s() - process.start_ticks / _TICKS)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    text = f"{minutes:02d}:{seconds % 60:02d}"
    if days or hours:
        text = f"{hours:02d}:{text}"
    return f"{days}-{text}" if days else text


def _memory_percent(process: Process) -> str:
    return f"{100 * process.resident_pages / os.sysconf('SC_PHYS_PAGES'):.1f}"


Show = Callable[[Process], str]
Column = tuple[str, Show]

_COLUMNS: dict[str, Column] = {
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: str(p.ppid)),
    "pgid": ("PGID", lambda p: str(p.pgid)),
    "sid": ("SID", lambda p: str(p.sid)),
    "user": ("USER", _user),
    "euser": ("EUSER", _user),
    "uid": ("UID", lambda p: str(p.uid)),
    "group": ("GROUP", _group),
    "gid": ("GID", lambda p: str(p.gid)),
    "c": ("C", lambda p: str(int(_cpu_percent(p)))),
    "pcpu": ("%CPU", lambda p: f"{_cpu_percent(p):.1f}"),
    "pmem": ("%MEM", _memory_percent),
    "stime": ("STIME", _start),
    "start": ("START", _start),
    "tty": ("TTY", _tty),
    "time": ("TIME", _time),
    "bsdtime": ("TIME", _bsd_time),
    "etime": ("ELAPSED", _elapsed),
    "stat": ("STAT", _states),
    "state": ("S", lambda p: p.state),
    "ni": ("NI", lambda p: str(p.nice)),
    "pri": ("PRI", lambda p: str(39 - p.priority)),
    "nlwp": ("NLWP", lambda p: str(p.threads)),
    "vsz": ("VSZ", lambda p: str(p.virtual_bytes // 1024)),
    "rss": ("RSS", lambda p: str(p.resident_pages * _PAGE // 1024)),
    "comm": ("COMMAND", lambda p: p.command),
    "args": ("COMMAND", lambda p: p.arguments),
    "cmd": ("CMD", lambda p: p.arguments),
}
_SYNONYMS = {
    "%cpu": "pcpu",
    "%mem": "pmem",
    "command": "args",
    "tt": "tty",
    "s": "state",
    "pgrp": "pgid",
    "nice": "ni",
    "cputime": "time",
    "ucmd": "comm",
    "ucomm": "comm",
    "rssize": "rss",
    "vsize": "vsz",
    "uname": "user",
}
_FULL = ("user", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_LONG_BSD = ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start", "bsdtime", "args")
_BSD = ("pid", "tty", "stat", "bsdtime", "args")
_PLAIN = ("pid", "tty", "time", "comm")


def parse_ps_args(text: str) -> list[Column]:
    """The columns that ps would show for these arguments. Raises InvalidArgument for arguments that aren't known."""
    words = text.split()
    wanted: list[str] = []
    titles: list[str | None] = []
    index = 0
    kind: tuple[str, ...] = _PLAIN
    while index < len(words):
        word = words[index]
        index += 1
        flags = word.lstrip("-")
        if flags.startswith("o") or (flags.endswith("o") and set(flags[:-1]) <= set("aexA")):
            value = flags.partition("o")[2]
            if not value:
                if index >= len(words):
                    raise InvalidArgument(f"ps: option requires an argument: {word}")
                value, index = words[index], index + 1
            for field in value.split(","):
                name, equals, title = field.partition("=")
                wanted.append(name.strip())
                titles.append(title if equals else None)
        elif word.startswith("-") and "f" in flags and set(flags) <= set("efawxA"):
            kind = _FULL
        elif "u" in flags and set(flags) <= set("auxwf") and (word == flags or "x" in flags):
            kind = _LONG_BSD  # `-aux`, too, in which ps sees a slip
        elif set(flags) <= set("axwf") and (word == flags or "x" in flags):
            kind = kind if kind is _LONG_BSD else _BSD
        elif not set(flags) <= set("eaxwA"):
            raise InvalidArgument(f"ps arguments that Tare doesn't know: {word!r}")
    if not wanted:
        columns = [_COLUMNS[name] for name in kind]
        if kind is _PLAIN:
            return [*columns[:-1], ("CMD", columns[-1][1])]
        if kind is _FULL:
            return [("UID", _user), *columns[1:]]
        return columns
    found = []
    for name, heading in zip(wanted, titles, strict=True):
        column = _COLUMNS.get(_SYNONYMS.get(name, name))
        if column is None:
            raise InvalidArgument(f"ps: unknown user-defined format specifier {name!r}")
        found.append((heading, column[1]) if heading is not None else column)
    return found
