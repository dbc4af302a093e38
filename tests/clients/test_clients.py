"""Real clients, unchanged, each with a scenario of its own that passes on Tare and on a real dockerd alike."""

from __future__ import annotations

import shutil
import sys

import pytest

from support.clients import Scenario, installed, scenario_file
from support.engine import Engine

pytestmark = pytest.mark.timeout(1000)


def test_python_on_whales(scenario: Scenario, python: str) -> None:
    """python-on-whales: run, exec, copy, logs, volumes, images, system, all by the official command line."""
    scenario(python, scenario_file("python_on_whales_life.py"))


def test_aiodocker(scenario: Scenario, python: str) -> None:
    """aiodocker: containers, logs, attach, exec, archives, events, volumes, images."""
    scenario(python, scenario_file("aiodocker_life.py"))


def test_testcontainers_for_python(scenario: Scenario, python: str) -> None:
    """testcontainers: a server that lasts for a block, reached by its published port."""
    scenario(python, scenario_file("testcontainers_life.py"))


def test_dockerode(scenario: Scenario, node: dict[str, str]) -> None:
    """dockerode: run, attach, exec, logs, archives, stats, events, volumes and images in Node."""
    scenario("node", scenario_file("dockerode_life.js"), env=node)


def test_testcontainers_for_node(scenario: Scenario, node: dict[str, str]) -> None:
    """testcontainers for Node: a server that is waited for by its log and its port."""
    scenario("node", scenario_file("testcontainers_life.js"), env=node)


def test_docker_api_for_ruby(scenario: Scenario) -> None:
    """docker-api, by which Chef speaks to Docker: exec, files, logs, stats, images, volumes."""
    installed("ruby")
    scenario("ruby", scenario_file("ruby_life.rb"))


@pytest.mark.parametrize(("origin", "networks"), [("debian", "networks"), ("pypi", "bridge")])
def test_compose(scenario: Scenario, engine: Engine, origin: str, networks: str) -> None:
    """Compose 1.29: a project's whole life, on the default bridge and on a network of its own with names."""
    where = installed("compose" if origin == "debian" else "compose-pypi")
    program = "/usr/bin/docker-compose" if origin == "debian" else str(where / "bin" / "docker-compose")
    scenario(sys.executable, scenario_file("compose_life.py"), program, networks, timeout=240)


def test_ansible(scenario: Scenario) -> None:
    """Ansible's community.docker: containers that converge, exec, files, volumes, images, facts, prune."""
    playbook = str(installed("ansible") / "bin" / "ansible-playbook")
    scenario(playbook, "-i", "localhost,", scenario_file("ansible_life.yml"), timeout=110)


def test_devcontainers(scenario: Scenario, node: dict[str, str]) -> None:
    """The dev-containers CLI: a folder's container comes up, runs a program, and comes up again as the same."""
    cli = f"{node['NODE_PATH']}/@devcontainers/cli/devcontainer.js"
    scenario(sys.executable, scenario_file("devcontainer_life.py"), cli, timeout=110)


def test_prometheus(scenario: Scenario) -> None:
    """Prometheus finds a container by its Docker service discovery, with labels, network and port."""
    installed("prometheus")
    assert shutil.which("prometheus")
    scenario(sys.executable, scenario_file("prometheus_discovery.py"))
