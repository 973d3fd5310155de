"""Hooks that are functions: ``@on("finished")`` gets events, ``@before("create")`` is asked. docs/hooks.md, Python.

Invariants: a function that may block never runs in the reactor's thread. An event has arrived when each function for it
has returned; after a failure all of them get it again, with the same id. A mistake in a decorator is found when the
module is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

from attrs import field, frozen
from zope.interface import alsoProvides

from resumable.aio.deferreds import deferred
from resumable.aio.threads import IPool
from resumable.hooks.interfaces import (
    Allow,
    Event,
    EventKind,
    HookFailed,
    IGuard,
    IHook,
    IWatcher,
    Question,
    Refuse,
    Verdict,
)
from resumable.model.hooks import QuestionKind

F = TypeVar("F", bound=Callable[..., object])
Kind = EventKind | QuestionKind

EVENTS: Final[Mapping[str, Kind]] = {kind.value: kind for kind in EventKind}
QUESTIONS: Final[Mapping[str, Kind]] = {kind.value.removeprefix("before-"): kind for kind in QuestionKind}
_MARK: Final = "resumable_hooks"
"""The attribute of a decorated function that says what it is for."""


@frozen
class HookFunction:
    """``function`` is for ``kinds``. ``in_thread``: it runs in a thread, else in the reactor's."""

    function: Callable[..., object]
    kinds: tuple[Kind, ...]
    in_thread: bool

    @property
    def name(self) -> str:
        """For messages."""
        return getattr(self.function, "__qualname__", None) or repr(self.function)


@frozen
class HookFunctions:
    """The functions of one hook, in the order in which they are called; a question has at most one."""

    events: Mapping[EventKind, Sequence[HookFunction]] = field(factory=lambda: MappingProxyType({}))
    questions: Mapping[QuestionKind, HookFunction] = field(factory=lambda: MappingProxyType({}))

    @property
    def roles(self) -> Iterator[Any]:
        """The interfaces of hooks that they make up."""
        if self.events:
            yield IHook
        if EventKind.PROGRESS in self.events:
            yield IWatcher
        if self.questions:
            yield IGuard


def on(*events: str, thread: bool | None = None) -> Callable[[F], F]:
    """The decorated function gets these events: ``@on("finished")``, ``@on("created", "terminated")``.

    It is called with an `Event`, in a thread, or in the reactor if it is an ``async def`` or an ``inlineCallbacks``.
    ``thread``: False for another function that returns a Deferred. Raises ValueError for an event that there isn't.
    """
    return keeping(_mark, EVENTS, events, thread)


def before(*questions: str, thread: bool | None = None) -> Callable[[F], F]:
    """The decorated function is asked before this is done: ``@before("create")``, or append, finish, terminate.

    It is called with a `Question` as `on` says, and answers `Allow` or None, or `Refuse`. Raises ValueError.
    """
    return keeping(_mark, QUESTIONS, questions, thread)


def keeping(
    keep: Callable[[HookFunction], object], known: Mapping[str, Kind], names: Sequence[str], thread: bool | None
) -> Callable[[F], F]:
    """A decorator that hands what it decorates to ``keep``, for those ``names`` of the ``known`` kinds. Raises
    ValueError."""
    kinds = _kinds(names, known)

    def decorate(function: F) -> F:
        keep(HookFunction(function, kinds, _blocks(function) if thread is None else thread))
        return function

    return decorate


def _mark(function: HookFunction) -> None:
    vars(function.function).setdefault(_MARK, []).append(function)


def _kinds(names: Sequence[str], known: Mapping[str, Kind]) -> tuple[Kind, ...]:
    """Raises ValueError."""
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"a name is missing: write one or more of {', '.join(known)}, in quotes")
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
    if not names:
        raise ValueError(f"a name is missing: write one or more of {', '.join(known)}")
    return tuple(known[name] for name in names)


def _blocks(function: Callable[..., object]) -> bool:
    """Whether it may: everything may but what is a coroutine, or a generator made one by ``inlineCallbacks``."""
    inner = inspect.unwrap(function)
    return not (inspect.iscoroutinefunction(function) or (inner is not function and inspect.isgeneratorfunction(inner)))


def marked(namespace: Mapping[str, object]) -> HookFunctions | None:
    """What is decorated among the values of a module; None if nothing is. Raises ValueError."""
    found: list[HookFunction] = []
    for value in namespace.values():
        marks = vars(value).get(_MARK, ()) if inspect.isroutine(value) and hasattr(value, "__dict__") else ()
        found += (each for each in marks if each not in found)
    return gathered(found) if found else None


def gathered(functions: Sequence[HookFunction]) -> HookFunctions:
    """Raises ValueError for a question that two would answer."""
    events: dict[EventKind, list[HookFunction]] = {}
    questions: dict[QuestionKind, HookFunction] = {}
    for each in functions:
        for kind in each.kinds:
            if isinstance(kind, EventKind):
                events.setdefault(kind, []).append(each)
                continue
            if kind in questions:
                names = f"{questions[kind].name} and {each.name}"
                raise ValueError(f"{names} both answer {kind.value}: let one do it")
            questions[kind] = each
    return HookFunctions(events, questions)


class FunctionHook:
    """Provides the roles that the functions make up. ``pool``: the threads for those that may block."""

    def __init__(self, functions: HookFunctions, pool: IPool) -> None:
        self._functions = functions
        self._pool = pool
        alsoProvides(self, *functions.roles)

    @property
    def questions(self) -> frozenset[QuestionKind]:
        """Those that a function answers."""
        return frozenset(self._functions.questions)

    @deferred
    async def deliver(self, event: Event) -> None:
        """See `IHook.deliver`."""
        for each in self._functions.events.get(event.kind, ()):
            await self._call(each, event)

    @deferred
    async def ask(self, question: Question) -> Verdict:
        """See `IGuard.ask`."""
        each = self._functions.questions.get(question.kind)
        said = None if each is None else await self._call(each, question)
        return Allow() if said is None else said  # type: ignore[return-value]  # whoever asks checks it

    @deferred
    async def watch(self, event: Event) -> Refuse | None:
        """See `IWatcher.watch`. The first that ends the upload has the last word."""
        for each in self._functions.events.get(event.kind, ()):
            said = await self._call(each, event)
            if said is not None:
                return said  # type: ignore[return-value]  # whoever asks checks it
        return None

    async def _call(self, each: HookFunction, message: Event | Question) -> object:
        if not each.in_thread:
            said = each.function(message)
            return await said if isinstance(said, Awaitable) else said
        said = await self._pool.run(each.function, message)
        if isinstance(said, Awaitable):
            raise HookFailed(f"{each.name} ran in a thread and answered something to wait for: add thread=False")
        return said
