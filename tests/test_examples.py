"""The examples say what they are, can be copied, and are what the docs show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from resumable.cli.examples import examples, main, purpose

ROOT = Path(__file__).parent.parent
PAGES = ("docs/embedding.md", "docs/hooks.md")


def test_each_example_is_listed_with_its_purpose(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.name for path in (ROOT / "examples").iterdir())
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").iterdir()))
def test_the_first_lines_of_an_example_say_what_it_is(name):
    said = purpose((ROOT / "examples" / name).read_text(encoding="utf-8"))
    assert 8 < len(said) < 100, said


def test_an_example_is_copied_and_never_over_a_file(tmp_path, capsys):
    there = tmp_path / "new" / "my_hooks.py"
    assert main(["copy", "my_hooks.py", str(there.parent)]) == 0
    assert there.read_bytes() == (ROOT / "examples" / "my_hooks.py").read_bytes()
    there.write_text("mine")
    assert main(["copy", "my_hooks.py", str(there.parent)]) == 1
    assert there.read_text() == "mine"
    assert "exists already" in capsys.readouterr().err


def test_all_are_copied_but_those_that_are_there(tmp_path, capsys):
    (tmp_path / "upload.py").write_text("mine")
    assert main(["copy", "all", str(tmp_path)]) == 1
    assert {each.name for each in tmp_path.iterdir()} == set(examples())
    assert (tmp_path / "upload.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["copy", "my_hook.py"], 1, "did you mean my_hooks.py?"),
        (["copy", "../setup.py"], 1, "there is no example"),
        (["copy"], 2, "NAME"),
        (["show"], 2, "no command show; see resumable examples --help"),
        ([], 2, "COMMAND"),
    ],
)
def test_a_mistake_is_one_line(arguments, status, said, capsys):
    try:
        found = main(arguments)
    except SystemExit as ended:
        found = int(ended.code or 0)
    told = capsys.readouterr().err
    assert (found, told.count("\n")) == (status, 1)
    assert said in told


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_that_a_page_shows_are_the_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.findall(r"<!-- example: ([\w.]+\.\w+) -->\n```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert shown
    for name, code in shown:
        assert code == (ROOT / "examples" / name).read_text(encoding="utf-8"), name
