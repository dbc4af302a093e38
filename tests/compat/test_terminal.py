"""Interactive use under a real pty: run -it, window sizes, detaching and coming back, exec -it; on both engines."""

from __future__ import annotations

import select

from support.deadline import wait_until
from support.engine import Engine

DETACH = b"\x10\x11"  # ctrl-p ctrl-q


def test_run_interactive_shell(engine: Engine) -> None:
    """A shell under `run -it` has a terminal, echoes, and its exit code becomes the client's."""
    with engine.terminal("run", "--rm", "-it", engine.image, "sh") as terminal:
        terminal.expect(b"/ # ")
        terminal.send(b"tty; echo $((6*7))\n")
        terminal.expect(b"/dev/pts/0")
        terminal.expect(b"42\r\n")
        terminal.send(b"exit 5\n")
        assert terminal.wait() == 5


def test_window_size_and_resize(engine: Engine) -> None:
    """The program sees the client's window size, and each change of it."""
    with engine.terminal("run", "--rm", "-it", engine.image, "sh", rows=33, cols=101) as terminal:
        terminal.expect(b"/ # ")
        # the client sends the size right after start: ask until it is there
        terminal.send(b"until [ \"$(stty size)\" = '33 101' ]; do sleep 0.05; done; echo size-$((1+0))\n")
        terminal.expect(b"size-1\r\n")
        terminal.resize(20, 60)
        terminal.send(b"until [ \"$(stty size)\" = '20 60' ]; do sleep 0.05; done; echo size-$((1+1))\n")
        # the client may listen for SIGWINCH only a moment after it sent the first size: turn the window until it does
        terminal.expect(b"size-2\r\n", nudge=lambda: terminal.resize(20, 60))
        terminal.send(b"exit\n")
        assert terminal.wait() == 0


def test_interrupt_key(engine: Engine) -> None:
    """ctrl-c reaches the program in the foreground, not the shell that is pid 1."""
    with engine.terminal("run", "--rm", "-it", engine.image, "sh") as terminal:
        terminal.expect(b"/ # ")
        terminal.send(b"echo sleeps-$((1+0)); sleep 1000\n")
        terminal.expect(b"sleeps-1\r\n")  # the line editor is done: the key now means what it says
        terminal.send(b"\x03")
        terminal.expect(b"/ # ")
        terminal.send(b"echo $?; exit\n")
        terminal.expect(b"130\r\n")
        assert terminal.wait() == 0


def test_detach_and_attach_again(engine: Engine) -> None:
    """ctrl-p ctrl-q leaves the program running; attach comes back to it, more than once."""
    name = engine.unique()
    with engine.terminal("run", "-it", "--name", name, engine.image, "sh") as terminal:
        terminal.expect(b"/ # ")
        terminal.send(b"value=kept\n")
        terminal.expect(b"/ # ")
        terminal.send(DETACH)
        assert terminal.wait() == 0
    for _ in range(2):
        assert engine.inspect(name)["State"]["Running"]
        with engine.terminal("attach", name) as terminal:
            terminal.send(b"\necho got-$value\n")
            terminal.expect(b"got-kept\r\n")
            terminal.send(DETACH)
            assert terminal.wait() in (0, 1)  # newer clients call it an error
            terminal.expect(b"read escape sequence")
    with engine.terminal("attach", name) as terminal:
        terminal.send(b"\nexit 3\n")
        assert terminal.wait() == 3


def test_detach_keys_of_choice(engine: Engine) -> None:
    """--detach-keys replaces the sequence; the usual keys then go to the program."""
    name = engine.unique()
    with engine.terminal("run", "-it", "--name", name, "--detach-keys", "ctrl-x,y", engine.image, "cat") as terminal:
        terminal.send(b"line\n")
        terminal.expect(b"line\r\nline\r\n")
        terminal.send(b"\x18y")
        assert terminal.wait() == 0
    assert engine.inspect(name)["State"]["Running"]
    engine.docker("rm", "-f", name)


