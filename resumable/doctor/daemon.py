"""The daemon that has the upload directory, as it tells of itself.

Changes when operators are told something else of a daemon.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from resumable import __version__
from resumable.doctor.findings import Finding
from resumable.doctor.place import Place

NAME = "daemon"


@frozen
class Daemon:
    """``asked``: where it answers operators, None: nowhere. ``silent``: why it didn't. ``wrong``: why it isn't ready,
    by the names of its checks. ``version``: None where it doesn't say."""

    asked: str | None = None
    silent: str | None = None
    wrong: Mapping[str, str] = field(factory=dict)
    version: str | None = None


def judge(place: Place, found: Daemon | None) -> list[Finding]:
    """``found``: None where no daemon is known to have the directory."""
    if found is None and place.held is None:
        what = f"whether one has {place.directory} can't be told from here"
        return [Finding(NAME, "warn", what, "Run this as the user that the daemon runs as.")]
    if found is None:
        return [Finding(NAME, "ok", f"none has {place.directory}; what only a running one knows was not looked at")]
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
