"""Whether the daemon would start with these options.

Changes when it may refuse to for another reason. Invariant: nothing is opened that stays open, and no port of a daemon
that runs is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from resumable.config.options import Settings
from resumable.doctor.findings import Finding
from resumable.doctor.place import Place
from resumable.listening import ports
from resumable.model.errors import StartupError

NAME = "options"


def look(settings: Settings, place: Place, make: Callable[[], object]) -> list[str]:
    """What keeps it from starting, a line each; ``make`` makes the service as the start does."""
    steps: list[Callable[[], object]] = [make]
    for flag, given in ((ports.LISTEN, settings.listen), (ports.ADMIN_LISTEN, settings.admin_listen)):
        for each in given:
            if place.held is False:
                steps.append(partial(_try, each, flag))
    return [problem for step in steps if (problem := _problem(step)) is not None]


def _try(description: str, flag: str) -> None:
    """See that the port can be had. Raises StartupError."""
    # Sockets in the file system are left alone: to look at one clears away what a killed daemon has left.
    if not description.removeprefix(ports.PROXIED).startswith("unix:"):
        ports.check_ports([description], flag)


def _problem(step: Callable[[], object]) -> str | None:
    try:
        step()
    except StartupError as error:
        return str(error)
    return None


def judge(problems: Sequence[str]) -> list[Finding]:
    if not problems:
        return [Finding(NAME, "ok", "the daemon would start with these")]
    return [refused(each) for each in problems]


def unheeded(variable: str) -> Finding:
    """A variable that the daemon passes over."""
    return Finding(NAME, "warn", variable, "Take it out of the environment, or correct its name.")


def refused(problem: str) -> Finding:
    """A start-up error, which has its advice behind a colon or a semicolon."""
    return Finding(NAME, "bad", problem, "The daemon doesn't start with that: change it where it was given.")
