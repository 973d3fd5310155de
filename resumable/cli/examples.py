"""``resumable examples``: lists the examples that come with the package, and copies one.

Invariant: no file that exists is written over. In an installed package the examples are within it; in a checkout they
are in examples/ beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from resumable.cli.line_parser import CommandParser, LineParser
from resumable.config.option import did_you_mean, nearest_name

_COMMENT = re.compile(r"(?:#+|<!--|\"\"\"|//)\s*(.*)")


def examples() -> Mapping[str, Traversable]:
    """The files by name, in order."""
    package = files("resumable")
    found = package.joinpath("examples")
    if not found.is_dir():
        found = Path(str(package)).parent / "examples"
    return {each.name: each for each in sorted(found.iterdir(), key=lambda each: each.name) if each.is_file()}


def purpose(text: str) -> str:
    """What an example says of itself in its first comment, up to the end of the sentence; empty if it says nothing."""
    if text.startswith("{"):
        return str(json.loads(text).get("description", ""))
    for line in text.splitlines():
        comment = _COMMENT.match(line)
        if comment is not None and comment[1] and not line.startswith("#!"):
            return re.split(r"(?<=\w)[.:](?:\s|$)", comment[1].removesuffix('"""').removesuffix("-->"))[0].strip()
    return ""


def parser() -> argparse.ArgumentParser:
    """The parser of what follows ``resumable examples``."""
    root = LineParser(
        "resumable examples", description="Complete programs and files to begin with.", allow_abbrev=False
    )
    add = root.add_subparsers(parser_class=CommandParser, metavar="COMMAND", dest="command", required=True).add_parser
    add("list", help="list them", description="List the examples.", allow_abbrev=False)
    copy = add("copy", help="copy one of them", description="Copy an example.", allow_abbrev=False)
    copy.add_argument("name", metavar="NAME", help="the name of the example, or `all`")
    copy.add_argument("directory", metavar="DIR", nargs="?", default=".", help="where to [the current directory]")
    return root


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command. The exit status."""
    given = parser().parse_args(list(arguments))
    known = examples()
    if given.command == "list":
        width = max(map(len, known), default=0)
        for name, each in known.items():
            print(f"{name:{width}}  {purpose(each.read_text(encoding='utf-8'))}")
        return 0
    if given.name != "all" and given.name not in known:
        meant = nearest_name(given.name, known)
        sys.stderr.write(f"resumable: there is no example {given.name!r}{did_you_mean(meant)}; see the list\n")
        return 1
    return _copy([known[name] for name in known if given.name in (name, "all")], Path(given.directory))


def _copy(chosen: Sequence[Traversable], directory: Path) -> int:
    """The exit status: 1 if one of them is there already; the others are copied."""
    directory.mkdir(parents=True, exist_ok=True)
    status = 0
    for each in chosen:
        there = directory / each.name
        try:
            with there.open("xb") as file:
                file.write(each.read_bytes())
        except FileExistsError:
            sys.stderr.write(f"resumable: {there} exists already: remove it, or name another directory\n")
            status = 1
        else:
            print(there)
    return status
