"""Hooks that are Python."""

from __future__ import annotations

import sys

import pytest
from zope.interface import implementer

from resumable.hooks.hooks import BadHook, load_hook
from resumable.hooks.interfaces import IGuard, IHook

HERE = __name__


@implementer(IHook)
class Told:
    def deliver(self, event):
        return None


@implementer(IGuard)
class Asked:
    def __init__(self, needed) -> None: ...

    def ask(self, question):
        return None


INSTANCE = Told()
NUMBER = 7


def make():
    return INSTANCE


@pytest.mark.parametrize("name", ["Told", "INSTANCE", "make"])
def test_a_hook_is_found_by_module_and_attribute(name):
    assert isinstance(load_hook(f"{HERE}:{name}"), Told)


def test_a_hook_of_another_package_is_found_by_its_entry_point(tmp_path, monkeypatch):
    (tmp_path / "some_package-1.dist-info").mkdir()
    (tmp_path / "some_package-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: some-package\nVersion: 1\n"
    )
    (tmp_path / "some_package-1.dist-info" / "entry_points.txt").write_text(f"[resumable.hooks]\nmine = {HERE}:Told\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert isinstance(load_hook("mine"), Told)
    with pytest.raises(BadHook, match="known: mine"):
        load_hook("other")


@pytest.mark.parametrize(
    "name",
    [
        "unknown",
        f"{HERE}:NUMBER",
        f"{HERE}:Nothing",
        f"{HERE}:Asked",
        "no.such.module:x",
        ":",
        "a b:c",
        "json:dumps",
        "this is no name",
    ],
)
def test_what_is_no_hook_is_told_in_one_line(name):
    with pytest.raises(BadHook) as caught:
        load_hook(name)
    assert "\n" not in str(caught.value)
