"""``resumable man``: manual pages, generated from the parsers of all commands.

A page is troff with the macros of man(7), as ``man -l -`` reads it. Invariant: no text of ours is taken for a request
or an escape. Spec: man(7), groff_man_style(7).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from resumable import __version__
from resumable.cli.line_parser import LineParser

if TYPE_CHECKING:
    from resumable.cli.described import Argument, DescribedCommand

TWISTD: Final = "twistd"
_STATUS: Final = (
    ("0", "done, and all is well"),
    ("1", "something is wrong, or not there"),
    ("2", "the command line makes no sense"),
    ("130", "interrupted by Ctrl-C"),
)
_TITLES: Final = {"positional arguments": "arguments"}
_ENVIRONMENT: Final = (
    "Each option of the server has a variable: --max-size has RESUMABLE_MAX_SIZE. Flags win over variables, variables"
    " over the file of --config."
)
_TYPESET: Final = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}


def parser() -> argparse.ArgumentParser:
    """The parser of what follows ``resumable man``."""
    told = "Prints a manual page in troff: resumable man ls | man -l -"
    root = LineParser("resumable man", description=told, allow_abbrev=False)
    root.add_argument(
        "words", metavar="COMMAND", nargs="*", help="a command; twistd: the server; none: resumable itself"
    )
    return root


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Print the page. The exit status."""
    given = parser().parse_args(arguments)
    if given.words == [TWISTD]:
        given.words = [TWISTD, "resumable"]
    found = _found(given.words)
    if found is None:
        parser().error(f"there is no command {' '.join(given.words)!r}")
    sys.stdout.write(page(*found))
    return 0


def _found(words: list[str]) -> tuple[DescribedCommand, str] | None:
    """The command, and its whole name."""
    from resumable.cli.described import describe
    from resumable.cli.flags import all_commands, twistd_parser

    if words[:1] == [TWISTD]:
        found, name, words = describe(twistd_parser()), TWISTD, words[1:]
    else:
        found, name = describe(all_commands(), "a resumable upload server, and the command line for it"), "resumable"
    for word in words:
        if word not in found.commands:
            return None
        found, name = found.commands[word], f"{name} {word}"
    return found, name


def page(command: DescribedCommand, name: str) -> str:
    """The page of one command."""
    title = name.replace(" ", "-")
    lines = [
        f'.TH {typeset(title.upper())} 1 "" "resumable {__version__}" "resumable"',
        ".SH NAME",
        f"{typeset(title)} \\- {typeset(command.help)}",
        ".SH SYNOPSIS",
        _synopsis(command, name),
    ]
    if command.description:
        lines += [".SH DESCRIPTION", typeset(command.description)]
    if command.epilog:
        lines += [".PP", typeset(command.epilog)]
    if command.commands:
        lines.append(".SH COMMANDS")
        lines += [
            line for word, each in command.commands.items() for line in _item(f"\\fB{typeset(word)}\\fR", each.help)
        ]
    for group in command.groups:
        lines.append(f".SH {typeset(_TITLES.get(group.title, group.title).upper())}")
        lines += [line for each in group.arguments for line in _item(_heading(each), each.help)]
    if any("--config" in each.flags for each in command.arguments):
        lines += [".SH ENVIRONMENT", typeset(_ENVIRONMENT)]
    lines += [".SH EXIT STATUS", *(line for status, means in _STATUS for line in _item(f"\\fB{status}\\fR", means))]
    return "\n".join([*lines, ".SH SEE ALSO", _see_also(command, name), ""])


def _item(heading: str, text: str) -> tuple[str, str, str]:
    return ".TP", heading, typeset(text)


def _synopsis(command: DescribedCommand, name: str) -> str:
    words = [f"\\fB{typeset(name)}\\fR"]
    if any(each.flags for each in command.arguments):
        words.append("[\\fIoptions\\fR]")
    if command.commands:
        words.append("\\fICOMMAND\\fR ...")
    for each in command.arguments:
        if not each.flags:
            word = _heading(each) + (" ..." if each.nargs in ("*", "+") else "")
            words.append(f"[{word}]" if each.nargs in ("?", "*") else word)
    return " ".join(words)


def _heading(argument: Argument) -> str:
    metavar = f"\\fI{typeset(argument.metavar)}\\fR"
    if not argument.flags:
        return metavar
    flags = ", ".join(f"\\fB{typeset(flag)}\\fR" for flag in argument.flags)
    return flags if argument.nargs == 0 else f"{flags} {metavar}"


def typeset(text: str) -> str:
    """Our text as troff that shows just that, in one line."""
    safe = "".join(_TYPESET.get(char, char) for char in " ".join(text.split()))
    return f"\\&{safe}" if safe.startswith(".") else safe


def _see_also(command: DescribedCommand, name: str) -> str:
    above = name.rpartition(" ")[0]
    others = [f"{name} {each}" for each in command.commands] or (
        [above] if above not in ("", TWISTD) else ["resumable"]
    )
    return ", ".join(f"\\fB{typeset(each.replace(' ', '-'))}\\fR(1)" for each in others)
