"""The checks of ``resumable doctor``, in the order in which they are made.

Changes when a check comes or goes; what each looks at is in `resumable.doctor`. Invariants: nothing that lasts is
changed; a check that fails itself is told of as such, and keeps no other from being made.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from resumable.client.endpoints import where
from resumable.client.line import Line, NoDaemon
from resumable.config.options import Settings
from resumable.daemon.service import UploadService
from resumable.doctor import (
    browser,
    clock,
    daemon,
    directory,
    locks,
    machine,
    outside,
    proxy,
    records,
    remotes,
    sharing,
    space,
    start,
    syncs,
)
from resumable.doctor.findings import Finding
from resumable.doctor.place import Place, place_of
from resumable.spool.directory import mount_of

Check = Callable[[], Iterable[Finding] | Awaitable[Iterable[Finding]]]
#: Seconds that a daemon gets to say how it is.
PATIENCE = 15.0


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


@frozen
class Seen:
    """What to ask of the public URL, None: nothing; and, as checks go on, what it has answered first."""

    url: str | None
    origin: str | None
    headers: Mapping[str, str]
    answers: list[outside.Outside] = field(factory=list)

    @property
    def is_tus(self) -> bool:
        return any(each.is_tus for each in self.answers)


def all_checks(reactor: Any, settings: Settings, seen: Seen) -> Iterable[tuple[str, Check]]:
    """Each by its name; to be made one after the other, while this is iterated."""
    place = place_of(str(settings.upload_dir))

    def service() -> object:
        return UploadService(evolve(settings, remotes=()), reactor)  # remotes have a check of their own

    def room() -> Iterable[Finding]:
        return space.judge(space.look(place.nearest, place.directory), settings.reserve, settings.max_size)

    yield start.NAME, lambda: start.judge(start.look(settings, place, service))
    yield "machine", lambda: machine.judge(machine.look())
    yield directory.NAME, lambda: directory.judge(directory.look(place))
    yield sharing.NAME, lambda: sharing.judge(sharing.look(place, settings.modes, settings.placing))
    yield locks.NAME, lambda: _locks(place)
    yield syncs.NAME, lambda: _syncs(place)
    yield space.NAME, room
    yield records.NAME, lambda: _records(place)
    yield daemon.NAME, lambda: daemon.judge(place, _daemon(settings) if place.held else None)
    yield "remotes", lambda: _remotes(reactor, settings)
    yield outside.NAME, lambda: _outside(seen)
    yield clock.NAME, lambda: _clock(settings, seen)
    # Without an answer that is tus's there is nothing more to find out.
    if seen.is_tus and seen.url is not None:
        url = seen.url
        yield proxy.BUFFERING, lambda: proxy.check_proxy(reactor, url, seen.headers)
        yield browser.NAME, lambda: _browser(reactor, settings, url, seen)


def _outside(seen: Seen) -> Iterable[Finding]:
    if seen.url is None:
        return [Finding(outside.NAME, "ok", "not looked at", "Give --url to try proxies and browsers too.")]
    seen.answers.append(outside.look(seen.url, time.time()))
    return outside.judge(seen.answers[0])


async def _browser(reactor: Any, settings: Settings, url: str, seen: Seen) -> Iterable[Finding]:
    origin = seen.origin or next((each for each in settings.cors.origins if "://" in each and "*" not in each), None)
    if origin is None:
        return [Finding(browser.NAME, "ok", "not looked at", "Give --origin to try one.")]
    return [await browser.check_origin(reactor, url, origin, headers=seen.headers)]


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
    asked = min(places, key=lambda place: not place.startswith("unix:"))  # where nobody needs a token
    line = Line(asked, patience=PATIENCE)
    try:
        told = line.ask("GET", "/v1/status").document
        if not isinstance(told, dict) or "wrong" not in told:  # it needs a token; this doesn't
            told = line.ask("GET", "/readyz").document
    except NoDaemon as error:
        return daemon.Daemon(asked, silent=str(error))
    if not isinstance(told, dict) or not isinstance(told.get("wrong"), dict):
        return daemon.Daemon(asked, silent="what answers there is no daemon")
    return daemon.Daemon(asked, wrong=told["wrong"], version=told.get("version"))


async def _remotes(reactor: Any, settings: Settings) -> Iterable[Finding]:
    return remotes.judge(await remotes.look(reactor, settings, time.time))


def _clock(settings: Settings, seen: Seen) -> Iterable[Finding]:
    asked = {"the public URL": seen.answers[0]} if seen.answers else {}
    for spec in settings.remotes:
        endpoint = spec.options.get("endpoint", "")
        if endpoint.startswith(("http://", "https://")):
            asked[f"remote {spec.name}"] = outside.look(endpoint, time.time())
    others = {name: each.ahead for name, each in asked.items() if each.ahead is not None}
    before = time.monotonic()
    goes_on = time.monotonic() >= before and time.get_clock_info("monotonic").monotonic
    return clock.judge(clock.Clock(time.time(), goes_on, clock.synchronised(), others))
