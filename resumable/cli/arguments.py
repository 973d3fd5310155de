"""Parsers of the command line, with argparse, as all commands use them.

Invariant: a command line that makes no sense ends with one line on standard error and status 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn, TypeVar

from resumable.cli.texts import plain

T = TypeVar("T")


class LineParser(argparse.ArgumentParser):
    """argparse's own would print the usage too."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2."""
        self.exit(2, f"{self.prog}: {plain(message)}; see {self.prog} --help\n")


def value(parse: Callable[[str], T]) -> Callable[[str], T]:
    """``type=`` of an argument: ``parse``, whose ValueError says which form is expected, in argparse's way."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as problem:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {problem}") from problem

    return read
