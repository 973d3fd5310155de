"""``resumable doctor``: looks at everything that a daemon depends on, and says what to change.

Changes when a check comes or goes; what each looks at is in `resumable.doctor`. Invariants: nothing that lasts is
changed; a check that fails itself is told of as such, and keeps no other from being made.
"""

from __future__ import annotations

import getopt
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from twisted.python import usage
from zope.interface import provider

from resumable.client.endpoints import where
from resumable.client.line import Line, NoDaemon
from resumable.client.report import Report
from resumable.doctor import clock, daemon, directory, locks, machine, outside, records, remotes, space, start, syncs
from resumable.doctor.findings import Finding
from resumable.doctor.place import Place, place_of
from resumable.options import Options, Settings
from resumable.service import UploadService
from resumable.spool.mounts import mount_of

Check = Callable[[], Iterable[Finding] | Awaitable[Iterable[Finding]]]
#: Seconds that a daemon gets to say how it is.
PATIENCE = 15.0


class DoctorOptions(Options):
    """Those of the daemon, so that what it would do can be tried, and a few more."""

    synopsis = "Usage: resumable doctor [options]"
    longdesc = (
        "Checks everything that the daemon depends on, with the options and the environment that it is given, and says"
        " what to change. Works beside a running daemon and without one, and changes nothing. Ends with status 1 if"
        " something is bad."
    )
    optParameters = [  # noqa: RUF012
        ["url", None, None, "where clients see --base-path; asked through whatever proxy there is [--public-url]"],
        ["origin", None, None, "web origin from which a browser is to upload"],
    ]
    optFlags = [["json", None, "one JSON object a line"]]  # noqa: RUF012

    @property
    def url(self) -> str | None:
        """What to ask from outside. Raises UsageError."""
        url: str | None = self["url"] or self.settings().public_url
        if url is not None:
            _check_url("--url", url)
        return url

    @property
    def origin(self) -> str | None:
        """Raises UsageError."""
        origin: str | None = self["origin"]
        if origin is not None:
            _check_url("--origin", origin)
        return origin


