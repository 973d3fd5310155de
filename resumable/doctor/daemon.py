"""The daemon: whether it would start with these options, whether the running one is well, whether its remotes work.

Invariants: nothing is opened that stays open, no port of a running daemon is touched, and a remote that is set up wrong
keeps none of the others from being tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, gatherResults

from resumable import __version__
from resumable.config.options import Settings
from resumable.daemon import remote_tier as tiers
from resumable.doctor.directory import CheckedDirectory
from resumable.doctor.findings import Finding, unseen
from resumable.listening.endpoints import ADMIN_LISTEN, LISTEN, PROXIED, check_ports, split_endpoint
from resumable.model.errors import StartupError
from resumable.remotes.urls import RemoteSpec

NAME = "daemon"
OPTIONS = "options"
PORTS = "ports"
_SOCKETS = "there are only sockets in the file system, and a look could remove one"


@frozen
class DaemonStatus:
    """How the running daemon is, in its own words.

    ``asked``: the place where it answers operators, None without one. ``silent``: why it did not answer. ``wrong``: why
    it isn't ready, by the names of its checks. ``version``: None where it doesn't say.
    """

    asked: str | None = None
    silent: str | None = None
    wrong: Mapping[str, str] = field(factory=dict)
    version: str | None = None


def judge_daemon(place: CheckedDirectory, found: DaemonStatus | None) -> list[Finding]:
    """The findings about the running daemon. ``found``: None where no daemon is known to have the directory."""
    if found is None and place.held is None:
        what = f"whether one has {place.directory} can't be told from here"
        return [Finding(NAME, "warn", what, "Run this as the user that the daemon runs as.")]
    if found is None:
        return [unseen(NAME, f"none has {place.directory}", "Start it, and run this again: it tells more of itself.")]
    if found.asked is None:
        what = "it runs, and answers no operators"
        return [Finding(NAME, "warn", what, "Leave --admin-listen out, or give this the one that it runs with.")]
    if found.silent is not None:
        what = f"it runs, and {found.asked} doesn't answer: {found.silent}"
        advice = "Give this the --admin-listen that the daemon runs with, and run it as the daemon's user."
        return [Finding(NAME, "bad", what, advice)]
    findings = [
        Finding(NAME, "bad", f"it isn't ready: {name}: {reason}", "See Alerts in docs/operations.md for what to do.")
        for name, reason in found.wrong.items()
    ]
    if found.version not in (None, __version__):
        what = f"it is of version {found.version}, and this is {__version__}"
        findings.append(Finding(NAME, "warn", what, "Restart it, or ask with the program that it runs from."))
    version = "" if found.version is None else f", version {found.version}"
    return findings or [Finding(NAME, "ok", f"it is ready{version}")]


def look_at_options(make: Callable[[], object]) -> list[str]:
    """The reasons why the daemon would not start, a line each. ``make`` makes the service as the start does."""
    return [problem for step in [make] if (problem := _problem(step)) is not None]


def check_all_ports(settings: Settings, held: bool | None) -> list[Finding]:
    """The findings about the ports. ``held``: whether a daemon has them; None where that can't be told."""
    given = [(LISTEN, each) for each in settings.listen] + [(ADMIN_LISTEN, each) for each in settings.admin_listen]
    # Sockets in the file system are left alone: a look at one removes the one that a killed daemon has left.
    ports = [(flag, each) for flag, each in given if _is_port(each)]
    if held is not False:
        why = "a daemon has them" if held else "whether a daemon has them can't be told from here"
        return [unseen(PORTS, why, "Stop the daemon, and run this as its user." if held else "Run this as its user.")]
    problems = [(flag, _problem(partial(check_ports, [each], flag))) for flag, each in ports]
    findings = [refused(problem, PORTS) for _, problem in problems if problem is not None]
    if findings:
        return findings
    if not ports:
        return [unseen(PORTS, _SOCKETS, "The start tells.")]
    return [Finding(PORTS, "ok", f"{len(ports)} can be had")]


def _is_port(description: str) -> bool:
    return split_endpoint(description.removeprefix(PROXIED))[0] in ("tcp", "tcp4", "tcp6", "ssl")


def _problem(step: Callable[[], object]) -> str | None:
    try:
        step()
    except StartupError as error:
        return str(error)
    return None


def judge_options(problems: Sequence[str]) -> list[Finding]:
    """The findings about the options."""
    if not problems:
        return [Finding(OPTIONS, "ok", "the daemon would start with these")]
    return [refused(each) for each in problems]


def unheeded(variable: str) -> Finding:
    """The finding about an environment variable that the daemon ignores."""
    return Finding(OPTIONS, "warn", variable, "Take it out of the environment, or correct its name.")


def refused(problem: str, name: str = OPTIONS) -> Finding:
    """The finding about an error at the start. Its advice is in the error's own text."""
    return Finding(name, "bad", problem, "The daemon doesn't start with that: change it where it was given.")


async def look_at_remotes(reactor: Any, settings: Settings, wall: Callable[[], float]) -> Mapping[str, str | None]:
    """The fault of each remote, by its name; None for one that works. All are tried at once, as ``--check`` does."""

    async def ask(spec: RemoteSpec) -> str | None:
        try:
            return (await tiers.tried(reactor, evolve(settings, remotes=(spec,)), wall))[spec.name]
        except StartupError as error:
            return str(error).removeprefix(f"remote {spec.name}: ")

    answers = await gatherResults([Deferred.fromCoroutine(ask(spec)) for spec in settings.remotes])
    return dict(zip((spec.name for spec in settings.remotes), answers, strict=True))


def judge_remotes(found: Mapping[str, str | None]) -> list[Finding]:
    """A finding for each remote."""
    if not found:
        return [Finding("remotes", "ok", "there is none: uploads stay on this disk")]
    return [_judged(f"remote {name}", wrong) for name, wrong in found.items()]


def _judged(name: str, wrong: str | None) -> Finding:
    if wrong is None:
        return Finding(name, "ok", "works")
    what, _, advice = wrong.partition("; ")
    return Finding(name, "bad", what, _sentence(advice or "compare its --remote with docs/remotes.md"))


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:].rstrip('.')}."
