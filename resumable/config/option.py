"""One option of the command line and the environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen


@frozen
class Option:
    """One row of the table.

    ``parse`` gets the text; where ``separator`` is set, which makes the flag repeatable, the list of texts. A comma
    splits flags and variables alike, a blank only variables. ``default`` is text, as a person would write it.
    ``advice`` says what happens at the ends of the scale. ``secret``: it may hold one, so no message repeats it.
    """

    flag: str
    metavar: str
    default: str
    help: str
    advice: str
    parse: Callable[[Any], Any]
    separator: str = ""
    secret: bool = False

    @property
    def variable(self) -> str:
        """Name of the environment variable that sets it."""
        return "RESUMABLE_" + self.flag.upper().replace("-", "_")

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone, without a value."""
        return not self.metavar


def help_line(option: Option) -> str:
    """Its line in ``--help``."""
    default = f" [{option.default}]" if option.default else ""
    return f"{option.help}{default} ({option.variable})"
