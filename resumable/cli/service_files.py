"""``resumable doctor --write unit|compose|kubernetes``: a file that starts the server with the given options.

Invariant: what the server would refuse is refused here, in its words; nothing is written but the file of ``--output``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.python import usage

from resumable.cli.compose_file import compose_file
from resumable.cli.configure import is_of_the_line, warnings_told
from resumable.cli.container_plan import NotForContainers
from resumable.cli.kubernetes_file import kubernetes_file
from resumable.cli.service_plan import ServicePlan, plan_of
from resumable.cli.unit_file import unit_file
from resumable.config.options import Options
from resumable.masking import masked

KINDS: Final[Mapping[str, Callable[[ServicePlan, str | None], str]]] = {
    "unit": unit_file,
    "compose": compose_file,
    "kubernetes": kubernetes_file,
}
FLAGS: Final = (
    ["write", None, None, f"instead write a file that starts the server with these options: {', '.join(KINDS)}"],
    ["output", None, None, "with --write: the file to write, which must not exist [standard output]"],
    ["user", None, None, "with --write: whom the server runs as; in containers a number"],
)
"""These flags as Twisted describes them, for doctor's help."""
_USERS: Final = {"unit": r"[A-Za-z_][A-Za-z0-9_.-]*|[0-9]+", "compose": r"[0-9]+(:[0-9]+)?", "kubernetes": r"[0-9]+"}


class WriteOptions(Options):
    """The options of the server, and those of ``--write``."""

    optParameters = list(FLAGS)  # noqa: RUF012


def is_asked(arguments: Sequence[str]) -> bool:
    """Whether these arguments of doctor ask for a file."""
    return any(each == "--write" or each.startswith("--write=") for each in arguments)


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Write the file. The exit status."""
    options = WriteOptions(environ)
    try:
        with warnings_told():
            options.parseOptions(list(arguments))
        text = _text(options)
    except (usage.UsageError, NotForContainers) as problem:
        line = isinstance(problem, usage.UsageError) and is_of_the_line(problem)
        hint = "; see resumable doctor --help" if line else ""
        sys.stderr.write(f"resumable doctor: {masked(str(problem))}{hint}\n")
        return 2 if line or str(problem).startswith(("--write", "--user")) else 1
    output = options["output"]
    if output in (None, "-"):
        sys.stdout.write(text)
        return 0
    try:
        with open(output, "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        sys.stderr.write(f"resumable doctor: {output} is there already: give another name\n")
        return 1
    sys.stdout.write(f"{output} is written; its first lines say what else to do\n")
    return 0


def _text(options: WriteOptions) -> str:
    kind, user = options["write"], options["user"]
    if kind not in KINDS:
        raise usage.UsageError(f"--write {kind!r}: expected one of {', '.join(KINDS)}")
    if user is not None and not re.fullmatch(_USERS[kind], user):
        raise usage.UsageError(f"--user {user!r}: expected a {'name' if kind == 'unit' else 'number'} of a user")
    return KINDS[kind](plan_of(options), user)
