"""``resumable config``: checks a configuration, shows what holds and why, and writes a file to fill in.

Invariants: what is checked is what the server would parse: flags, variables and file. Nothing is opened or made but the
file of ``init``. No secret is printed. Status 0: all is well; 1: the server would not start with it; 2: the command
line makes no sense.
"""

from __future__ import annotations

import argparse
import getopt
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python import usage
from zope.interface import provider

from resumable.cli.flags import server_flags
from resumable.cli.line_parser import CommandParser, LineParser
from resumable.config import OPTIONS, Option
from resumable.config.file import CONFIG
from resumable.config.options import Options
from resumable.config.sample import sample
from resumable.masking import masked, server_of

SAMPLE: Final = "resumable.toml"
NOT_SHOWN: Final = "..."
_TARGET: Final = re.compile(r"([\w.-]+=)?((?:exec|python):\S.*|[a-z+]+://.*)", re.DOTALL)
"""A hook or its like, with its name."""
_OF_STORES: Final = ("catalog", "spool", "remote")


class ShowOptions(Options):
    """The options of the server, and those of ``show``."""

    optFlags = [  # noqa: RUF012
        ["json", None, "one JSON object a line"],
        ["all", None, "those that have their defaults, too"],
    ]


def parser() -> argparse.ArgumentParser:
    """The parser of what follows ``resumable config``; check and show also take all flags of the server."""
    root = LineParser("resumable config", description="The configuration of the server.", allow_abbrev=False)
    add = root.add_subparsers(parser_class=CommandParser, metavar="COMMAND", required=True, dest="command").add_parser
    check = "parse flags, variables and file as the server does"
    show = "print each option's value, and where it was set"
    init = "write a file with all options to fill in"
    for name, told in (("check", check), ("show", show)):
        describe = f"{told[0].upper()}{told[1:]}."
        line = add(name, help=told, description=describe, usage="%(prog)s [flags of the server]", allow_abbrev=False)
        if name == "show":
            for flag, _, help_line in ShowOptions.optFlags:
                line.add_argument(f"--{flag}", action="store_true", help=help_line)
        server_flags(line)
    init_parser = add("init", help=init, description=f"{init[0].upper()}{init[1:]}.", allow_abbrev=False)
    init_parser.add_argument("file", metavar="FILE", nargs="?", default=SAMPLE, help=f"- for the output [{SAMPLE}]")
    init_parser.add_argument("--force", action="store_true", help="overwrite the file")
    return root


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command. The exit status."""
    command, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if command in ("check", "show") and not {"--help", "-h"} & set(rest):
        options = ShowOptions(environ) if command == "show" else Options(environ)
        return _parse(command, options, rest) or (_show(options) if isinstance(options, ShowOptions) else _ok())
    given = parser().parse_args(arguments)
    return init(given.file, given.force)


def _parse(command: str, options: Options, arguments: list[str]) -> int:
    """The exit status."""
    try:
        with warnings_told():
            options.parseOptions(arguments)
    except usage.UsageError as problem:
        if is_of_the_line(problem):
            sys.stderr.write(f"resumable config {command}: {problem}; see resumable config {command} --help\n")
            return 2
        sys.stderr.write(f"resumable: {masked(str(problem))}\n")
        return 1
    return 0


def is_of_the_line(problem: usage.UsageError) -> bool:
    """Whether it is about the form of a command line, and not about a value."""
    return isinstance(problem.__context__, getopt.error) or str(problem).startswith(("unexpected argument", "option -"))


def _ok() -> int:
    sys.stdout.write("ok\n")
    return 0


@frozen
class ShownOption:
    """An option with what is shown of it. ``source``: flag, variable, file or default; ``place``: the very one."""

    name: str
    value: Any
    source: str
    place: str | None


def shown(options: Options, option: Option) -> ShownOption:
    """What holds for the option once the options are parsed. Secrets are masked."""
    given = options.given(option)
    place, texts = (None, _default_texts(option)) if given is None else given
    value: Any = [mask(option, text) for text in texts]
    if option.is_switch:
        value = given is not None and bool(option.parse(texts[0]))
    elif not option.separator:
        value = value[0] if value else None
    source = "default" if place is None else _source(option, place)
    return ShownOption(option.flag, value, source, options.config.name if source == "file" else place)


def _default_texts(option: Option) -> list[str]:
    if option.separator:
        return [part for part in option.default.split("," if option.separator == "," else None) if part]
    return [option.default] if option.default else []


def _source(option: Option, place: str) -> str:
    return "flag" if place.startswith("--") else "variable" if place == option.variable else "file"


def mask(option: Option, text: str) -> str:
    """What may be shown of that value: of a hook the server or the program, because the rest may be a secret too."""
    if not option.secret or text == option.default:
        return masked(text)
    if option.flag in _OF_STORES:
        return masked(text)
    found = _TARGET.fullmatch(text)
    if found is None:
        return NOT_SHOWN
    name, target = found[1] or "", found[2]
    return name + (server_of(target) if "://" in target else target.split(maxsplit=1)[0])


def _show(options: ShowOptions) -> int:
    found = [shown(options, each) for each in (CONFIG, *(each for each in OPTIONS if each != CONFIG))]
    rows = [each for each in found if options["all"] or each.source != "default"]
    if options["json"]:
        for each in rows:
            told = {"option": each.name, "value": each.value, "source": each.source, "place": each.place}
            sys.stdout.write(json.dumps(told) + "\n")
        return 0
    if not rows:
        sys.stdout.write("every option has its default; --all shows them\n")
    written = [(each.name, _written(each.value), each.place or "default") for each in rows]
    name, value = (max((len(row[at]) for row in written), default=0) for at in (0, 1))
    for row in written:
        sys.stdout.write(f"{row[0]:<{name}}  {row[1]:<{min(value, 48)}}  {row[2]}\n")
    return 0


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return (", ".join(value) if isinstance(value, list) else value) or "-"


def init(name: str, force: bool) -> int:
    """Write the sample. The exit status."""
    if name == "-":
        sys.stdout.write(sample(SAMPLE))
        return 0
    try:
        with open(name, "w" if force else "x", encoding="utf-8") as opened:
            opened.write(sample(name))
    except FileExistsError:
        sys.stderr.write(f"resumable: {name} is there already: give another name, or --force to overwrite it\n")
        return 1
    sys.stdout.write(f"{name} is written; every option in it is commented out\n")
    return 0


@contextmanager
def warnings_told() -> Iterator[None]:
    """Write what is warned of meanwhile to standard error; the server would log it."""
    globalLogPublisher.addObserver(_warn)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(_warn)


@provider(ILogObserver)
def _warn(event: LogEvent) -> None:
    if event.get("log_level") is LogLevel.warn:
        sys.stderr.write(f"resumable: warning: {formatEvent(event)}\n")
