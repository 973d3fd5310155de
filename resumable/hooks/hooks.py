"""All hooks of one daemon: those that get events and progress, and those that are asked. Python hooks are loaded here.

Invariants: each hook has connections and threads of its own for events, questions and progress, so that a call that
hangs holds up neither the others nor another hook; a Python hook with several roles is one object; `Hooks.stop` closes
all that was opened. An error in the settings is found before anything starts. A hook that is Python is an entry point
in the group `GROUP`, ``module:attribute``, or a ``module`` with decorated functions: `load_hook` returns these, or an
object that provides at least one of the hooks' interfaces, which runs in the reactor's thread and must not block it.
Answers and failures of all are checked like any other hook's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from random import Random
from types import ModuleType
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
from resumable.hooks.functions import FunctionHook, HookFunctions, marked
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
THREADS = 8
"""Of functions, at most; events, questions and progress each have their own."""
FUNCTION_TIMEOUT = 3600.0
"""Seconds that the functions of one event may take."""


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
            wanted = EventKind.PROGRESS in settings.events or isinstance(hook, FunctionHook)
            if wanted and IWatcher.providedBy(hook):
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
        if isinstance(hook, FunctionHook):  # a thread can't be ended: the next attempt would run beside the first
            policy = evolve(policy, concurrency=min(policy.concurrency, THREADS), timeout=FUNCTION_TIMEOUT)
        more: dict[str, Any] = {"rng": self._needs.rng, "policy": policy, "kinds": kinds, "target": target.shown}
        return Deliverer(target.name, hook, outbox, **more, **self._common), hook

    def _guard(self, target: HookTarget) -> Guard:
        places = {"command": self._settings.commands, "python": None}.get(target.kind, AT_ONCE)
        hook = self._make(target, IGuard, AT_ONCE)
        kinds = self._settings.questions
        if isinstance(hook, FunctionHook):
            kinds &= hook.questions
        return Guard(target.name, hook, kinds, target.shown, places)

    def _make(self, target: HookTarget, role: Any, connections: int) -> Any:
        """The hook, with as many connections, if it is behind a URL."""
        try:
            hook = self._hook(target, connections)
        except ValueError as problem:
            raise BadHookTarget(f"hook {target.name}: {problem}") from problem
        if not role.providedBy(hook):
            does_not = f"does not provide {role.__name__}"
            if isinstance(hook, FunctionHook):
                does_not = "has no function with @before" if role is IGuard else "has no function with @on"
            raise BadHookTarget(f"hook {target.name}: {target.shown} {does_not}")
        return hook

    def _hook(self, target: HookTarget, connections: int) -> Any:
        settings, needs = self._settings, self._needs
        if target.kind == "python":
            loaded = self._python(target)
            if not isinstance(loaded, HookFunctions):
                return loaded
            self._pools.append(needs.pool(min(connections, THREADS)))
            return FunctionHook(loaded, self._pools[-1])
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

    def _python(self, target: HookTarget) -> Any:
        """What `load_hook` answers, or the functions that the target brings along."""
        if target.functions is not None:
            return target.functions
        if target.address not in self._loaded:
            self._loaded[target.address] = load_hook(target.address)
        return self._loaded[target.address]


GROUP = "resumable.hooks"
ROLES = (IHook, IGuard, IWatcher)


class BadHook(ValueError):
    """There is no such hook; the message is one line for the operator."""


def load_hook(name: str) -> Any:
    """The hook of that name: the object that is found, or its result when it is called without arguments; of a module
    its `HookFunctions`.

    Modules are found in the current directory too, after all others. Raises BadHook."""
    try:
        found = _find(name)
        if isinstance(found, ModuleType):
            found = marked(vars(found))
        elif not provides(found) and callable(found):
            found = found()
    except BadHook:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code runs here
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadHook(f"the hook {shown(name)} can't be loaded: {said}") from error
    if found is None:
        raise BadHook(f"the module {shown(name)} has no function with @on or @before")
    if not provides(found):
        raise BadHook(f"the hook {shown(name)} provides none of IHook, IGuard, IWatcher")
    return found


def provides(found: object) -> bool:
    """Whether it is a hook of some kind."""
    return isinstance(found, HookFunctions) or any(role.providedBy(found) for role in ROLES)


def _find(name: str) -> Any:
    points = [] if ":" in name else list(entry_points(group=GROUP, name=name))
    if points:
        return points[0].load()
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(
            here
        )  # at the end, so that no file there hides a module of Python's; it may import others later
    if ":" in name:
        return EntryPoint("hook", name, GROUP).load()
    try:
        return EntryPoint("hook", name, GROUP).load()
    except ModuleNotFoundError as error:
        if error.name not in (name, name.partition(".")[0]):
            raise
    except AttributeError:  # it is not even a module's name
        pass
    known = ", ".join(sorted(point.name for point in entry_points(group=GROUP))) or "none"
    raise BadHook(f"no package here has a hook {shown(name)} (known: {known}), and there is no module of that name")
