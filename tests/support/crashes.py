"""Sweeps over fault points: at each one that a scenario passes, the process that comes there dies or fails.

A scenario is a list of verbs that begins and ends with nothing. It is run once to see which points each verb passes.
Then for each of them: the verbs before it, the verb itself with the point armed, a new daemon if this one died, a look
whether its word and the kernel agree, the verb again, and the rest. One daemon serves until it is killed: its start is
what takes the time.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from support import leftovers
from support.deadline import wait_until
from support.rawhttp import Answer
from support.tared import Tared, marks_of

Act = Callable[[], Answer | None]
UNSEEN = {"runtime.mounts.done": "runtime.mounts.source"}
"""Points that are passed where the host's files aren't seen any more, with one that is passed before."""
DONE_BEFORE = (304, 404, 409)
"""What a verb may answer that had done its work before the crash."""


class Verb(NamedTuple):
    """One request (or wait). done: what else it may answer when it had been done."""

    name: str
    act: Act
    done: tuple[int, ...] = ()


class Scenario(NamedTuple):
    """verbs: from nothing to nothing. disagreement: where the daemon's word and the kernel's differ, in words."""

    name: str
    verbs: Callable[[Tared], Sequence[Verb]]
    disagreement: Callable[[Tared], list[str]]
    cleared: Callable[[Tared], list[str]]


class Sweep:
    """A daemon whose points can be armed, until a failure spoils it."""

    def __init__(self, *args: str, bridge: bool = True) -> None:
        self.before = leftovers.snapshot()
        self._args, self._bridge = args, bridge
        self._daemon: Tared | None = None
        self._passed: dict[str, dict[str, list[str]]] = {}

    def daemon(self) -> Tared:
        """It runs, with an image in it, and nothing is armed."""
        if self._daemon is None:
            self._daemon = daemon = Tared(*self._args, bridge=self._bridge)
            daemon.make_armable()
            daemon.start()
            daemon.engine.prepare()
        return self._daemon

    def points_of(self, scenario: Scenario) -> dict[str, list[str]]:
        """The points that each verb of a scenario passes."""
        if scenario.name not in self._passed:
            daemon, found = self.daemon(), {}
            for verb in scenario.verbs(daemon):
                daemon.arm("")
                answer = verb.act()
                assert answer is None or answer.status < 400, (verb.name, answer)
                agree(daemon, scenario.disagreement)
                found[verb.name] = daemon.passed()
            agree(daemon, scenario.cleared)
            self._passed[scenario.name] = found
        return self._passed[scenario.name]

    def check(self, scenario: Scenario, verb: str, spec: str) -> None:
        """One step of the sweep."""
        try:
            self._check(scenario, verb, spec)
        except BaseException:
            self.drop(check=False)
            raise

    def _check(self, scenario: Scenario, name: str, spec: str) -> None:
        daemon, hit = self.daemon(), False
        for verb in scenario.verbs(daemon):
            if verb.name == name:
                hit = True
                self._crash(daemon, verb, spec)
                agree(daemon, scenario.disagreement)
                answer = verb.act()
                assert answer is None or answer.status < 400 or answer.status in (*DONE_BEFORE, *verb.done), answer
                continue
            answer = verb.act()
            when = "after" if hit else "before"
            assert answer is None or answer.status < 400, (f"{verb.name} {when} the crash", answer, daemon.log_tail(20))
        agree(daemon, scenario.cleared)

    def _crash(self, daemon: Tared, verb: Verb, spec: str) -> None:
        daemon.arm(spec)
        try:
            verb.act()
        except (OSError, EOFError, http.client.HTTPException, AssertionError):
            pass  # it was cut off
        name = spec.partition(":")[0].partition("@")[0]
        name = UNSEEN.get(name, name)
        wait_until(lambda: name in daemon.passed(), f"{verb.name} passes {name}", 10)
        daemon.arm("")
        if spec.endswith(":kill"):
            self._revive(daemon)

    def _revive(self, daemon: Tared) -> None:
        """A new daemon if this one was killed: what is killed at a point is dead when the next thing happens to it."""
        try:
            daemon.engine.api.request("GET", "/_ping", check=False, timeout=5)
        except (OSError, EOFError, http.client.HTTPException):
            daemon.wait_dead()
            daemon.start()

    def check_boot(self, spec: str) -> None:
        """Killed on the way up; the next start succeeds."""
        try:
            daemon = self.daemon()
            daemon.terminate()
            daemon.arm(spec)
            daemon.start(wait=False)
            daemon.wait_dead()
            daemon.arm("")
            daemon.start()
        except BaseException:
            self.drop(check=False)
            raise

    def boot_points(self) -> list[str]:
        """Points that a start of the daemon passes."""
        if "" not in self._passed:
            daemon = self.daemon()
            daemon.terminate()
            daemon.arm("")
            daemon.start()
            self._passed[""] = {"": daemon.passed()}
        return self._passed[""][""]

    def drop(self, *, check: bool = True) -> None:
        """Ends the daemon; nothing of it may be left."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        try:
            daemon.stop()
            if check:
                leftovers.assert_none(self.before, marks_of([daemon]), everything=False)
        finally:
            daemon.scrub()


def agree(daemon: Tared, look: Callable[[Tared], list[str]]) -> None:
    """Waits until all agrees (an ended container's removal goes on beside)."""
    last: list[str] = []

    def agrees() -> bool:
        try:
            last[:] = look(daemon)
        except (AssertionError, OSError) as error:
            last[:] = [f"it changes meanwhile: {error}"]
        return not last

    try:
        wait_until(agrees, "daemon and kernel agree", 10)
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(last) + "\n" + daemon.log_tail(20)) from None


def asker(daemon: Tared) -> Callable[..., Answer]:
    """ask(method, path, body, **query) → the answer."""

    def ask(method: str, path: str, body: Any = None, /, **query: Any) -> Answer:
        return daemon.engine.api.request(method, path, body, query=query, check=False, timeout=15)

    return ask


def names(path: Path) -> set[str]:
    """Entries of a folder that may be absent, but for those in which what was removed waits."""
    return {name for name in os.listdir(path) if not name.startswith(".")} if path.is_dir() else set()


def first_passing(
    scenarios: Iterable[Scenario], points: Callable[[Scenario], dict[str, list[str]]], point: str
) -> list[tuple[Scenario, str]]:
    """(scenario, verb): every verb that passes a point; of a verb that several scenarios have, the first one's."""
    found: dict[str, tuple[Scenario, str]] = {}
    for scenario in scenarios:
        for verb, passed in points(scenario).items():
            if UNSEEN.get(point, point) in passed:
                found.setdefault(verb, (scenario, verb))
    return list(found.values())
