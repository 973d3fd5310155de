"""The checks of ``resumable doctor``, in the order in which they are made. Each is defined in `resumable.doctor`.

Invariants: nothing that lasts is changed. A check that fails itself is a finding, and keeps no other from being made.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from resumable.client.admin_client import AdminLine, NoDaemon, where
from resumable.config.options import Settings
from resumable.daemon.service import UploadService
from resumable.doctor import daemon, directory, machine, outside, proxy, records, sharing, space, syncs
from resumable.doctor.directory import CheckedDirectory, place_of
from resumable.doctor.findings import Finding
from resumable.spool.directory import mount_of

Check = Callable[[], Iterable[Finding] | Awaitable[Iterable[Finding]]]
#: Seconds that a daemon gets to say how it is.
PATIENCE = 15.0


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

    def service() -> object:
        return UploadService(evolve(settings, remotes=()), reactor)  # remotes have a check of their own

    def room() -> Iterable[Finding]:
        return space.judge(space.look(place.nearest, place.directory), settings.reserve, settings.max_size)

    yield daemon.OPTIONS, lambda: daemon.judge_options(daemon.look_at_options(settings, place, service))
    yield "machine", lambda: machine.judge(machine.look())
    yield directory.NAME, lambda: directory.judge(directory.look(place))
    yield sharing.NAME, lambda: sharing.judge(sharing.look(place, settings.modes, settings.placing))
    yield directory.LOCKS, lambda: _locks(place)
    yield syncs.NAME, lambda: _syncs(place)
    yield space.NAME, room
    yield records.NAME, lambda: _records(place)
    yield daemon.NAME, lambda: daemon.judge_daemon(place, _daemon(settings) if place.held else None)
    yield "remotes", lambda: _remotes(reactor, settings)
    yield outside.NAME, lambda: _outside(public)
    yield machine.CLOCK, lambda: _clock(settings, public)
    # Without an answer that is tus's there is nothing more to find out.
    if public.is_tus and public.url is not None:
        url = public.url
        yield proxy.BUFFERING, lambda: proxy.check_proxy(reactor, url, public.headers)
        yield outside.PAGES, lambda: _browser(reactor, settings, url, public)


def _outside(public: PublicUrl) -> Iterable[Finding]:
    if public.url is None:
        return [Finding(outside.NAME, "ok", "not looked at", "Give --url to try proxies and browsers too.")]
    public.answers.append(outside.look(public.url, time.time()))
    return outside.judge(public.answers[0])


async def _browser(reactor: Any, settings: Settings, url: str, public: PublicUrl) -> Iterable[Finding]:
    origin = public.origin or next((each for each in settings.cors.origins if "://" in each and "*" not in each), None)
    if origin is None:
        return [Finding(outside.PAGES, "ok", "not looked at", "Give --origin to try one.")]
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
        return [Finding(records.NAME, "ok", "the daemon has it; with the daemon stopped, this reads all of it")]
    return records.judge(records.look(place))


def _daemon(settings: Settings) -> daemon.DaemonStatus:
    places = [place for endpoint in settings.admin_listen if (place := where(endpoint)) is not None]
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
    return daemon.judge_remotes(await daemon.look_at_remotes(reactor, settings, time.time))


def _clock(settings: Settings, public: PublicUrl) -> Iterable[Finding]:
    asked = {"the public URL": public.answers[0]} if public.answers else {}
    for spec in settings.remotes:
        endpoint = spec.options.get("endpoint", "")
        if endpoint.startswith(("http://", "https://")):
            asked[f"remote {spec.name}"] = outside.look(endpoint, time.time())
    others = {name: each.ahead for name, each in asked.items() if each.ahead is not None}
    before = time.monotonic()
    goes_on = time.monotonic() >= before and time.get_clock_info("monotonic").monotonic
    return machine.judge_clock(machine.ClockFacts(time.time(), goes_on, machine.synchronised(), others))
