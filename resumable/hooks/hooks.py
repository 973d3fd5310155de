"""All hooks of one daemon: those that get events and progress, and those that are asked. Python hooks are loaded here.

Invariants: each hook has connections and threads of its own for events, questions and progress, so that a call that
hangs holds up neither the others nor another hook; a Python hook with several roles is one object; `Hooks.stop` closes
all that was opened. An error in the settings is found before anything starts. A hook that is Python is an entry point
in the group `GROUP`, or ``module:attribute``: `load_hook` returns an object that provides at least one of the hooks'
interfaces. It runs in the reactor's thread, and must not block it; its answers and failures are checked like any other
hook's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from random import Random
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IReactorTime

from resumable.aio.threads import IPool
from resumable.hooks.ask import Guard, Guards
from resumable.hooks.calls import HookCounts
from resumable.hooks.claimed import IDeliverers, LocalDeliverers, SharedDeliverers, SharedHooks
from resumable.hooks.command import Command, CommandHook, find_program
from resumable.hooks.deliver import Deliverer
from resumable.hooks.http import HttpHook, Poster, Posting
from resumable.hooks.interfaces import EventKind, IGuard, IHook, IWatcher
from resumable.hooks.messages import WebhookSigner, shown
from resumable.hooks.progress import MOST, ProgressEvents, Watcher
from resumable.hooks.settings import BadHookTarget, HookSettings, HookTarget
from resumable.hooks.tusd import TusdFormat, TusdHook
from resumable.httpclient.client import Http, HttpLimits
from resumable.model.outbox import IOutbox
from resumable.protocol.errors import Refused

AT_ONCE = 32
"""Questions under way to one URL at once."""


@frozen
class HookDependencies:
    """Parts of the daemon that hooks use. ``pool`` makes one for so many commands at once; `Hooks` starts and stops it.
    ``source``: the source of events, a URI reference. ``path_of``: where an upload's data is. ``remotes``: their names;
    None: any. ``stop_upload``: ends a running upload with that answer. ``shared``: where several workers share the
    outbox; None: this is the only one."""

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
    shared: SharedHooks | None = None


class Hooks:
    """``guards`` and ``progress`` are for the use cases, ``counts`` for metrics.

    Raises BadHookTarget when it is made."""

    def __init__(self, settings: HookSettings, needs: HookDependencies, outbox: IOutbox) -> None:
        self._settings = settings
        self._needs = needs
        self.counts = needs.counts
        self._https: list[Http] = []
        self._pools: list[IPool] = []
        self._loaded: dict[str, Any] = {}
        self._common: dict[str, Any] = {"clock": needs.clock, "wall": needs.wall, "count": needs.counts.add}
        deliverers: list[Deliverer] = []
        watchers = []
        for target in settings.hooks:
            deliverer, hook = self._deliverer(target, outbox)
            deliverers.append(deliverer)
            if EventKind.PROGRESS in settings.events and IWatcher.providedBy(hook):
                watchers.append(Watcher(target.name, self._make(target, IWatcher, MOST), target.shown))
        self._deliverers: IDeliverers = LocalDeliverers(deliverers)
        if needs.shared is not None:
            self._deliverers = SharedDeliverers(deliverers, needs.shared, needs.clock)
        self.guards = Guards(
            [self._guard(target) for target in settings.guards],
            new_id=needs.new_id,
            patience=settings.patience,
            remotes=needs.remotes,
            **self._common,
        )
        self.progress = ProgressEvents(watchers, needs.stop_upload, interval=settings.progress_interval, **self._common)

    def start(self) -> None:
        """Deliver the events that wait, and take those that come."""
        for pool in self._pools:
            pool.start()
        self._deliverers.start()

    def wake(self) -> None:
        """A change with facts was committed; costs next to nothing."""
        self._deliverers.wake()

    def replayed(self) -> None:
        """Dead events wait again."""
        self._deliverers.wake(replayed=True)

    def late(self) -> None:
        """An event may go now that had to wait for something else than its turn."""
        self._deliverers.late()

    async def stop(self, grace: float = 5.0) -> None:
        """To be called when uploads are at rest: questions that come afterwards are refused. ``grace``: seconds."""
        await self._deliverers.stop(grace)
        await self.progress.stop()
        await DeferredList([pool.stop() for pool in self._pools])
        await DeferredList([http.close() for http in self._https])

    def _deliverer(self, target: HookTarget, outbox: IOutbox) -> tuple[Deliverer, Any]:
        policy, kinds = self._settings.retry_policy, self._settings.events - {EventKind.PROGRESS}
        if target.kind == "command":  # one that waits for its turn would use up its time
            policy = evolve(policy, concurrency=min(policy.concurrency, self._settings.commands))
        hook = self._make(target, IHook, policy.concurrency)
        more: dict[str, Any] = {"rng": self._needs.rng, "policy": policy, "kinds": kinds, "target": target.shown}
        return Deliverer(target.name, hook, outbox, **more, **self._common), hook

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
        settings, needs = self._settings, self._needs
        if target.kind == "python":
            if target.address not in self._loaded:
                self._loaded[target.address] = load_hook(target.address)
            return self._loaded[target.address]
        if target.kind == "command":
            program = find_program(target.arguments[0], needs.environment.get("PATH", os.defpath))
            self._pools.append(needs.pool(settings.commands))
            return CommandHook(
                Command((program, *target.arguments[1:]), settings.command_timeout),
                self._pools[-1],
                source=needs.source,
                environment=needs.environment,
                monotonic=needs.monotonic,
                target=target.shown,
            )
        posting = Posting(timeout=settings.timeout, forward=settings.forward)
        # no connection in most of the time is told apart from no answer in all of it
        limits = HttpLimits(
            connect_timeout=min(HttpLimits().connect_timeout, 0.8 * settings.timeout),
            connections=connections,
            until_closed=True,  # as those of Python's http.server do, which is many a first receiver
        )
        http = Http(needs.reactor, limits, clock=needs.clock, policy=settings.policy)
        self._https.append(http)
        poster = Poster(target.address, http, clock=needs.clock, wall=needs.wall, rng=needs.rng, posting=posting)
        if target.kind == "tusd":
            return TusdHook(poster, TusdFormat(needs.path_of, settings.tusd_finished), target.shown)
        return HttpHook(poster, WebhookSigner(settings.secrets), source=needs.source, wall=needs.wall)


GROUP = "resumable.hooks"
ROLES = (IHook, IGuard, IWatcher)


class BadHook(ValueError):
    """There is no such hook; the message is one line for the operator."""


def load_hook(name: str) -> Any:
    """The hook of that name: the object that is found, or its result when it is called without arguments.

    Raises BadHook."""
    try:
        found = _find(name)
        if not provides(found) and callable(found):
            found = found()
    except BadHook:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code runs here
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadHook(f"the hook {shown(name)} can't be loaded: {said}") from error
    if not provides(found):
        raise BadHook(f"the hook {shown(name)} provides none of IHook, IGuard, IWatcher")
    return found


def provides(found: object) -> bool:
    """Whether it is a hook of some kind."""
    return any(role.providedBy(found) for role in ROLES)


def _find(name: str) -> Any:
    if ":" in name:
        return EntryPoint("hook", name, GROUP).load()
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        known = ", ".join(sorted(point.name for point in entry_points(group=GROUP))) or "none"
        raise BadHook(f"no package here has a hook {shown(name)}; known: {known}")
    return points[0].load()
