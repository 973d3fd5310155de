"""Parsers of all commands, for what is generated from them: shell completion and manual pages. Nothing is parsed here.

Each module of a row of `OWN` may offer ``parser() -> argparse.ArgumentParser``, which describes its command line.
Without one, a subclass of `usage.Options` in it is taken, its own before one that it imports. A module with
neither, or one that can't be imported because an extra is missing, is shown by its name and its help alone.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from importlib import import_module
from typing import Any, Final

from twisted.python import usage

from resumable.cli.described import commands_action
from resumable.cli.main import OWN, OwnCommand
from resumable.cli.main import parser as plain_parser
from resumable.config import BY_FLAG, Option
from resumable.config.file import CONFIG
from resumable.config.sample import groups

_CHOICES: Final = re.compile(r"[a-z0-9-]+(\|[a-z0-9-]+)+")


def all_commands() -> argparse.ArgumentParser:
    """The parser of ``resumable`` with those of all its commands."""
    root = plain_parser()
    commands = commands_action(root)
    for name, own in OWN.items():
        commands.choices[name] = _parser_of(name, own)
    return root


def twistd_parser() -> argparse.ArgumentParser:
    """What ``twistd`` takes before ``resumable``, and what it takes behind that."""
    from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

    from resumable.config.options import Options

    root = usage_parser("twistd", ServerOptions(), "Twisted's daemon.")
    add = root.add_subparsers(metavar="COMMAND").add_parser
    server = add("resumable", help="an upload server", add_help=False)
    usage_flags(server, Options({}))
    return root


def usage_parser(prog: str, options: usage.Options, description: str) -> argparse.ArgumentParser:
    """A parser with the flags of Twisted's way to describe them."""
    parser = argparse.ArgumentParser(prog, description=description, allow_abbrev=False, add_help=False)
    usage_flags(parser, options)
    return parser


def usage_flags(parser: argparse.ArgumentParser, options: usage.Options) -> None:
    """Add these flags to the parser; those of the server by their subjects, behind the others."""
    takes_value = {flag.rstrip("=").replace("_", "-"): flag.endswith("=") for flag in options.longOpt}
    short = {long.replace("_", "-"): letter for letter, long in options.synonyms.items() if len(letter) == 1}
    docs = {flag.replace("_", "-"): text for flag, text in options.docs.items()}
    for flag in [each for each in takes_value if each not in BY_FLAG]:
        names = [*([f"-{short[flag]}"] if flag in short else []), f"--{flag}"]
        told = _percents(" ".join((docs.get(flag) or _doc(options, flag)).split()))
        if takes_value[flag]:
            parser.add_argument(*names, metavar="VALUE", help=told)
        else:
            parser.add_argument(*names, action="store_true", help=told)
    server_flags(parser, [each for each in BY_FLAG if each in takes_value])


def server_flags(parser: argparse.ArgumentParser, flags: Collection[str] = tuple(BY_FLAG)) -> None:
    """Add those of the server's flags, a group for each subject."""
    for title, options in {"Configuration": [CONFIG], **groups()}.items():
        named = [option for option in options if option.flag in flags]
        group = parser.add_argument_group(title) if named else parser
        for option in named:
            _add(group, option)


def _doc(options: usage.Options, flag: str) -> str:
    method = getattr(options, f"opt_{flag.replace('-', '_')}", None)
    return getattr(method, "__doc__", None) or ""


def _add(group: Any, option: Option) -> None:
    default = f" [{option.default}]" if option.default else ""
    told = _percents(f"{option.help}{default}. {option.advice}".replace("`", ""))
    told = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", told)
    if option.is_switch:
        group.add_argument(f"--{option.flag}", action="store_true", help=told)
    elif _CHOICES.fullmatch(option.metavar):
        group.add_argument(f"--{option.flag}", choices=option.metavar.split("|"), help=told)
    else:
        group.add_argument(f"--{option.flag}", metavar=option.metavar, help=told)


def _percents(text: str) -> str:
    return text.replace("%", "%%")


def _parser_of(name: str, own: OwnCommand) -> argparse.ArgumentParser:
    prog = f"resumable {name}"
    try:
        module = import_module(f"resumable.cli.{own.module}")
    except ImportError:
        return argparse.ArgumentParser(prog, description=own.help, add_help=False)
    if hasattr(module, "parser"):
        return module.parser()  # type: ignore[no-any-return]
    kinds = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, usage.Options)]
    kinds.sort(key=lambda kind: kind.__module__ != module.__name__)
    if not kinds:
        return argparse.ArgumentParser(prog, description=own.help, add_help=False)
    options = kinds[0]()
    return usage_parser(prog, options, getattr(options, "longdesc", None) or own.help)
