"""Everything an operator can set: one table that the flags, the environment variables and the docs come from.

Changes when a subject of options comes or goes; the rows are in a module for each. Run as a program it writes the
tables of the documents named on its command line anew.
"""

from collections.abc import Mapping

from resumable.option_table.access import ACCESS
from resumable.option_table.hooks import HOOKS
from resumable.option_table.option import Option, help_line
from resumable.option_table.placing import PLACING
from resumable.option_table.remotes import REMOTES
from resumable.option_table.serving import SERVING
from resumable.option_table.sight import SIGHT
from resumable.option_table.web import WEB

__all__ = ["BY_FLAG", "MAIN", "OPTIONS", "Option", "help_line"]

MAIN: tuple[Option, ...] = (*SERVING, *REMOTES)
"""What most people look for."""
OPTIONS: tuple[Option, ...] = (*MAIN, *PLACING, *WEB, *SIGHT, *HOOKS, *ACCESS)
BY_FLAG: Mapping[str, Option] = {option.flag: option for option in OPTIONS}
