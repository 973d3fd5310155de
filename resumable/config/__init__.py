"""Everything an operator can set: one table that the flags, the environment variables and the docs come from.

Changes when a subject of options comes or goes; the rows are in a module for each. Run as a program it writes the
tables of the documents named on its command line anew.
"""

from collections.abc import Mapping

from resumable.config.access import ACCESS
from resumable.config.hooks import HOOKS
from resumable.config.operators import OPERATORS
from resumable.config.option import Option, help_line
from resumable.config.placing import PLACING
from resumable.config.remotes import REMOTES
from resumable.config.serving import SERVING
from resumable.config.web import WEB

__all__ = ["BY_FLAG", "MAIN", "OPTIONS", "Option", "help_line"]

MAIN: tuple[Option, ...] = (*SERVING, *REMOTES)
"""What most people look for."""
OPTIONS: tuple[Option, ...] = (*MAIN, *PLACING, *WEB, *OPERATORS, *HOOKS, *ACCESS)
BY_FLAG: Mapping[str, Option] = {option.flag: option for option in OPTIONS}
