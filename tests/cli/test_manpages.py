"""Manual pages: one for every command, with all that --help shows, in clean roff."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tare.cli.main import load
from tare.cli.manpage import escape, page_name
from tare.cli.tree import COMMANDS, GROUPS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages, made anew."""
    directory = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, ROOT / "scripts" / "manpages", directory], check=True, capture_output=True)
    return directory


def test_every_command_has_a_page(pages: Path) -> None:
    """tare, each group and each command have a page of their own, and there are no others."""
    expected = {f"{page_name(path)}.1" for path in ("", *GROUPS, *COMMANDS)}
    assert {path.name for path in (pages / "man1").iterdir()} == expected
    assert [path.name for path in (pages / "man8").iterdir()] == ["tared.8"]


def test_a_page_has_every_flag(pages: Path) -> None:
    """Each flag that --help shows is on the command's page, and each command on its group's."""
    for path in COMMANDS:
        text = (pages / "man1" / f"{page_name(path)}.1").read_text()
        for flag in load(path).flags:
            assert (f"\\-\\-{escape(flag.name)}\\fR" in text) == bool(flag.about), (path, flag.name)
        group = path.partition(" ")[0]
        if group in GROUPS:
            assert escape(page_name(path)) in (pages / "man1" / f"tare-{group}.1").read_text()


def test_pages_are_clean_roff(pages: Path) -> None:
    """groff reads all pages without a warning."""
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    files = sorted(pages.glob("man*/*"))
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", *files], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\" not in done.stdout.replace("\\\n", "")


def test_text_that_roff_would_obey() -> None:
    """Points, quotes and backslashes of a text stay text."""
    assert escape(".SH a\\b 'c'") == "\\&.SH a\\eb \\(aqc\\(aq"
    assert escape("'sh -c'") == "\\(aqsh \\-c\\(aq"