def _check_url(flag: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and url.isascii()
    except ValueError:
        good = False
    if not good or any(char <= " " for char in url):
        raise usage.UsageError(f"{flag} {url!r}: expected a URL like https://example.org/files/")


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """The exit status."""
    options = DoctorOptions(environ)
    report = Report(sys.stdout, "--json" in arguments, shutil.get_terminal_size((100, 24)).columns)
    try:
        options.parseOptions(list(arguments))
        url, origin = options.url, options.origin
    except usage.UsageError as problem:
        if _is_usage(problem):
            sys.stderr.write(f"resumable doctor: {problem}; see resumable doctor --help\n")
            return 2
        report.tell(start.refused(str(problem)))
        report.end()
        return 1
    globalLogBeginner.beginLoggingTo([_unheard], redirectStandardIO=False, discardBuffer=True)

    ended: list[bool] = []

    async def go(reactor: Any) -> None:
        await _examine(reactor, options.settings(), url, origin, report)
        ended.append(True)

    try:
        react(lambda reactor: Deferred.fromCoroutine(go(reactor)))
    except SystemExit as end:
        if end.code:
            return int(end.code)
    if not ended:  # the reactor takes SIGINT for itself
        raise KeyboardInterrupt
    report.end()
    return 1 if report.bad else 0


@provider(ILogObserver)
def _unheard(event: LogEvent) -> None:
    """What parts of the daemon log while they are tried is in their findings."""


def _is_usage(problem: usage.UsageError) -> bool:
    """Whether it is about this command line's form, and not about what the daemon would say of a value."""
    ours = ("unexpected argument", "--url ", "--origin ")
    return isinstance(problem.__context__, getopt.error) or str(problem).startswith(ours)


async def _examine(reactor: Any, settings: Settings, url: str | None, origin: str | None, report: Report) -> None:
    place = place_of(str(settings.upload_dir))
    for name, check in _checks(reactor, settings, place, url, origin):
        for finding in await made(name, check):
            report.tell(finding)


async def made(name: str, check: Check) -> Iterable[Finding]:
    """What the check has found; never fails."""
    try:
        found = check()
        return await found if isinstance(found, Awaitable) else found
    except OSError as error:
        what = f"it couldn't be looked at: {error.strerror or error}"
        return [Finding(name, "bad", what, "See what is said of the directory, or run this as the daemon's user.")]
    except Exception as error:  # a check that fails is no reason to leave the others out
        what = f"the check itself failed: {type(error).__name__}: {error}"
        return [Finding(name, "bad", what, "This is a mistake of the program: please report it.")]


def _checks(
    reactor: Any, settings: Settings, place: Place, url: str | None, origin: str | None
) -> Iterable[tuple[str, Check]]:
    """In the order in which they are made; each begins when the one before has ended."""
    seen: list[outside.Outside] = []

    def service() -> object:
        return UploadService(evolve(settings, remotes=()), reactor)  # remotes have a check of their own

    def public() -> Iterable[Finding]:
        seen.append(outside.look(url or "", time.time()))
        return outside.judge(seen[-1])

    yield start.NAME, lambda: start.judge(start.look(settings, reactor, place, service))
    yield "machine", lambda: machine.judge(machine.look())
    yield directory.NAME, lambda: directory.judge(directory.look(place))
    yield locks.NAME, lambda: _locks(place)
    yield syncs.NAME, lambda: _syncs(place)
    yield (
        space.NAME,
        lambda: space.judge(space.look(place.nearest, place.directory), settings.reserve, settings.max_size),
    )
    yield records.NAME, lambda: _records(place)
    yield daemon.NAME, lambda: daemon.judge(place, _daemon(settings) if place.held else None)
    yield "remotes", lambda: _remotes(reactor, settings)
    if url is None:
        unasked = Finding(outside.NAME, "ok", "not looked at", "Give --url to try proxies and browsers too.")
        yield outside.NAME, lambda: [unasked]
    else:
        yield outside.NAME, public
    yield clock.NAME, lambda: _clock(settings, seen)


def _locks(place: Place) -> Iterable[Finding]:
    with place.scratch() as scratch:
        return locks.judge(place, locks.excludes(scratch))


def _syncs(place: Place) -> Iterable[Finding]:
    mount = mount_of(place.nearest)
    pids: tuple[int | str, ...] = ("self",) if place.holder is None else ("self", place.holder)
    with place.scratch() as scratch:
        plain, dsync = syncs.measure(scratch, time.perf_counter)
        error = syncs.directory_error(scratch)
    cache = None if mount is None else syncs.write_cache(mount.device)
    return syncs.judge(syncs.Syncs(plain, dsync, error, machine.preloaded(pids), mount, cache))


def _records(place: Place) -> Iterable[Finding]:
    if place.held:
        return [Finding(records.NAME, "ok", "the daemon has it; with the daemon stopped, this reads all of it")]
    return records.judge(records.look(place))


def _daemon(settings: Settings) -> daemon.Daemon:
    places = [place for endpoint in settings.admin_listen if (place := where(endpoint)) is not None]
    if not places:
        return daemon.Daemon()
    try:
        reply = Line(places[0], patience=PATIENCE).ask("GET", "/readyz")
        wrong = reply.document.get("wrong", {}) if isinstance(reply.document, dict) else {}
        return daemon.Daemon(places[0], wrong=wrong)
    except NoDaemon as error:
        return daemon.Daemon(places[0], silent=str(error))


async def _remotes(reactor: Any, settings: Settings) -> Iterable[Finding]:
    return remotes.judge(await remotes.look(reactor, settings, time.time))


def _clock(settings: Settings, seen: Sequence[outside.Outside]) -> Iterable[Finding]:
    asked = {} if not seen else {"the public URL": seen[0]}
    for spec in settings.remotes:
        endpoint = spec.options.get("endpoint", "")
        if endpoint.startswith(("http://", "https://")):
            asked[f"remote {spec.name}"] = outside.look(endpoint, time.time())
    others = {name: each.ahead for name, each in asked.items() if each.ahead is not None}
    before = time.monotonic()
    goes_on = time.monotonic() >= before and time.get_clock_info("monotonic").monotonic
    return clock.judge(clock.Clock(time.time(), goes_on, clock.synchronised(), others))
