"""The grammar of ``resumable``'s command line, with argparse."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeVar

from resumable import __version__
from resumable.client import commands
from resumable.client.commands import ENOUGH
from resumable.client.show import plain
from resumable.config import variables
from resumable.model import values as option_values

T = TypeVar("T")
STATES: Final = ("uploading", "assembling", "finished", "stored", "gone", "unfinished", "any")


class _Parser(argparse.ArgumentParser):
    """An unknown argument is one line, as everything else that goes wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands. It ends the process with status 2 for an unknown argument."""
    root = _Parser("resumable", description="For operators of an upload server.", allow_abbrev=False)
    root.add_argument("--version", action="version", version=f"resumable {__version__}")
    add = root.add_subparsers(metavar="COMMAND", required=True).add_parser
    add("doctor", add_help=False, help="look at what the daemon depends on, and say what to change")
    _ls(_command(add, "ls", commands.ls, "list uploads"))
    show = _command(add, "show", commands.show, "tell all of one upload, in both tiers")
    show.add_argument("id", metavar="ID")
    _retry(_command(add, "retry", commands.retry, "send on what remotes were given up for"))
    rm = _command(add, "rm", commands.rm, "end uploads and remove them, from remotes too as DELETE would")
    rm.add_argument("ids", metavar="ID", nargs="+")
    rm.add_argument("--yes", action="store_true", help="don't ask whether that is meant")
    replay = _command(add, "replay", commands.replay, "deliver the events again that a hook was given up for")
    replay.add_argument("hook", metavar="HOOK")
    drain = _command(add, "drain", commands.drain, "let no upload begin, while those that have may end")
    drain.add_argument("what", choices=("on", "off", "status"))
    return root


def _ls(ls: argparse.ArgumentParser) -> None:
    ls.add_argument("--state", choices=STATES, help="only those in it [all but gone]")
    ls.add_argument("--remote", metavar="NAME", help="only those with a replica there")
    ls.add_argument("--parked", action="store_true", help="only those with a replica that was given up")
    ls.add_argument("--owner", metavar="NAME", help='only those of this identity, "" for nobody\'s')
    ls.add_argument("--older-than", metavar="TIME", type=_of(option_values.duration), help="created before that")
    ls.add_argument("--idle", metavar="TIME", type=_of(option_values.duration), help="not touched for that long")
    ls.add_argument("--min-size", metavar="SIZE", type=_of(option_values.size), help="only those that are as large")
    ls.add_argument("--newest", action="store_true", help="the newest first")
    most = _of(option_values.integer(1, 10**9, "a number"))
    ls.add_argument("--limit", metavar="NUMBER", type=most, default=ENOUGH, help=f"so many at most [{ENOUGH}]")
    ls.add_argument("--all", action="store_true", help="however many there are")


def _retry(retry: argparse.ArgumentParser) -> None:
    retry.add_argument("ids", metavar="ID", nargs="*")
    retry.add_argument("--remote", metavar="NAME", help="only the replica there")
    retry.add_argument("--all", action="store_true", help="instead of an ID: everything that was parked for --remote")


def parsed(root: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed arguments. Ends the process with status 2 for arguments that make no sense."""
    given, others = root.parse_known_args(arguments)
    if others:
        command: argparse.ArgumentParser = given.command
        flag = next((each.partition("=")[0] for each in others if each.startswith("--")), "")
        meant = variables.nearest(flag.lower(), re.findall("--[a-z-]+", command.format_usage())) if flag else None
        command.error(f"unrecognized arguments: {plain(' '.join(others))}{variables.hint(meant)}")
    _check(root, given)
    return given


def _check(root: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """The checks that argparse lacks; ends the process as it would."""
    if given.run is commands.retry:
        if given.all and (given.ids or given.remote is None):
            root.error("retry --all takes --remote NAME, and no ID")
        if not given.all and not given.ids:
            root.error("retry takes an ID, or --all --remote NAME")


def _command(
    add: Callable[..., argparse.ArgumentParser], name: str, run: commands.Command, help_line: str
) -> argparse.ArgumentParser:
    description = f"{help_line[0].upper()}{help_line[1:]}."
    command = add(name, help=help_line, description=description, allow_abbrev=False)
    command.set_defaults(run=run, command=command)
    where = command.add_argument_group("the daemon")
    where.add_argument("--upload-dir", metavar="PATH", help="the one of this upload directory [uploads]")
    where.add_argument("--url", help="the one that answers operators there: http://..., or unix:/path")
    where.add_argument("--token-file", metavar="PATH", help="with the token that --url asks for")
    command.add_argument("--json", action="store_true", help="JSON instead of text")
    return command


def _of(parse: Callable[[str], T]) -> Callable[[str], T]:
    """argparse's way to learn the expected form."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as problem:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {problem}") from problem

    return read
