"""A container that watches and attacks whatever enters it: exec'd helpers show and lend it nothing; on both engines."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from support.deadline import wait_until
from support.engine import Engine

# Looks at every process in an endless loop and tells of each program, directory or descriptor that isn't its own.
SPY = r"""
echo watching
while :; do
  for p in /proc/[0-9]*; do
    e=$(readlink $p/exe 2>/dev/null); case "$e" in ""|/bin/busybox) ;; *) echo "exe $e";; esac
    c=$(readlink $p/cwd 2>/dev/null); case "$c" in ""|/|/tmp) ;; *) echo "cwd $c";; esac
    for f in $p/fd/*; do
      t=$(readlink $f 2>/dev/null); case "$t" in ""|/proc/*|pipe:*|/dev/null|socket:*) ;; *) echo "fd $t";; esac
    done
  done
done
"""
# Tries to open the program of whatever enters for writing.
OVERWRITE = r"""
echo watching
while :; do
  for e in /proc/[0-9]*/exe; do
    case "$(readlink $e 2>/dev/null)" in
      ""|/bin/busybox) ;;
      *) (: >> $e) 2>/dev/null && echo "opened $(readlink $e)";;
    esac
  done
done
"""


def watched(engine: Engine, script: str) -> tuple[str, list[str]]:
    """Runs the script in a container while twenty programs are exec'd in it; what it told, but for its first word."""
    container = engine.start(command=["sh", "-c", script])
    wait_until(lambda: "watching" in engine.logs(container), "it watches")
    for _ in range(20):
        assert engine.docker("exec", "-w", "/tmp", container, "busybox", "true").code == 0
    engine.docker("kill", container)
    return container, sorted(set(engine.logs(container).splitlines()) - {"watching"})


def test_cve_2016_9962_nothing_of_the_host_shows_during_exec(engine: Engine) -> None:
    """CVE-2016-9962, CVE-2024-21626: while exec enters, no program, directory or descriptor of the host can be seen."""
    _, told = watched(engine, SPY)
    assert not told


def test_cve_2019_5736_the_runtime_is_not_overwritten(engine: Engine) -> None:
    """CVE-2019-5736: what enters can't be opened for writing, and the interpreter on the host is the same after it."""
    program = Path(sys.executable).resolve()
    before = hashlib.sha256(program.read_bytes()).digest()
    _, told = watched(engine, OVERWRITE)
    assert not told
    assert hashlib.sha256(program.read_bytes()).digest() == before


def test_self_exe_as_program(engine: Engine) -> None:
    """CVE-2019-5736: /proc/self/exe as the program to run, or a link to it, never starts the host's interpreter."""
    container = engine.start()
    for argv in (["/proc/self/exe", "--version"], ["/proc/1/exe", "--help"]):
        result = engine.docker("exec", container, *argv, check=False)
        assert "Python" not in result.out + result.err and "tare" not in result.out + result.err
    result = engine.docker("run", "--rm", "--entrypoint", "/proc/self/exe", engine.image, "--version", check=False)
    assert "Python" not in result.out and "runc" not in result.out


def test_interpreter_lines_are_resolved_inside(engine: Engine) -> None:
    """A script whose #! names /proc/self/exe or a program of the host's doesn't run it."""
    container = engine.start()
    for line in ("#!/proc/self/exe", f"#!{sys.executable}"):
        script = f"printf '%s\\n' '{line}' > /tmp/s; chmod 755 /tmp/s"
        engine.docker("exec", container, "sh", "-c", script)
        result = engine.docker("exec", container, "/tmp/s", check=False)
        assert "Python" not in result.out + result.err or result.code != 0
