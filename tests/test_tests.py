"""The tests' own house: helpers live in helper modules, files stay short, and one module does the waiting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = sorted(HERE.rglob("*.py"))
MOST_LINES = 600

WAITING = "waiting.py"
AT_THEIR_OWN_PACE = {
    "e2e/test_hooks_daemon.py": "a load: its clients pause between requests, and each fault lasts for a while",
    "house.py": "it measures; what a request enters after its answer is counted, too",
    "soak/auditor.py": "it looks again and again for as long as the soak runs",
    "soak/clients.py": "they try again after random pauses, as clients do",
    "soak/draft_clients.py": "they ask again for a time, as clients do",
    "soak/probe.py": "it measures how long uploads stand still",
    "soak/shared.py": "its processes, faults and checks have their own rhythm",
    "soak/moments.py": "a process in the middle of something is waited for",
    "soak/shared_watch.py": "it looks again and again for as long as the soak runs",
    "soak/soak.py": "its daemons, faults and checks have their own rhythm",
}
"""Files that sleep or look at the clock although they are not the one that waits, and why."""


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, or from which; "" for ``from . import``'s own package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (each.name for each in node.names if node.module is None or node.module.startswith("tests"))


def of_test_modules(path: Path) -> list[str]:
    """Those of the tests' own modules that a file imports."""
    stems = {each.stem for each in FILES if each.name.startswith("test_")}
    return [name for name in imported(path) if name.rpartition(".")[2] in stems]


def _is_of_time(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in (f"time.{name}", name)


def waits(tree: ast.AST) -> bool:
    """Whether code sleeps, or compares something with the clock."""
    return any(
        _is_of_time(node, "sleep")
        or (isinstance(node, ast.Compare) and any(_is_of_time(each, "monotonic") for each in ast.walk(node)))
        for node in ast.walk(tree)
    )


def test_no_test_module_is_imported() -> None:
    assert {str(path.relative_to(HERE)): found for path in FILES if (found := of_test_modules(path))} == {}


def test_no_file_is_too_long_to_overlook() -> None:
    lengths = {str(path.relative_to(HERE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_one_module_waits_for_the_others() -> None:
    waiting = {str(path.relative_to(HERE)) for path in FILES if waits(ast.parse(path.read_text(encoding="utf-8")))}
    assert waiting == {WAITING, *AT_THEIR_OWN_PACE}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("time.sleep(1)", True),
        ("sleep(1)", True),
        ("while time.monotonic() < until: pass", True),
        ("assert until - time.monotonic() > 0", True),
        ("began = time.monotonic()", False),
        ("clock.sleep(1)", False),
        ("monotonic=time.monotonic", False),
    ],
)
def test_sleeping_and_comparing_with_the_clock_is_waiting(code: str, expected: bool) -> None:
    assert waits(ast.parse(code)) is expected
