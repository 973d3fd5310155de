"""Every numbered obligation of tus 1.0.0 is named by a test."""

from __future__ import annotations

import re
from pathlib import Path

OBLIGATIONS = {f"T{number}" for number in range(1, 63)}
HERE = Path(__file__).resolve().parent


def named(pattern: str) -> set[str]:
    """The obligations named in the tests under ``pattern``; a range like "T1 to T62" names none."""
    files = (path for path in HERE.glob(pattern) if path.name.startswith("test_") and path != Path(__file__))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return set(re.findall(r"\bT\d+\b", re.sub(r"T\d+ to T\d+", "", text)))


def test_every_obligation_is_named_by_a_test() -> None:
    assert OBLIGATIONS - named("**/*.py") == set()


def test_every_obligation_is_shown_over_http() -> None:
    assert OBLIGATIONS - named("e2e/*.py") == set()


def test_no_test_names_an_obligation_that_does_not_exist() -> None:
    assert named("**/*.py") - OBLIGATIONS == set()
