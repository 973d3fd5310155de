"""The upload page's files, made anew from the lock file, are the ones that are in the package."""

from __future__ import annotations

from pathlib import Path

from . import tools
from .daemon import ROOT

SOURCES = ROOT / "web" / "page"
MADE = ROOT / "resumable" / "http" / "page" / "assets"


def test_a_build_makes_the_same_files(tmp_path: Path) -> None:
    node = tools.need("node")
    tools.install_npm("esbuild and tus-js-client", SOURCES)
    tools.run(node, "build.mjs", str(tmp_path), cwd=SOURCES)
    made, there = ({path.name: path.read_bytes() for path in place.iterdir()} for place in (tmp_path, MADE))
    assert made.keys() == there.keys()
    assert [name for name in made if made[name] != there[name]] == [], "run make page, and commit what it makes"
