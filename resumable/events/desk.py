"""Everything about events and hooks, put together.

One reason to change: another kind of hook. Invariant: a target that is told and asked alike is one hook; whatever was
opened is closed by `Desk.stop`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from random import Random
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from resumable.events import entry_hook
from resumable.events.command_hook import Command, CommandHook
from resumable.events.counts import HookCounts
from resumable.events.delivery import Courier
from resumable.events.guards import Guard, Guards
from resumable.events.http_hook import HttpHook
from resumable.events.interfaces import EventKind, IGuard, IHook, IWatcher
from resumable.events.post import Poster, Posting
from resumable.events.progress import Progress, Watcher
from resumable.events.settings import BadHookTarget, HookSettings, HookTarget
from resumable.events.signing import Signer
from resumable.events.tusd import TusdFormat, TusdHook
from resumable.letters import IOutbox
from resumable.protocol.errors import Refused
from resumable.remotes.http.transport import Http
from resumable.threads import IPool


@frozen
class Means:
    """What hooks need of the rest. ``commands``: a pool for commands, started and stopped by the desk. ``source``: what
    events say that they come from. ``path_of``: where an upload's data is. ``remotes``: their names; None: any.
    ``stop_upload``: ends a running upload with that answer."""

    reactor: Any
    clock: IReactorTime
    wall: Callable[[], float]
    monotonic: Callable[[], float]
    rng: Random
    new_id: Callable[[], str]
    commands: IPool
    environment: Mapping[str, str] = field(repr=False)
    source: str
    path_of: Callable[[str], str]
    stop_upload: Callable[[str, Refused], None]
    remotes: Collection[str] | None = None
    counts: HookCounts = field(factory=HookCounts)


class Desk:
    """``hooks`` and ``progress`` are for the use cases, ``counts`` for figures.

    Raises BadHookTarget, BadHook, ValueError when it is made."""

    def __init__(self, settings: HookSettings, means: Means, outbox: IOutbox) -> None:
        self._settings = settings
        self._means = means
        self.counts = means.counts
        self._http = Http(means.reactor, clock=means.clock, policy=settings.policy)
        self._made: dict[HookTarget, Any] = {}
        told = [(target.name, self._make(target, IHook)) for target in settings.told]
        asked = [(target.name, self._make(target, IGuard)) for target in settings.asked]
        watching = [(name, hook) for name, hook in told if IWatcher.providedBy(hook)]
        if EventKind.PROGRESS not in settings.events:
            watching = []
        kinds = settings.events - {EventKind.PROGRESS}
        common: dict[str, Any] = {"clock": means.clock, "wall": means.wall, "count": means.counts.add}
        self._couriers = {
            name: Courier(name, hook, outbox, rng=means.rng, delivery=settings.delivery, kinds=kinds, **common)
            for name, hook in told
        }
        self.hooks = Guards(
            [Guard(name, hook, settings.questions) for name, hook in asked],
            new_id=means.new_id,
            patience=settings.patience,
            remotes=means.remotes,
            **common,
        )
        self.progress = Progress(
            [Watcher(name, hook) for name, hook in watching],
            means.stop_upload,
            interval=settings.progress_interval,
            **common,
        )

    def start(self) -> None:
        """Deliver what waits, and take what comes."""
        self._means.commands.start()
        for courier in self._couriers.values():
            courier.start()

    def wake(self) -> None:
        """A change with facts was committed; costs next to nothing."""
        for courier in self._couriers.values():
            courier.wake()

    async def stop(self, grace: float = 5.0) -> None:
        """Uploads are at rest by now: whoever asks afterwards is refused."""
        await DeferredList([Deferred.fromCoroutine(courier.stop(grace)) for courier in self._couriers.values()])
        await self.progress.stop()
        await self._means.commands.stop()
        await self._http.close()

    def _make(self, target: HookTarget, role: Any) -> Any:
        nameless = evolve(target, name="")
        if nameless not in self._made:
            self._made[nameless] = self._hook(target)
        if not role.providedBy(self._made[nameless]):
            raise BadHookTarget(f"hook {target.name}: it does not provide {role.__name__}")
        return self._made[nameless]

    def _hook(self, target: HookTarget) -> Any:
        settings, means = self._settings, self._means
        if target.kind == "python":
            return entry_hook.load(target.address)
        if target.kind == "command":
            return CommandHook(
                Command(target.arguments, settings.command_timeout),
                means.commands,
                source=means.source,
                environment=means.environment,
                monotonic=means.monotonic,
            )
        posting = Posting(timeout=settings.timeout, forward=settings.forward)
        poster = Poster(target.address, self._http, clock=means.clock, wall=means.wall, rng=means.rng, posting=posting)
        if target.kind == "tusd":
            return TusdHook(poster, TusdFormat(means.path_of, settings.tusd_finished))
        return HttpHook(poster, Signer(settings.secrets), source=means.source, wall=means.wall)