def test_partial_detach_sequence_reaches_the_program(engine: Engine) -> None:
    """The first key of the sequence followed by another is passed on, both of them."""
    script = "stty raw -echo; echo up; head -c 2 | od -c"
    with engine.terminal("run", "--rm", "-it", engine.image, "sh", "-c", script) as terminal:
        terminal.expect(b"up")
        terminal.send(b"\x10x")
        terminal.expect(b"020   x")
        terminal.wait()


def test_exec_interactive(engine: Engine) -> None:
    """exec -it gives its own terminal, with a size, and its own exit code; detaching leaves it running."""
    container = engine.start(flags=["-t"])
    with engine.terminal("exec", "-it", container, "sh", rows=31, cols=99) as terminal:
        terminal.expect(b"/ # ")
        terminal.send(b"tty; until [ \"$(stty size)\" = '31 99' ]; do sleep 0.05; done; echo ok-$((1+1))\n")
        terminal.expect(b"/dev/pts/1")
        terminal.expect(b"ok-2\r\n")
        terminal.send(b"exit 9\n")
        assert terminal.wait() == 9
    with engine.terminal("exec", "-it", container, "sh", "-c", "echo up; sleep 4242") as terminal:
        terminal.expect(b"up")
        terminal.send(DETACH)
        terminal.wait()
    assert "sleep 4242" in engine.docker("top", container).out


def test_start_attached_interactive(engine: Engine) -> None:
    """start -ai gives the terminal of a container made with create -it."""
    name = engine.unique()
    engine.docker("create", "-it", "--name", name, engine.image, "sh")
    with engine.terminal("start", "-ai", name) as terminal:
        terminal.expect(b"/ # ")
        terminal.send(b"exit 4\n")
        assert terminal.wait() == 4


def test_logs_of_a_terminal(engine: Engine) -> None:
    """What a terminal showed is in the log, keys echoed included."""
    name = engine.unique()
    with engine.terminal("run", "-it", "--name", name, engine.image, "sh") as terminal:
        terminal.expect(b"/ # ")
        terminal.send(b"echo logged-$((40+2))\n")
        terminal.expect(b"logged-42\r\n")
        terminal.send(b"exit\n")
        assert terminal.wait() == 0
    wait_until(lambda: "logged-42" in engine.docker("logs", name).out, "it is in the log")


def test_attach_without_terminal_proxies_signals(engine: Engine) -> None:
    """A signal to the attached client is passed to the container's program."""
    script = "trap 'echo caught; exit 8' TERM; echo ready; while :; do sleep 0.05; done"
    client = engine.popen("run", "--rm", engine.image, "sh", "-c", script)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.terminate()
    out, _ = client.communicate(timeout=100)
    assert (out, client.returncode) == (b"caught\n", 8)


def test_attach_sees_only_what_comes(engine: Engine) -> None:
    """attach shows output from now on to several clients at once, stdin of one reaches the program, then all end."""
    script = "echo early; while read l; do echo got-$l; [ $l = end ] && exit 2; done"
    container = engine.start(flags=["-i"], command=["sh", "-c", script])
    wait_until(lambda: "early" in engine.logs(container), "the first line is out")
    watcher = engine.popen("attach", "--no-stdin", container)
    typist = engine.popen("attach", container)
    assert typist.stdin is not None and watcher.stdout is not None

    def both_are_attached() -> bool:
        assert typist.stdin is not None
        typist.stdin.write(b"x\n")
        typist.stdin.flush()
        assert watcher.stdout is not None
        return bool(select.select([watcher.stdout], [], [], 0.2)[0])

    wait_until(both_are_attached, "the watcher sees output")
    out, _ = typist.communicate(b"end\n", timeout=100)
    assert out.startswith(b"got-x\n") and typist.returncode == 2
    assert watcher.stdout.read().endswith(b"got-end\n")
    assert watcher.wait(60) == 2
