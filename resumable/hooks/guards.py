"""The hooks that are asked before something is done, one after another.

One reason to change: how several hooks come to one decision.

Invariant: what is guarded is done only if every hook that wants to be asked has said yes, in time and in words that
passed the check. The first no wins; each hook sees the upload as those before it have changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from attrs import asdict, evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.hooks.bounded import in_time
from resumable.hooks.counts import Count, count_nothing
from resumable.hooks.fair import Places
from resumable.hooks.interfaces import Allow, HookFailed, IGuard, Question, Refuse
from resumable.hooks.verdicts import REFUSED, check, encoded_metadata
from resumable.model.hooks import Answer, Changes, Granted, IHooks, QuestionKind, RequestView, UploadView
from resumable.networks import client_of
from resumable.protocol.errors import Refused, Unavailable

log = Logger()

SHORTEST = 256
REASONS = 20
"""Different reasons of one hook that are told, at most, until it works again."""

TEXT = "text/plain; charset=utf-8"


@frozen
class Guard:
    """A hook, its name for logs and figures, what it wants to be asked, and what it is, for logs.

    ``places``: how many questions may be under way at once; None: any number."""

    name: str
    hook: IGuard
    kinds: frozenset[QuestionKind] = frozenset(QuestionKind)
    target: str = ""
    places: int | None = None


@frozen
class Patience:
    """``within``: seconds that one hook gets, its repetitions included. ``retry_after``: what clients are told when
    one has failed."""

    within: float = 10.0
    retry_after: int = 5


@implementer(IHooks)
class Guards:
    """All of them, in order. ``new_id`` gives ids for questions. ``remotes``: the names that a hook may choose from;
    None for any."""

    def __init__(
        self,
        guards: Sequence[Guard],
        *,
        clock: IReactorTime,
        wall: Callable[[], float],
        new_id: Callable[[], str],
        patience: Patience | None = None,
        remotes: Collection[str] | None = None,
        count: Count = count_nothing,
    ) -> None:
        self._guards = tuple(guards)
        self._complaints = Complaints()
        self._places = {guard.name: Places(guard.places) for guard in guards if guard.places is not None}
        self._clock = clock
        self._wall = wall
        self._new_id = new_id
        self._patience = patience or Patience()
        self._remotes = remotes
        self._count = count
        self._asked = frozenset[QuestionKind]().union(*(guard.kinds for guard in guards))

    def asks(self, kind: QuestionKind) -> bool:
        """See IHooks."""
        return kind in self._asked

    def before(self, kind: QuestionKind, upload: UploadView, request: RequestView | None = None) -> Deferred[Granted]:
        """See IHooks."""
        return Deferred.fromCoroutine(self._before(kind, upload, request))

    async def _before(self, kind: QuestionKind, upload: UploadView, request: RequestView | None) -> Granted:
        changes, answer = Changes(), Answer()
        for guard in self._guards:
            if kind in guard.kinds:
                allowed = await self._ask(guard, Question(self._new_id(), kind, self._wall(), upload, request))
                upload = changed(upload, allowed.changes)
                changes = merged_changes(changes, allowed.changes)
                answer = merged_answers(answer, allowed.answer)
        return Granted(changes, answer, None if changes.metadata is None else upload.raw_metadata)

    async def _in_turn(self, guard: Guard, question: Question) -> object:
        """What the hook says, once there is a place for the question."""
        places = self._places.get(guard.name)
        if places is None:
            return await maybeDeferred(guard.hook.ask, question)
        whose = client_of("" if question.request is None else question.request.address)
        await places.take(whose)
        try:
            return await maybeDeferred(guard.hook.ask, question)
        finally:
            places.give_back(whose)

    async def _ask(self, guard: Guard, question: Question) -> Allow:
        kind, began = question.kind, self._clock.seconds()
        try:
            said = await in_time(self._clock, self._patience.within, partial(self._in_turn, guard), question)
            verdict = check(said, kind, self._remotes)
        except CancelledError:
            raise
        except Exception as error:
            self._count(guard.name, kind.value, "failed", self._clock.seconds() - began)
            self._complaints.failed(guard.name, guard.target, kind.value, question.upload.id, error)
            raise Unavailable(
                "The server can't decide at the moment whether to allow this.", self._patience.retry_after
            ) from error
        if isinstance(verdict, Refuse):
            self._complaints.worked(guard.name, guard.target)
            self._count(guard.name, kind.value, "refused", self._clock.seconds() - began)
            raise refused(verdict)
        self._complaints.worked(guard.name, guard.target)
        self._count(guard.name, kind.value, "ok", self._clock.seconds() - began)
        return verdict


def refused(verdict: Refuse) -> Refused:
    """What the client is told of a checked refusal.

    A body without a type is text. Text gets blanks at its end: there are clients that can't take an error's body of
    less than `SHORTEST` bytes, unless it is empty.
    """
    answer = verdict.answer
    status = REFUSED if answer.status is None else answer.status
    if not answer.body:
        return Refused(status, answer.headers)
    media_type = {name.lower(): value for name, value in answer.headers.items()}.get("content-type")
    headers = dict(answer.headers) if media_type else {**answer.headers, "Content-Type": TEXT}
    is_text = (media_type or TEXT).startswith(("text/", "application/json", "application/problem+json"))
    return Refused(status, headers, answer.body.ljust(SHORTEST) if is_text else answer.body)


def changed(upload: UploadView, changes: Changes) -> UploadView:
    """The upload as it will be."""
    if changes.id is not None:
        upload = evolve(upload, id=changes.id)
    if changes.metadata is not None:
        upload = evolve(upload, metadata=changes.metadata, raw_metadata=encoded_metadata(changes.metadata))
    return upload


def merged_changes(first: Changes, second: Changes) -> Changes:
    """The later one wins; but the smaller of two limits."""
    own: dict[str, Any] = asdict(second, recurse=False, filter=lambda _, value: value is not None)
    limits = [each.max_size for each in (first, second) if each.max_size is not None]
    return evolve(first, **{**own, "max_size": min(limits, default=None)})


def merged_answers(first: Answer, second: Answer) -> Answer:
    """The later one wins, header by header."""
    theirs = {name.lower() for name in second.headers}
    headers = {name: value for name, value in first.headers.items() if name.lower() not in theirs}
    status = first.status if second.status is None else second.status
    return Answer(status, {**headers, **second.headers}, second.body or first.body)


def log_failure(hook: str, target: str, kind: str, upload_id: str, error: BaseException) -> None:
    """Once, with its context; a traceback only for what a hook should not raise."""
    context: dict[str, Any] = {"hook": hook, "target": target, "kind": kind, "upload": upload_id}
    if isinstance(error, HookFailed):
        log.error("hook {hook} ({target}) failed at {kind} of {upload}: {reason}", **context, reason=error.reason)
    else:
        log.failure("hook {hook} ({target}) failed unexpectedly at {kind} of {upload}", Failure(error), **context)


class Complaints:
    """What is logged of hooks that fail: each reason once until the hook has worked again.

    Clients that try again and again don't fill the log."""

    def __init__(self) -> None:
        self._told: dict[str, set[str]] = {}

    def failed(self, hook: str, target: str, kind: str, upload_id: str, error: Exception) -> None:
        """It did."""
        reason = error.reason if isinstance(error, HookFailed) else type(error).__name__
        told = self._told.setdefault(hook, set())
        if reason not in told and len(told) < REASONS:
            told.add(reason)
            log_failure(hook, target, kind, upload_id, error)

    def worked(self, hook: str, target: str) -> None:
        """It did what it was asked."""
        if self._told.pop(hook, None) is not None:
            log.info("hook {hook} ({target}) works again", hook=hook, target=target)
