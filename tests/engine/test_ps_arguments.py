"""What `top` makes of ps(1)'s arguments."""

from __future__ import annotations

import os

import pytest

from tare.engine.top import parse_ps_args, read_process
from tare.errors import InvalidArgument


def titles(text: str) -> list[str]:
    """The column titles for some arguments."""
    return [title for title, _ in parse_ps_args(text)]


def test_known_forms() -> None:
    """The usual arguments give ps's own titles."""
    assert titles("-ef") == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert titles("aux")[:4] == ["USER", "PID", "%CPU", "%MEM"]
    assert titles("-eo pid,comm") == ["PID", "COMMAND"]
    assert titles("-o pid=MINE,args") == ["MINE", "COMMAND"]
    assert titles("-opid") == ["PID"]


@pytest.mark.parametrize("text", ["-o", "-o nonsense", "--sort=x", "-Z"])
def test_unknown_forms_are_refused(text: str) -> None:
    """What isn't known is an error, not a guess."""
    with pytest.raises(InvalidArgument):
        parse_ps_args(text)


def test_columns_show_this_process() -> None:
    """The values are those of /proc."""
    process = read_process(os.getpid())
    assert process is not None
    row = [show(process) for _, show in parse_ps_args("-o pid,ppid,nlwp,args")]
    assert row[:2] == [str(os.getpid()), str(os.getppid())]
    assert "python" in row[3]
