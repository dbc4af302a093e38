"""The documents, checked on the tree: what they point to exists, and they speak of Tare alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
# A path in the source as ARCHITECTURE.md writes it: `runtime/monitor.py`, `storage/`, `tests/…`
QUOTED_PATH = re.compile(r"`([a-z_]+(?:/[a-z_0-9.]+)*/?)`")
ROOMS = {path.name for path in (ROOT / "src" / "tare").iterdir() if path.is_dir()}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    """A reader who follows a link finds a file."""
    targets = [target for target in LINK.findall(document.read_text()) if "://" not in target]
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_source_path_that_is_named_exists(document: Path) -> None:
    """A file that a document names by its path below src/tare, or below the repository, is there."""
    for path in QUOTED_PATH.findall(document.read_text()):
        if "/" in path.rstrip("/") and path.partition("/")[0] in ROOMS:
            assert (ROOT / "src" / "tare" / path).exists(), f"{path} is named, but is not in src/tare"
        elif path.startswith(("tests/", "scripts/", "docs/", "bench/", "packaging/")):
            assert (ROOT / path).exists(), f"{path} is named, but does not exist"


def test_every_decision_is_numbered_once() -> None:
    """docs/adr holds 0001-…, 0002-… without a gap or a double."""
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "adr").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_make_target_says_what_it_is() -> None:
    """`make help` shows each target that the Makefile declares."""
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    documented = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert set(phony[1].split()) == documented


def test_every_granted_wish_is_shown() -> None:
    """Each test that docs/wishes.md names is one, and each row names one."""
    text = (ROOT / "docs" / "wishes.md").read_text()
    file = ""
    for name in re.findall(r"`([\w/.]*::\w+)`", text):
        path, _, function = name.partition("::")
        file = path or file
        assert re.search(rf"^def {function}\(", (ROOT / file).read_text(), re.MULTILINE), name
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| the wish")]
    assert rows and all("::test_" in row for row in rows)
