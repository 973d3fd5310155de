"""Everything about events and hooks, put together.

One reason to change: another kind of hook. Invariants: what a hook is told, asked and shown of progress goes over
connections and threads of its own for each, so that what hangs there holds up nothing else, and no other hook; Python
that is told and asked alike is one object; whatever was opened is closed by `Desk.stop`. What can't work is found out
before anything starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from random import Random
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from resumable.aio.threads import IPool
from resumable.hooks import entry_hook
from resumable.hooks.command_hook import Command, CommandHook, find_program
from resumable.hooks.counts import HookCounts
from resumable.hooks.delivery import Courier
from resumable.hooks.guards import Guard, Guards
from resumable.hooks.http_hook import HttpHook
from resumable.hooks.interfaces import EventKind, IGuard, IHook, IWatcher
from resumable.hooks.post import Poster, Posting
from resumable.hooks.progress import MOST, Progress, Watcher
from resumable.hooks.settings import BadHookTarget, HookSettings, HookTarget
from resumable.hooks.signing import Signer
from resumable.hooks.tusd import TusdFormat, TusdHook
from resumable.httpclient.client import Http, HttpLimits
from resumable.model.outbox import IOutbox
from resumable.protocol.errors import Refused

AT_ONCE = 32
"""Questions under way to one URL at once."""


@frozen
class Means:
    """What hooks need of the rest. ``pool`` makes one for so many commands at once, which the desk starts and stops.
    ``source``: what events say that they come from. ``path_of``: where an upload's data is. ``remotes``: their names;
    None: any. ``stop_upload``: ends a running upload with that answer."""

    reactor: Any
    clock: IReactorTime
    wall: Callable[[], float]
    monotonic: Callable[[], float]
    rng: Random
    new_id: Callable[[], str]
    pool: Callable[[int], IPool]
    environment: Mapping[str, str] = field(repr=False)
    source: str
    path_of: Callable[[str], str]
    stop_upload: Callable[[str, Refused], None]
    remotes: Collection[str] | None = None
    counts: HookCounts = field(factory=HookCounts)


class Desk:
    """``hooks`` and ``progress`` are for the use cases, ``counts`` for figures.

    Raises BadHookTarget when it is made."""

    def __init__(self, settings: HookSettings, means: Means, outbox: IOutbox) -> None:
        self._settings = settings
        self._means = means
        self.counts = means.counts
        self._https: list[Http] = []
        self._pools: list[IPool] = []
        self._loaded: dict[str, Any] = {}
        kinds = settings.events - {EventKind.PROGRESS}
        common: dict[str, Any] = {"clock": means.clock, "wall": means.wall, "count": means.counts.add}
        self._couriers = []
        watchers = []
        for target in settings.told:
            delivery = settings.delivery
            if target.kind == "command":  # one that waits for its turn would use up its time
                delivery = evolve(delivery, concurrency=min(delivery.concurrency, settings.commands))
            more: dict[str, Any] = {"rng": means.rng, "delivery": delivery, "kinds": kinds, "target": target.shown}
            hook = self._make(target, IHook, delivery.concurrency)
            self._couriers.append(Courier(target.name, hook, outbox, **more, **common))
            if EventKind.PROGRESS in settings.events and IWatcher.providedBy(hook):
                watchers.append(Watcher(target.name, self._make(target, IWatcher, MOST), target.shown))
        self.hooks = Guards(
            [self._guard(target) for target in settings.asked],
            new_id=means.new_id,
            patience=settings.patience,
            remotes=means.remotes,
            **common,
        )
        self.progress = Progress(
            watchers,
            means.stop_upload,
            interval=settings.progress_interval,
            **common,
        )

    def start(self) -> None:
        """Deliver what waits, and take what comes."""
        for pool in self._pools:
            pool.start()
        for courier in self._couriers:
            courier.start()

    def wake(self) -> None:
        """A change with facts was committed; costs next to nothing."""
        for courier in self._couriers:
            courier.wake()

    def replayed(self) -> None:
        """Dead letters wait again."""
        for courier in self._couriers:
            courier.wake(replayed=True)

    async def stop(self, grace: float = 5.0) -> None:
        """Uploads are at rest by now: whoever asks afterwards is refused."""
        await DeferredList([Deferred.fromCoroutine(courier.stop(grace)) for courier in self._couriers])
        await self.progress.stop()
        await DeferredList([pool.stop() for pool in self._pools])
        await DeferredList([http.close() for http in self._https])

    def _guard(self, target: HookTarget) -> Guard:
        places = {"command": self._settings.commands, "python": None}.get(target.kind, AT_ONCE)
        hook = self._make(target, IGuard, AT_ONCE)
        return Guard(target.name, hook, self._settings.questions, target.shown, places)

    def _make(self, target: HookTarget, role: Any, connections: int) -> Any:
        """The hook, with as many connections, if it is behind a URL."""
        try:
            hook = self._hook(target, connections)
        except ValueError as problem:
            raise BadHookTarget(f"hook {target.name}: {problem}") from problem
        if not role.providedBy(hook):
            raise BadHookTarget(f"hook {target.name}: {target.shown} does not provide {role.__name__}")
        return hook

    def _hook(self, target: HookTarget, connections: int) -> Any:
        settings, means = self._settings, self._means
        if target.kind == "python":
            if target.address not in self._loaded:
                self._loaded[target.address] = entry_hook.load(target.address)
            return self._loaded[target.address]
        if target.kind == "command":
            program = find_program(target.arguments[0], means.environment.get("PATH", os.defpath))
            self._pools.append(means.pool(settings.commands))
            return CommandHook(
                Command((program, *target.arguments[1:]), settings.command_timeout),
                self._pools[-1],
                source=means.source,
                environment=means.environment,
                monotonic=means.monotonic,
                target=target.shown,
            )
        posting = Posting(timeout=settings.timeout, forward=settings.forward)
        # no connection in most of the time is told apart from no answer in all of it
        limits = HttpLimits(
            connect_timeout=min(HttpLimits().connect_timeout, 0.8 * settings.timeout), connections=connections
        )
        http = Http(means.reactor, limits, clock=means.clock, policy=settings.policy)
        self._https.append(http)
        poster = Poster(target.address, http, clock=means.clock, wall=means.wall, rng=means.rng, posting=posting)
        if target.kind == "tusd":
            return TusdHook(poster, TusdFormat(means.path_of, settings.tusd_finished), target.shown)
        return HttpHook(poster, Signer(settings.secrets), source=means.source, wall=means.wall)
