"""Whether the daemon would start with these options.

Changes when it may refuse to for another reason. Invariant: nothing is opened that stays open, and no port of a daemon
that runs is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from resumable import startup
from resumable.doctor.findings import Finding
from resumable.doctor.place import Place
from resumable.listening.endpoints import endpoint
from resumable.options import Settings
from resumable.startup import StartupError

NAME = "options"


def look(settings: Settings, reactor: Any, place: Place, make: Callable[[], object]) -> list[str]:
    """What keeps it from starting, a line each; ``make`` makes the service as the start does."""
    steps: list[Callable[[], object]] = [make]
    for flag, given in ((startup.LISTEN, settings.listen), (startup.ADMIN_LISTEN, settings.admin_listen)):
        for each in given:
            steps.append(partial(_try, settings, reactor, each, flag, bind=not place.held))
    return [problem for step in steps if (problem := _problem(step)) is not None]


def _try(settings: Settings, reactor: Any, description: str, flag: str, bind: bool) -> None:
    """Make the endpoint and, where it is a port, see that it can be had. Raises StartupError."""
    if description.startswith("systemd:"):  # only the start itself is given these
        return
    try:
        endpoint(reactor, description, settings.tls_client_ca, required=not settings.tls_client_optional)
    except (ValueError, OSError) as error:
        raise StartupError(startup.listen_failed(description, error, flag)) from error
    # Sockets in the file system are left alone: to look at one clears away what a killed daemon has left.
    if bind and not description.startswith("unix:"):
        startup.check_ports([description], flag)


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


def refused(problem: str) -> Finding:
    """A start-up error, which has its advice behind a colon or a semicolon."""
    return Finding(NAME, "bad", problem, "The daemon doesn't start with that: change it where it was given.")
