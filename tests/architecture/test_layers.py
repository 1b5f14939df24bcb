"""Imports go strictly downwards, and the core touches no socket, file, clock or global RNG.

The import graph is read from the source text, lazy imports inside functions included.
"""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "bandit_router"

LEVELS: dict[str, int] = {
    "": 0,  # bandit_router/__init__.py: the version, nothing else
    "types": 0,
    "errors": 0,
    "events": 1,
    "features": 2,
    "models": 2,
    "eligibility": 2,
    "quality": 2,
    "policy": 2,
    "reward": 2,
    "budget": 2,
    "drift": 2,
    "regret": 2,
    "ope": 2,
    "rollout": 2,
    "router": 3,
    "joiner": 3,
    "learner": 3,
    "loop": 4,
    "snapshot": 4,
    "replay": 4,
    "adapters": 4,
    "advice": 5,
    "assigning": 5,
    "config": 5,
    "bootstrap": 5,
    "live": 5,
    "store_ops": 5,
    "streaming": 5,
    "bench": 6,
    "cli": 6,
    "demo": 6,
    "progress": 6,
    "report": 6,
    "gateway": 6,
    "dashboard": 6,
}
DATA_ONLY = {"data"}
CORE_LEVELS = range(4)
CORE_THIRD_PARTY = {"numpy", "msgspec", "numba"}
OUTSIDE_WORLD = {
    "asyncio", "datetime", "fileinput", "glob", "http", "io", "logging", "mmap", "multiprocessing",
    "os", "pathlib", "random", "secrets", "select", "shutil", "signal", "socket", "socketserver",
    "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
OUTSIDE_CALLS = {"open", "input", "print"}
SEEDED = {"Generator", "PCG64", "SeedSequence", "default_rng"}
MAX_LINES = 500


def module_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """The layer's key: the first component below the package, without its suffix."""
    relative = path.relative_to(PACKAGE)
    first = relative.parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def dotted(path: Path) -> str:
    """The module's import name."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported, `from a import b` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_part(name: str) -> str | None:
    """The layer's key that an imported name belongs to, or None for foreign modules."""
    parts = name.split(".")
    if parts[0] != "bandit_router":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LEVELS else ""


def outside_calls(tree: ast.AST) -> Iterator[str]:
    """Calls of open, input, print, of numpy's global RNG, or of a generator without a seed."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        drawn = re.fullmatch(r"(?:np|numpy)\.random\.(\w+)", name)
        seeded = drawn and drawn[1] in SEEDED and bool(node.args or node.keywords)
        if name in OUTSIDE_CALLS or (drawn and not seeded):
            yield name


def upward(part: str, tree: ast.AST) -> list[str]:
    """The imports of ``tree``, a module of ``part``, that go to a higher level."""
    level = LEVELS[part]
    found = []
    for name in imported_names(tree):
        other = own_part(name)
        if other is not None and other != part and LEVELS[other] > level:
            found.append(f"level {level} imports {name} of level {LEVELS[other]}")
    return found


def impure(tree: ast.AST) -> list[str]:
    """What in ``tree`` reaches for the outside world or a library the core does not use."""
    found = []
    for name in imported_names(tree):
        top = name.split(".")[0]
        if top in OUTSIDE_WORLD:
            found.append(f"imports {top}")
        elif top not in CORE_THIRD_PARTY | {"bandit_router"} | sys.stdlib_module_names:
            found.append(f"imports third-party {top}")
    found.extend(f"calls {call}" for call in outside_calls(tree))
    return found


@pytest.mark.parametrize("path", module_files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_has_a_level_and_imports_downwards(path: Path):
    part = part_of(path)
    assert part in LEVELS or part in DATA_ONLY, f"{path}: give {part!r} a level in LEVELS"
    if part in LEVELS:
        assert upward(part, ast.parse(path.read_text())) == []


CORE_FILES = [path for path in module_files() if LEVELS.get(part_of(path)) in CORE_LEVELS]


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_core_touches_no_outside_world(path: Path):
    assert impure(ast.parse(path.read_text())) == []


@pytest.mark.parametrize("path", module_files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_is_longer_than_500_lines(path: Path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_modules_do_not_import_each_other_in_a_circle():
    files = {dotted(path): path for path in module_files()}
    graph = {
        name: {
            target
            for imported in imported_names(ast.parse(path.read_text()))
            for target in (imported, imported.rpartition(".")[0])
            if target in files and target != name
        }
        for name, path in files.items()
    }
    assert tuple(graphlib.TopologicalSorter(graph).static_order())


def test_vowpal_wabbit_is_known_to_the_vowpal_adapters_alone():
    users = {
        str(path.relative_to(PACKAGE))
        for path in module_files()
        if any(
            n.split(".")[0] == "vowpalwabbit" for n in imported_names(ast.parse(path.read_text()))
        )
    }
    assert all(user.startswith("adapters/vowpal") for user in users), users


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("from bandit_router.cli import app", "level 2 imports bandit_router.cli.app of level 6"),
        (
            "def f():\n    import bandit_router.loop",
            "level 2 imports bandit_router.loop of level 4",
        ),
    ],
)
def test_the_checker_sees_an_upward_import(source: str, complaint: str):
    assert upward("policy", ast.parse(source)) == [complaint]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import time", "imports time"),
        ("def f():\n    from pathlib import Path", "imports pathlib"),
        ("import scipy.stats", "imports third-party scipy"),
        ("np.random.default_rng()", "calls np.random.default_rng"),
        ("open('x')", "calls open"),
    ],
)
def test_the_checker_sees_the_outside_world(source: str, complaint: str):
    assert impure(ast.parse(source)) == [complaint]
