"""The backend in docs/writing-a-backend.md is run as it is printed, and passes the suite that is printed with it."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from twisted.internet.task import Clock

from resumable.remotes import interfaces, reading, urls
from resumable.remotes.journals import MemoryJournal
from resumable.testing import SteppedPool

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-backend.md"


def run_page():
    """The names that the page's code defines, the backend and its tests as one module."""
    names = {"__name__": "writing_a_backend"}
    for mark in ("backend", "suite"):
        match = re.search(rf"^<!-- run: {mark} -->\n```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.S | re.M)
        assert match, f"no block marked {mark}"
        exec(compile(match[1], f"{PAGE.name}, {mark}", "exec"), names)
    return names


NAMES = run_page()
TestSqliteRemote = NAMES["TestSqliteRemote"]


def test_the_example_is_made_from_a_url():
    spec = urls.parse("sqlite:///var/lib/objects.db?key={date}/{id}&overwrite=replace", lambda name: NAMES["SCHEME"])
    means = urls.BackendServices(Clock(), SteppedPool(Clock()), MemoryJournal(), None, lambda: 0.0, Random(1))
    assert isinstance(urls.make(spec, means, lambda name: NAMES["SCHEME"]), NAMES["SqliteRemote"])


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(I[A-Z]\w+)`", PAGE.read_text("utf-8")))))
def test_interfaces_that_the_page_names_exist(name):
    assert hasattr(interfaces, name) or hasattr(reading, name)


def test_the_page_names_every_optional_interface():
    optional = {"IDeletable", "IProbe", "ISweeper", "IPlanned", "IPartRemote", "IClosable", "IPartJournal"}
    optional |= {"IReadable", "ISigning"}
    assert optional <= set(re.findall(r"`(I[A-Z]\w+)`", PAGE.read_text("utf-8")))
