"""Every numbered obligation of tus 1.0.0 (T) and of the draft (R) is named by a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

OBLIGATIONS = {
    "T": {f"T{number}" for number in range(1, 63)},
    "R": {f"R{number}" for number in range(1, 51)},
}
#: A test of the draft names its obligations in its files alone: "R2" is a store elsewhere.
OF = {"T": "**/*.py", "R": "**/*draft*.py"}
HERE = Path(__file__).resolve().parent


def named(letter: str, pattern: str) -> set[str]:
    """The obligations named in the tests under ``pattern``; a range like "T1 to T62" names none."""
    files = (path for path in HERE.glob(pattern) if path.name.startswith("test_") and path != Path(__file__))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return set(re.findall(rf"\b{letter}\d+\b", re.sub(rf"{letter}\d+ to {letter}\d+", "", text)))


@pytest.mark.parametrize("letter", OBLIGATIONS)
def test_every_obligation_is_named_by_a_test(letter: str) -> None:
    assert OBLIGATIONS[letter] - named(letter, OF[letter]) == set()


def test_every_obligation_is_shown_over_http() -> None:
    assert OBLIGATIONS["T"] - named("T", "e2e/*.py") == set()


@pytest.mark.parametrize("letter", OBLIGATIONS)
def test_no_test_names_an_obligation_that_does_not_exist(letter: str) -> None:
    assert named(letter, OF[letter]) - OBLIGATIONS[letter] == set()
