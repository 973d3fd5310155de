"""The fragments of docs/embedding.md are right; its programs are run in tests/e2e."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from twisted.web.resource import Resource

from resumable.config import BY_FLAG
from resumable.embed import UploadServer
from resumable.embed.arguments import _NOT_HERE

PAGE = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("mark", ["path", "options", "admin"])
def test_a_fragment_makes_a_server(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(rf"<!-- fragment: {mark} -->\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"embedding.md: {mark}", "exec"), {"UploadServer": UploadServer, "root": Resource()})
    assert (tmp_path / "uploads").is_dir()


def test_every_block_of_python_is_run_by_some_test() -> None:
    assert PAGE.count("```python\n") == len(re.findall(r"<!-- (?:run|fragment|example): \S+ -->\n```python\n", PAGE))


def test_the_options_without_a_meaning_are_named() -> None:
    assert all(f"`{name}`" in PAGE for name in _NOT_HERE)
    assert {name.replace("_", "-") for name in _NOT_HERE} <= BY_FLAG.keys()
