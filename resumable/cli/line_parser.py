"""Parsers of the command line, with argparse, as all commands use them.

Invariant: a command line that makes no sense ends with one line on standard error and status 2, which names the flag
or the command that may be meant.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from resumable.cli.texts import plain

T = TypeVar("T")
#: What argparse says of a command that it doesn't have, and of a flag; and how its help begins a line with one.
_NO_COMMAND: Final = re.compile(r"argument COMMAND: invalid choice: (['\"])(.*)\1 \(choose from (.*)\)", re.DOTALL)
_NO_FLAG: Final = re.compile(r"unrecognized arguments: (?:.* )?(--[^\s=]+)", re.DOTALL)
_FLAG: Final = re.compile(r"^  (?:-\w\b.*?, )?(--[a-z0-9-]+)", re.MULTILINE)


class LineParser(argparse.ArgumentParser):
    """argparse's own would print the usage too. Parsers of its commands are `CommandParser`s."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2."""
        self.exit(2, f"{self.prog}: {plain(self._with_what_was_meant(message))}; see {self.prog} --help\n")

    def _with_what_was_meant(self, message: str) -> str:
        from resumable.config.option import did_you_mean, nearest_name  # the table of options needs much of the server

        if (command := _NO_COMMAND.fullmatch(message)) is not None:
            _, name, known = command.groups()
            return f"no command {name}{did_you_mean(nearest_name(name, re.findall('[a-z]+', known)))}"
        if (flag := _NO_FLAG.match(message)) is not None:
            return message + did_you_mean(nearest_name(flag[1].lower(), _FLAG.findall(self.format_help())))
        return message


class CommandParser(LineParser):
    """For ``parser_class`` of ``add_subparsers``: refuses itself what it doesn't know. argparse's would leave that to
    the parser above, which has other flags and another ``--help``."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Ends the process if there are others."""
        found, others = super().parse_known_args(args, namespace)
        if others:
            self.error(f"unrecognized arguments: {' '.join(others)}")
        return found, others


def value(parse: Callable[[str], T]) -> Callable[[str], T]:
    """``type=`` of an argument: ``parse``, whose ValueError says which form is expected, in argparse's way."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as problem:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {problem}") from problem

    return read
