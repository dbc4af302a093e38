"""Real clients, unchanged, each with a scenario of its own that passes on Tare and on a real dockerd alike."""

from __future__ import annotations

from support.clients import Scenario, scenario_file


def test_python_on_whales(scenario: Scenario, python: str) -> None:
    """python-on-whales: run, exec, copy, logs, volumes, images, system, all by the official command line."""
    scenario(python, scenario_file("python_on_whales_life.py"))


def test_aiodocker(scenario: Scenario, python: str) -> None:
    """aiodocker: containers, logs, attach, exec, archives, events, volumes, images."""
    scenario(python, scenario_file("aiodocker_life.py"))


def test_testcontainers_for_python(scenario: Scenario, python: str) -> None:
    """testcontainers: a server that lasts for a block, reached by its published port."""
    scenario(python, scenario_file("testcontainers_life.py"))
