"""``resumable doctor``: its command line, its report, and the order of its checks (`resumable.doctor` defines each).

Invariants: nothing that lasts is changed. A check that fails itself is a finding, and keeps no other from being made.
An option that the daemon would refuse is a finding; an option that only this command has ends it with status 2. One
line for each finding, and below it, indented, what to change; as JSON one object a line. No secret of a URL is printed.
"""

from __future__ import annotations

import getopt
import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TextIO
from urllib.parse import urlsplit

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from twisted.python import usage
from zope.interface import provider

from resumable.cli import service_files
from resumable.cli.admin_client import AdminLine, NoDaemon, where
from resumable.config.agreed import agreed_options, disagreements
from resumable.config.options import Options, Settings
from resumable.daemon.service import UploadService, worker_count
from resumable.doctor import (
    access_rules,
    daemon,
    directory,
    hook_targets,
    interim,
    machine,
    outside,
    proxy,
    records,
    shared_directory,
    syncs,
)
from resumable.doctor.directory import CheckedDirectory, place_of
from resumable.doctor.findings import Finding, Level, unseen
from resumable.httpclient.client import Fetch
from resumable.listening import run_directory
from resumable.masking import has_user, masked
from resumable.model.errors import CatalogUnavailable
from resumable.spool.directory import mount_of

Check = Callable[[], Iterable[Finding] | Awaitable[Iterable[Finding]]]
#: Seconds that a daemon gets to say how it is.
PATIENCE = 15.0
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME_WIDTH = 16
NEEDS_EXTRA = "Install the extra: pip install 'resumable-server[postgres]'."
_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]*")


class DoctorOptions(Options):
    """The options of the daemon, and a few more."""

    synopsis = "Usage: resumable doctor [options]"
    longdesc = (
        "Checks everything that the daemon depends on, with the options and the environment that it is given, and says"
        " what to change. Works beside a running daemon and without one, and changes nothing. Ends with status 1 if"
        " something is bad."
    )
    metavars: ClassVar[Mapping[str, str]] = {"url": "URL", "origin": "ORIGIN", "header": "'NAME: VALUE'"}
    optParameters = [  # noqa: RUF012
        ["url", None, None, "where clients see --base-path; asked through whatever proxy there is [--public-url]"],
        ["origin", None, None, "web origin from which a browser is to upload"],
        *service_files.FLAGS,
    ]
    optFlags = [["json", None, "one JSON object a line"]]  # noqa: RUF012

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__(environ)
        self.headers: dict[str, str] = {}

    def opt_header(self, line: str) -> None:
        """sent with requests to --url, as Authorization; repeatable"""
        name, colon, value = line.partition(":")
        if not (colon and _NAME.fullmatch(name) and _VALUE.fullmatch(value.strip())):
            raise usage.UsageError("--header: expected NAME: VALUE")  # which may be a secret
        self.headers[name] = value.strip()

    @property
    def url(self) -> str | None:
        """The URL to ask from outside. Raises UsageError."""
        url: str | None = self["url"] or self.settings().public_url
        if url is not None:
            _check_url("--url", url)
        return url

    @property
    def origin(self) -> str | None:
        """The origin of the page that is to upload. Raises UsageError."""
        origin: str | None = self["origin"]
        if origin is not None:
            _check_url("--origin", origin)
        return origin


