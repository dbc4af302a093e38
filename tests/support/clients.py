"""Finds the foreign clients that scripts/clients installs, and the scenarios written for them; imports none of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.engine import Result

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "build" / "clients"
SCENARIOS = ROOT / "tests" / "clients" / "scenarios"
Scenario = Callable[..., Result]


def installed(name: str) -> Path:
    """Where a client lives; skips the test if it isn't installed."""
    if not (CLIENTS / f"{name}.installed").exists():
        pytest.skip(f"client not installed: {name} (scripts/clients {name})")
    return CLIENTS / name


def scenario_file(name: str) -> str:
    """The program of a scenario."""
    return str(SCENARIOS / name)
