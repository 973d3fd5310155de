"""Everything an operator can set: one table that the flags, the environment variables and the docs come from.

Each subject has its rows in a module of its own. ``python -m resumable.config`` writes the tables of the documents that
its command line names.
"""

from collections.abc import Mapping

from resumable.config.access import ACCESS
from resumable.config.file import CONFIG
from resumable.config.hooks import HOOKS
from resumable.config.operators import OPERATORS
from resumable.config.option import Option, help_line
from resumable.config.remotes import REMOTES
from resumable.config.serving import PLACING, SERVING
from resumable.config.web import WEB

__all__ = ["BY_FLAG", "MAIN", "OPTIONS", "Option", "help_line"]

MAIN: tuple[Option, ...] = (*SERVING, *REMOTES)
"""The options that most people look for."""
OPTIONS: tuple[Option, ...] = (CONFIG, *MAIN, *PLACING, *WEB, *OPERATORS, *HOOKS, *ACCESS)
BY_FLAG: Mapping[str, Option] = {option.flag: option for option in OPTIONS}