def _check_url(flag: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and url.isascii()
        good = good and not has_user(url)
    except ValueError:
        good = False
    if not good or any(char <= " " for char in url):  # it isn't repeated: it may hold a password
        raise usage.UsageError(f"{flag} expected a URL like https://example.org/files/; credentials go into --header")


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Make all checks and print their findings. The exit status."""
    if service_files.is_asked(arguments):
        return service_files.main(arguments, environ)
    options = DoctorOptions(environ)
    report = Report(sys.stdout, "--json" in arguments, shutil.get_terminal_size((100, 24)).columns)
    try:
        options.parseOptions(list(arguments))
        url, origin = options.url, options.origin
    except usage.UsageError as problem:
        if _is_usage(problem):
            sys.stderr.write(f"resumable doctor: {problem}; see resumable doctor --help\n")
            return 2
        report.tell(daemon.refused(str(problem)))
        report.tell(unseen("everything else", "it depends on the options", "Correct them, and run this again."))
        report.end()
        return 1
    globalLogBeginner.beginLoggingTo([_unheard], redirectStandardIO=False, discardBuffer=True)

    ended: list[OSError | None] = []

    async def go(reactor: Any) -> None:
        try:
            for each in options.unknown_variables:
                report.tell(daemon.unheeded(str(each)))
            for told in options.config.warnings:
                report.tell(
                    Finding(daemon.OPTIONS, "warn", told, "See the configuration file in docs/configuration.md.")
                )
            for name, check in all_checks(reactor, options.settings(), PublicUrl(url, origin, options.headers)):
                for finding in await made(name, check):
                    report.tell(finding)
            ended.append(None)
        except OSError as error:  # which the reactor would keep to itself
            ended.append(error)

    try:
        react(lambda reactor: Deferred.fromCoroutine(go(reactor)))
    except SystemExit as end:
        if end.code:
            return int(end.code)
    if not ended:  # the reactor takes SIGINT for itself
        raise KeyboardInterrupt
    if ended[0] is not None:
        raise ended[0]
    report.end()
    return 1 if report.bad else 0


@provider(ILogObserver)
def _unheard(event: LogEvent) -> None:
    """Drop the log of the daemon's parts while they are tried: their findings have it."""


def _is_usage(problem: usage.UsageError) -> bool:
    """Whether it is about this command line's form, and not about a value that the daemon would refuse."""
    ours = ("unexpected argument", "option --", "--url ", "--origin ", "--header")
    return isinstance(problem.__context__, getopt.error) or str(problem).startswith(ours)


class Report:
    """Prints findings. ``width``: columns that lines are broken at."""

    def __init__(self, out: TextIO, as_json: bool, width: int) -> None:
        self._out = out
        self._json = as_json
        self._width = max(40, width)
        self._counts: Counter[Level] = Counter()

    @property
    def bad(self) -> int:
        """How many findings were bad."""
        return self._counts["bad"]

    def tell(self, finding: Finding) -> None:
        """Print a finding at once, as the next check may take long."""
        finding = evolve(finding, what=masked(finding.what), advice=masked(finding.advice))
        self._counts[finding.level] += 1
        if self._json:
            fields = {
                "check": finding.name,
                "level": finding.level,
                "what": finding.what,
                "advice": finding.advice or None,
            }
            self._out.write(json.dumps(fields) + "\n")
        else:
            head = f"{finding.level:<4}  {finding.name:<{_NAME_WIDTH}}  "
            self._write(finding.what, head, " " * (_NAME_WIDTH + 8))
            if finding.advice:
                self._write(finding.advice, " " * (_NAME_WIDTH + 8) + "> ", " " * (_NAME_WIDTH + 10))
        self._out.flush()

    def end(self) -> None:
        """Print the last line."""
        if self._json:
            return
        warnings, bad, left = self._counts["warn"], self.bad, self._counts["skip"]
        unseen = f"; {left} not looked at" if left else ""
        if not warnings and not bad:
            self._out.write(f"\nall is well{unseen}\n")
            return
        told = [f"{count} {word}" for count, word in ((bad, "bad"), (warnings, _plural(warnings, "warning"))) if count]
        self._out.write(f"\n{', '.join(told)}; see what to change behind each >{unseen}\n")

    def _write(self, text: str, first: str, further: str) -> None:
        clean = " ".join(text.split())
        lines = textwrap.wrap(
            clean,
            self._width,
            initial_indent=first,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )
        self._out.write("\n".join(lines or [first]) + "\n")


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


async def made(name: str, check: Check) -> Iterable[Finding]:
    """The findings of a check. Never raises."""
    try:
        found = check()
        return await found if isinstance(found, Awaitable) else found
    except OSError as error:
        what = f"it couldn't be looked at: {error.strerror or error}"
        return [Finding(name, "bad", what, "See what is said of the directory, or run this as the daemon's user.")]
    except Exception as error:  # a check that fails is no reason to leave the others out
        what = f"the check itself failed: {type(error).__name__}: {error}"
        return [Finding(name, "bad", what, "This is a mistake of the program: please report it.")]


@frozen
class PublicUrl:
    """The public URL to check, None to leave it out. ``origin``: of a page that is to upload there. ``headers``: sent
    with each request. ``answers``: the first answer, once that is there."""

    url: str | None
    origin: str | None
    headers: Mapping[str, str]
    answers: list[outside.Outside] = field(factory=list)

    @property
    def is_tus(self) -> bool:
        """Whether the upload server has answered there."""
        return any(each.is_tus for each in self.answers)


def all_checks(reactor: Any, settings: Settings, public: PublicUrl) -> Iterable[tuple[str, Check]]:
    """Each check with its name. Make each before the next is taken."""
    place = place_of(str(settings.upload_dir))
    shares = settings.catalog is not None

    def service() -> object:
        alone = evolve(
            settings, remotes=(), spool=None, catalog=None
        )  # stores and the database have checks of their own
        return UploadService(alone, reactor)

    def room() -> Iterable[Finding]:
        found = machine.look_at_space(place.nearest, place.directory)
        return machine.judge_space(found, settings.reserve, settings.max_size)

    def permissions() -> Iterable[Finding]:
        return directory.judge_permissions(directory.look_at_permissions(place, settings.modes, settings.placing))

    def options() -> Iterable[Finding]:
        return daemon.judge_options(daemon.look_at_options(service))

    yield daemon.OPTIONS, options
    yield daemon.PORTS, lambda: daemon.check_all_ports(settings, _runs_here(settings) if shares else place.held)
    yield access_rules.NAME, lambda: _access(reactor, settings)
    yield hook_targets.NAME, lambda: hook_targets.check_hooks(reactor, settings)
    yield "machine", lambda: machine.judge(machine.look())
    if settings.spool is not None:
        yield from _store_checks(reactor, settings)
        yield from _outer_checks(reactor, settings, public)
        return
    yield directory.NAME, lambda: directory.judge(directory.look(place), shares)
    yield directory.PERMISSIONS, permissions
    if not shares:
        yield directory.LOCKS, lambda: _locks(place)
    yield syncs.NAME, lambda: _syncs(place)
    yield machine.SPACE, room
    if shares:
        yield from _shared_checks(settings, place)
        yield daemon.NAME, lambda: _daemon_here(settings, place)
    else:
        yield records.NAME, lambda: _records(place)
        yield daemon.NAME, lambda: daemon.judge_daemon(place, _daemon(settings) if place.held else None)
    yield from _outer_checks(reactor, settings, public)


def _outer_checks(reactor: Any, settings: Settings, public: PublicUrl) -> Iterable[tuple[str, Check]]:
    """Those of what is outside of this machine."""
    yield "remotes", lambda: _remotes(reactor, settings)
    yield outside.NAME, lambda: _outside(public)
    yield machine.CLOCK, lambda: _clock(settings, public)
    # Without an answer that is tus's there is nothing more to find out.
    if public.is_tus and public.url is not None:
        url = public.url
        yield proxy.BUFFERING, lambda: proxy.check_proxy(reactor, url, public.headers)
        if settings.draft:
            yield interim.NAME, lambda: _interim(reactor, settings, url, public)
        yield outside.PAGES, lambda: _browser(reactor, settings, url, public)
    elif public.url is not None:
        for name in (proxy.BUFFERING, interim.NAME, outside.PAGES):
            yield name, partial(_not_reached, name)


def _not_reached(name: str) -> list[Finding]:
    return [unseen(name, "nothing answers as tus at the public URL", "Mend that first, and run this again.")]


async def _access(reactor: Any, settings: Settings) -> Iterable[Finding]:
    fetch = Fetch(reactor, timeout=PATIENCE)
    try:
        return await access_rules.check_access(settings, fetch)
    finally:
        await fetch.close()


def _outside(public: PublicUrl) -> Iterable[Finding]:
    if public.url is None:
        why = "no --url and no --public-url is given"
        return [unseen(outside.NAME, why, "Give --url: proxies and browsers are tried too.")]
    public.answers.append(outside.look(public.url, time.time()))
    return outside.judge(public.answers[0])


async def _interim(reactor: Any, settings: Settings, url: str, public: PublicUrl) -> Iterable[Finding]:
    most = min(filter(None, (settings.max_append_size, settings.max_size)), default=None)
    return [
        await interim.check_interim(
            *(reactor, url, public.headers), interim=settings.interim, least=settings.min_append_size, most=most
        )
    ]


async def _browser(reactor: Any, settings: Settings, url: str, public: PublicUrl) -> Iterable[Finding]:
    origin = public.origin or next((each for each in settings.cors.origins if "://" in each and "*" not in each), None)
    if origin is None:
        return [unseen(outside.PAGES, "no origin is given", "Give --origin to try one.")]
    return [await outside.check_origin(reactor, url, origin, headers=public.headers)]


def _locks(place: CheckedDirectory) -> Iterable[Finding]:
    with place.scratch() as scratch:
        return directory.judge_locks(place, directory.excludes(scratch))


def _syncs(place: CheckedDirectory) -> Iterable[Finding]:
    mount = mount_of(place.nearest)
    pids: tuple[int | str, ...] = ("self",) if place.holder is None else ("self", place.holder)
    with place.scratch() as scratch:
        plain, dsync = syncs.measure(scratch, time.perf_counter)
        error = syncs.directory_error(scratch)
    cache = None if mount is None else syncs.write_cache(mount.device)
    return syncs.judge(syncs.Syncs(plain, dsync, error, machine.preloaded(pids), mount, cache))


def _records(place: CheckedDirectory) -> Iterable[Finding]:
    if place.held:
        return [unseen(records.NAME, "the daemon has it", "With the daemon stopped, this reads all of it.")]
    return records.judge(records.look(place))


def _shared_checks(settings: Settings, place: CheckedDirectory) -> Iterable[tuple[str, Check]]:
    """Those of a database, of the servers that use it, and of the directory that they share."""
    found: list[Any] = []  # the database's facts, once it has answered

    def share() -> Iterable[Finding]:
        known = (found[0].installation, found[0].directory) if found else (None, None)
        return shared_directory.judge(shared_directory.look(place, bool(found), *known))

    yield from _database_checks(settings, found)
    yield shared_directory.NAME, share


def _store_checks(reactor: Any, settings: Settings) -> Iterable[tuple[str, Check]]:
    """Those of a database, of the servers that use it, of the store that is their spool, and of the server here."""
    from resumable.doctor import bucket

    spec = settings.spool
    assert spec is not None
    found: list[Any] = []
    stores: list[bucket.StoreFacts] = []

    async def store() -> Iterable[Finding]:
        stores.append(await bucket.look(reactor, settings, spec))
        return bucket.judge(stores[0], settings.expire_after, found[0].directory if found else None)

    def scratch() -> Iterable[Finding]:
        place, part_size = bucket.look_at_scratch(settings.run_dir), stores[0].part_size if stores else 0
        return bucket.judge_scratch(place, settings.scratch_size, part_size, worker_count(settings) or 1)

    yield from _database_checks(settings, found)
    yield bucket.NAME, store
    yield bucket.SCRATCH, scratch
    yield daemon.NAME, lambda: _daemon_here(settings, CheckedDirectory("", "", True))


def _database_checks(settings: Settings, found: list[Any]) -> Iterable[tuple[str, Check]]:
    """``found``: gets the database's facts, once it has answered."""
    assert settings.catalog is not None
    try:
        from resumable.doctor import database
    except ImportError:
        missing = Finding("database", "bad", "PostgreSQL's driver is not installed", NEEDS_EXTRA)
        yield "database", lambda: [missing]
        return
    url = settings.catalog

    def ask() -> Iterable[Finding]:
        try:
            found.append(database.look(url))
        except CatalogUnavailable as error:
            return [database.unreached(str(error))]
        return database.judge(found[0])

    def compare() -> Iterable[Finding]:
        mine, others = agreed_options(settings), found[0].workers if found else {}
        differ = [each for node, theirs in others.items() for each in disagreements(mine, theirs, node)]
        return (
            database.judge_workers(differ, others)
            if found
            else [unseen(database.WORKERS, "the database doesn't answer", "Mend that first, and run this again.")]
        )

    yield database.NAME, ask
    yield database.WORKERS, compare


def _runs_here(settings: Settings) -> bool | None:
    """Whether one of several servers runs on this machine; None where that can't be told."""
    found = [
        directory.is_held(str(each / run_directory.LOCK)) for each in run_directory.places(settings.run_dir, os.environ)
    ]
    return True if True in found else None if None in found else False


def _daemon_here(settings: Settings, place: CheckedDirectory) -> Iterable[Finding]:
    """About one of several servers: that of this machine, if there is one."""
    path = run_directory.found(settings.run_dir, os.environ)
    if run_directory.SOCKET in settings.admin_listen and (path is None or not path.is_socket()):
        why = "none runs on this machine, as far as --run-dir shows"
        return [unseen(daemon.NAME, why, "Start it, and run this again: it tells more of itself.")]
    return daemon.judge_daemon(place, _daemon(settings))


def _daemon(settings: Settings) -> daemon.DaemonStatus:
    path = run_directory.found(settings.run_dir, os.environ) if run_directory.SOCKET in settings.admin_listen else None
    endpoints = settings.admin_listen if path is None else run_directory.settled(settings.admin_listen, path.parent)
    places = [place for endpoint in endpoints if (place := where(endpoint)) is not None]
    if not places:
        return daemon.DaemonStatus()
    asked = min(places, key=lambda place: not place.startswith("unix:"))  # where nobody needs a token
    line = AdminLine(asked, patience=PATIENCE)
    try:
        told = line.ask("GET", "/v1/status").document
        if not isinstance(told, dict) or "wrong" not in told:  # it needs a token; this doesn't
            told = line.ask("GET", "/readyz").document
    except NoDaemon as error:
        return daemon.DaemonStatus(asked, silent=str(error))
    if not isinstance(told, dict) or not isinstance(told.get("wrong"), dict):
        return daemon.DaemonStatus(asked, silent="what answers there is no daemon")
    return daemon.DaemonStatus(asked, wrong=told["wrong"], version=told.get("version"))


async def _remotes(reactor: Any, settings: Settings) -> Iterable[Finding]:
    if settings.spool is not None and not settings.remotes:
        return [Finding("remotes", "ok", "there is none: uploads are in the spool alone")]
    return daemon.judge_remotes(await daemon.look_at_remotes(reactor, settings, time.time))


def _clock(settings: Settings, public: PublicUrl) -> Iterable[Finding]:
    asked = {"the public URL": public.answers[0]} if public.answers else {}
    for spec in (*settings.remotes, *filter(None, [settings.spool])):
        endpoint = spec.options.get("endpoint", "")
        if endpoint.startswith(("http://", "https://")):
            asked[f"remote {spec.name}"] = outside.look(endpoint, time.time())
    others = {name: each.ahead for name, each in asked.items() if each.ahead is not None}
    before = time.monotonic()
    goes_on = time.monotonic() >= before and time.get_clock_info("monotonic").monotonic
    return machine.judge_clock(machine.ClockFacts(time.time(), goes_on, machine.synchronised(), others))
