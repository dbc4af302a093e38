"""The rules of the house, checked on the source: doors between rooms, who may call the kernel, sizes, names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "tare"
FILES = sorted(SOURCE.rglob("*.py"))

# Each room may import itself, what stands here, and nothing else of ours.
FLOOR = {"errors", "faults", "values"}
DOORS = {
    "errors": set[str](),
    "faults": {"errors"},
    "values": {"errors"},
    "kernel": FLOOR,
    "oci": FLOOR,
    "runtime": FLOOR | {"kernel", "oci"},
    "storage": FLOOR | {"kernel", "oci"},
    "images": FLOOR | {"kernel", "oci", "storage"},
    "network": FLOOR | {"kernel", "oci", "storage"},
    "volumes": FLOOR | {"kernel", "oci", "storage"},
    "registry": FLOOR | {"kernel", "oci", "storage"},
    "engine": FLOOR | {"kernel", "oci", "runtime", "storage", "images", "network", "volumes", "registry"},
    "api": FLOOR | {"engine", "storage"},  # storage: what an archive answer tells of a path
    "daemon": FLOOR
    | {"kernel", "oci", "runtime", "storage", "images", "network", "volumes", "registry", "engine", "api"},
    "client": {"values"},
    "certificates": {"errors"},
    "sdk": {"values", "client"},
    # certificates, and the errors it raises, only in the one command that makes them
    "cli": {"values", "client", "certificates", "errors"},
}
# Only this module speaks to libc; every other room calls its functions.
CTYPES = {"kernel/libc.py"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "handler", "base", "core"}
# Files that were longer than the limit when the rule was made. May only shrink.
LONGER_THAN_LIMIT: dict[str, int] = {}
LIMIT = 500
# Functions with more lines than the limit, by file and name. May only shrink.
LONG_FUNCTIONS: dict[str, int] = {}
FUNCTION_LIMIT = 50
# What runs between fork and exec, or in every small process: nothing heavy may come in with it.
LIGHT_MODULES = ("tare.runtime.init", "tare.runtime.enter", "tare.kernel.libc")
HEAVY = ("asyncio", "logging", "dataclasses", "subprocess", "http", "json.tool", "sqlite3", "multiprocessing", "ssl")
STDLIB_ROOMS = ("client", "cli")


def room_of(path: Path) -> str:
    """The room that a source file belongs to: the folder's or the module's name below tare."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(), str(path))


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, also inside functions, those for type checkers included."""
    package = ["tare", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            stem = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*stem, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names if name == "tare")


def named(path: Path) -> str:
    """A file as a test's id."""
    return str(path.relative_to(SOURCE))


def test_every_room_is_known() -> None:
    """A new room needs its doors written down here (and in the design) first."""
    rooms = {room_of(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms <= set(DOORS)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_go_through_the_doors(path: Path) -> None:
    """A room imports only from rooms below it."""
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    used = {name.split(".")[1] for name in imports_of(path) if name.startswith("tare.")}
    assert used - {room} <= DOORS[room], f"{named(path)} reaches through a wall"


def test_only_one_module_speaks_to_libc() -> None:
    """ctypes is imported by kernel/libc.py alone."""
    users = {named(path) for path in FILES if any(name.split(".")[0] == "ctypes" for name in imports_of(path))}
    assert users <= CTYPES


@pytest.mark.parametrize("room", STDLIB_ROOMS)
def test_the_client_needs_nothing_but_python(room: str) -> None:
    """client and cli import the standard library, tare.values and each other only: they start fast, on any engine."""
    allowed = sys.stdlib_module_names | {"tare"}
    foreign = {
        (named(path), name)
        for path in FILES
        if room_of(path) == room
        for name in imports_of(path)
        if name.split(".")[0] not in allowed
    }
    assert not foreign


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_fits_in_a_head(path: Path) -> None:
    """No source file is longer than 500 lines."""
    assert len(path.read_text().splitlines()) <= LONGER_THAN_LIMIT.get(named(path), LIMIT)


def test_the_list_of_long_files_only_shrinks() -> None:
    """An exception that is no longer needed goes."""
    for name, lines in LONGER_THAN_LIMIT.items():
        assert LIMIT < len((SOURCE / name).read_text().splitlines()) <= lines, name


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    """Each function's name and the lines of its body, from the first after its docstring to the last."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield node.name, (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_a_function_fits_on_a_screen() -> None:
    """What a function does takes 50 lines at most, its signature and docstring not counted."""
    lengths = {f"{named(path)} {name}": lines for path in FILES for name, lines in functions_of(path)}
    assert not {name: lines for name, lines in lengths.items() if lines > LONG_FUNCTIONS.get(name, FUNCTION_LIMIT)}


def test_the_list_of_long_functions_only_shrinks() -> None:
    """An exception that is no longer needed goes, and so do lines of one that has fewer now."""
    lengths = {f"{named(path)} {name}": lines for path in FILES for name, lines in functions_of(path)}
    assert {name: lengths.get(name, 0) for name in LONG_FUNCTIONS} == LONG_FUNCTIONS


@pytest.mark.parametrize(
    "path", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_file_is_named_for_what_it_is(path: Path) -> None:
    """No utils, helpers, common … : a file is the noun or verb that a user knows."""
    assert not {part.removesuffix(".py") for part in path.relative_to(ROOT).parts} & FORBIDDEN_NAMES


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_module_says_what_it_is(path: Path) -> None:
    """Every module has a docstring, unless it is empty."""
    module = tree_of(path)
    assert ast.get_docstring(module) or not module.body


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_what_runs_between_fork_and_exec_is_light(module: str) -> None:
    """Importing it brings in no asyncio, logging, dataclasses or subprocess."""
    if not (SOURCE.parent / (module.replace(".", "/") + ".py")).exists():
        pytest.skip(f"{module} isn't written yet")
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(HEAVY) & set(loaded)


def tracked_files() -> list[Path]:
    """Text files in the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        return [path for path in ROOT.rglob("*") if path.is_file() and not {".git", ".venv"} & set(path.parts)]
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_nothing_is_left_for_later() -> None:
    """No note of unfinished work is on the main branch."""
    pattern = re.compile(r"#.*\b(TO" + "DO|FIX" + "ME|X" + r"XX)\b")
    sources = [path for path in tracked_files() if path.suffix in (".py", ".sh", ".toml", ".yaml", ".service")]
    found = [(path.name, line) for path in sources for line in _lines(path) if pattern.search(line)]
    assert not found


def test_no_path_of_a_machine_is_in_the_repository() -> None:
    """No file tells where somebody's checkout, home or tool folder was."""
    pattern = re.compile(r"(?<![\w.])/" + r"work/|/root/\.py" + r"env|/home/\w+/src")
    found = [(path.name, line[:120]) for path in tracked_files() for line in _lines(path) if pattern.search(line)]
    assert not found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
        return []
