"""Events: what each verb tells, in which order and with which attributes; on both engines."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from support.engine import Engine


def events_of(engine: Engine, kind: str, actor: str) -> list[dict[str, Any]]:
    """All that has been told of one container or image so far."""
    filters = json.dumps({"type": [kind], kind: [actor]})
    answer = engine.api.request(
        "GET", "/events", query={"since": "0", "until": f"{time.time():.6f}", "filters": filters}
    )
    assert answer.status == 200, answer
    return [json.loads(line) for line in answer.body.splitlines()]


def actions(events: list[dict[str, Any]]) -> list[str]:
    """Their actions; a signal's with its number, an exec's without what Docker has behind it."""
    found = []
    for event in events:
        signal = event["Actor"]["Attributes"].get("signal")
        found.append(f"kill {signal}" if signal else event["Action"].strip())
    return found


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        (["stop", "-t", "0"], ["kill 15", "kill 9", "die", "stop"]),
        (["restart", "-t", "0"], ["kill 15", "kill 9", "die", "stop", "start", "restart"]),
        (["rm", "-f"], ["kill 9", "die", "destroy"]),
        (["kill"], ["kill 9", "die"]),
        (["top"], ["top"]),
    ],
)
def test_each_signal_and_look_is_told(engine: Engine, verb: list[str], told: list[str]) -> None:
    """Whoever sends a container a signal, there is an event of it; of top, too."""
    container = engine.start(command=("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done"))
    follower = engine.popen("logs", "-f", container)
    assert follower.stdout is not None and follower.stdout.readline() == b"up\n"
    follower.kill()
    follower.communicate()
    engine.docker(*verb, container)
    if "die" in told and "start" not in told and "destroy" not in told:
        engine.exit_code(container)
    seen = actions(events_of(engine, "container", container))
    if not engine.is_tare and engine.release > 20 and "stop" in seen:  # there stop is told before die, or after it
        seen, told = sorted(seen), sorted(told)
        assert seen == sorted(["create", "start", *told])
    else:
        assert seen == ["create", "start", *told]


def test_an_exec_starts_before_it_ends(engine: Engine) -> None:
    """However short it is."""
    container = engine.start()
    for _ in range(3):
        engine.docker("exec", container, "true")
    told = actions(events_of(engine, "container", container))
    assert told == ["create", "start", *(["exec_create: true", "exec_start: true", "exec_die"] * 3)]


def test_old_fields_stay(engine: Engine) -> None:
    """What Compose 1.29 reads, which speaks the newest version that an engine has."""
    container = engine.start()
    created = events_of(engine, "container", container)[0]
    assert (created["status"], created["id"], created["from"]) == ("create", container, engine.image)
    assert created["Actor"]["ID"] == container and created["Action"] == "create"


def test_names_given_by_commit_and_import(engine: Engine) -> None:
    """There is an event of each name that an image gets, with the image's labels."""
    container = engine.docker("create", "--label", "mine=1", engine.image, "true").out.strip()
    name = engine.unique("image") + ":1"
    image = engine.docker("commit", container, name).out.strip()
    told = actions(events_of(engine, "image", image))
    assert told == ["create", "tag"] or (engine.release == 20 and told == ["tag"])
    found = [event for event in events_of(engine, "image", image) if event["Action"] == "tag"]
    assert [event["Actor"]["Attributes"] for event in found] == [{"mine": "1", "name": name}]
    engine.docker("rmi", name)
    export = engine.api.request("GET", f"/containers/{container}/export")
    imported = engine.import_image(name, export.body)
    assert "tag" in actions(events_of(engine, "image", imported))
    engine.docker("rmi", name)
