"""docs/python.md: each example is run as it stands, on both engines, and prints what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engine import Engine, clean_environment

PAGE = Path(__file__).parent.parent.parent / "docs" / "python.md"
EXAMPLE = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
EXAMPLES = EXAMPLE.findall(PAGE.read_text())


@pytest.fixture(scope="module")
def with_busybox(any_engine: Engine) -> Iterator[Engine]:
    """An engine that has the image which the examples name."""
    answer = any_engine.api.request(
        "POST", f"/images/{any_engine.image}/tag", query={"repo": "busybox", "tag": "latest"}
    )
    assert answer.status == 201
    yield any_engine
    any_engine.clean()
    if not any_engine.shared:
        any_engine.api.request("DELETE", "/images/busybox:latest", query={"noprune": "1"})


def test_every_example_says_what_it_prints() -> None:
    """No example on the page is left out."""
    assert len(EXAMPLES) == PAGE.read_text().count("```python")
    assert len(EXAMPLES[0][0].splitlines()) == 3


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example(number: int, with_busybox: Engine, tmp_path: Path) -> None:
    """The example prints what stands below it, and leaves no container."""
    code, expected = EXAMPLES[number]
    environment = clean_environment({"TARE_HOST": f"unix://{with_busybox.socket}"})
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (expected, "")
    assert with_busybox.containers() == []
