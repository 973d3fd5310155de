"""What a parser of argparse takes, as values: argparse itself doesn't tell.

This is the one module that looks into parsers; its tests fail loudly when argparse changes.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

import shtab
from attrs import frozen


@frozen
class Argument:
    """One flag, or one word. ``flags``: empty for a word; ``nargs``: how many values, as argparse says it; 0: none."""

    flags: tuple[str, ...]
    metavar: str
    nargs: int | str | None
    help: str


@frozen
class ArgumentGroup:
    """Arguments under one heading."""

    title: str
    arguments: tuple[Argument, ...]


@frozen
class DescribedCommand:
    """A command, and its commands by their names. ``help``: what it is, in a few words."""

    help: str
    description: str
    epilog: str
    groups: tuple[ArgumentGroup, ...]
    commands: dict[str, DescribedCommand]

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """Those of all groups."""
        return tuple(each for group in self.groups for each in group.arguments)


def describe(parser: argparse.ArgumentParser, told: str = "") -> DescribedCommand:
    """The parser as a value. ``told``: what it is, in a few words."""
    below = commands_action(parser)
    commands = {}
    if below is not None:
        helps = {each.dest: each.help or "" for each in below._choices_actions}
        commands = {name: describe(child, helps.get(name, "")) for name, child in below.choices.items()}
    groups = []
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if each is not below and each.help != argparse.SUPPRESS]
        if actions:
            groups.append(ArgumentGroup(group.title or "", tuple(_argument(parser, each) for each in actions)))
    return DescribedCommand(told, parser.description or "", parser.epilog or "", tuple(groups), commands)


def commands_action(parser: argparse.ArgumentParser) -> Any:
    """Its action whose ``choices`` are the parsers of its commands; None where it has none."""
    return next((each for each in parser._actions if isinstance(each, argparse._SubParsersAction)), None)


def made_for_shells(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The same parser, changed: names of files are completed where they are expected (shtab looks for ``complete``),
    and helps have one sentence. Its commands too."""
    below = commands_action(parser)
    for child in () if below is None else below.choices.values():
        made_for_shells(child)
    for action in parser._actions:
        if action.help and action.help != argparse.SUPPRESS:
            action.help = action.help.partition(". ")[0]
        words = set(action.metavar.split("|")) if isinstance(action.metavar, str) else set()
        flag = action.option_strings[-1].lstrip("-") if action.option_strings else ""
        if flag == "base-path" or hasattr(action, "complete"):
            continue
        if "DIR" in words or flag.endswith("-dir"):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif words & {"FILE", "PATH"}:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    named = action.metavar if isinstance(action.metavar, str) else None
    choices = None if action.choices is None else "|".join(map(str, action.choices))
    metavar = named or choices or (action.dest.upper() if action.option_strings else action.dest)
    known = {**vars(action), "prog": parser.prog}
    told = re.sub(r"%\((\w+)\)s|%%", lambda found: str(known.get(found[1], "")) if found[1] else "%", action.help or "")
    return Argument(tuple(action.option_strings), metavar, action.nargs, told)
