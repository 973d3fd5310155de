"""Interfaces of hooks: the events and questions that they get, and the answers that they may give.

Nothing here does any work. Invariants: an `Event` that is delivered again has the same id; no answer of a hook counts
before `resumable.hooks.ask` has checked it. Sizes are bytes, times are seconds since the epoch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.model.hooks import Answer, Changes, QuestionKind, RequestView, UploadView


class EventKind(enum.Enum):
    """Something that has happened. STORED: one remote has it; when the event names no remote, every required one has.

    PROGRESS is best effort and never repeated; all others come from the outbox, at least once."""

    CREATED = "created"
    PROGRESS = "progress"
    FINISHED = "finished"
    STORED = "stored"
    FAILED = "failed"
    PLACED = "placed"
    TERMINATED = "terminated"
    EXPIRED = "expired"


@frozen
class Event:
    """Something that happened. ``id`` is the idempotency key: URL-safe, the same each time the event is delivered.

    ``sequence`` grows from each event of an upload to its next one at the same hook, with gaps, and is the same each
    time; None: PROGRESS has none. ``details``, in JSON's types: ``remote``, ``key``, ``location``, ``etag``,
    ``reason``, ... as the kind has them.
    """

    id: str
    kind: EventKind
    at: float
    upload: UploadView
    request: RequestView | None = None
    details: Mapping[str, object] = field(factory=dict)
    sequence: int | None = None

    @property
    def remote(self) -> str | None:
        """The name of the remote that the event is about; None: it is about none."""
        found = self.details.get("remote")
        return found if isinstance(found, str) else None


@frozen
class Question:
    """Something that is about to happen. ``id`` is new for each question, and the same each time it is asked."""

    id: str
    kind: QuestionKind
    at: float
    upload: UploadView
    request: RequestView | None = None


@frozen
class Allow:
    """Go on. ``changes`` may be made before-create only. ``answer``: its status is a 2xx."""

    changes: Changes = field(factory=Changes)
    answer: Answer = field(factory=Answer)


@frozen
class Refuse:
    """Don't; ``answer`` goes to the client, its status is 400 to 599 (None: 403)."""

    answer: Answer = field(factory=Answer)


Verdict = Allow | Refuse


class HookFailed(Exception):
    """A hook did not do what it was asked; the message is one line, without secrets.

    ``retry_after``: seconds that the hook asks us to wait. ``may_retry``: asking again at once makes sense.
    ``unreached``: the hook has heard nothing (nobody listens, no secure connection, a program that can't be started),
    so all messages fare the same, whatever is in them. An error that it answers, or no answer in time, isn't that.
    ``unanswered``: no answer came in time.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_after: float | None = None,
        may_retry: bool = False,
        unreached: bool = False,
        unanswered: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.may_retry = may_retry
        self.unreached = unreached
        self.unanswered = unanswered


class BadVerdict(HookFailed):
    """A hook answered, but its answer is no verdict."""


class IHook(Interface):
    """A hook that gets events."""

    def deliver(event: Event) -> Deferred[None]:
        """Fires when the event has arrived for good. After any failure it comes again later, with the same id.

        It may also come again after it arrived: a crash can come between. After a cancellation it comes again, too.
        Events of one upload come one after another, in order; those of several at the same time.
        """


class IGuard(Interface):
    """A hook that is asked before something is done. A failure, or an answer that is no verdict, means no."""

    def ask(question: Question) -> Deferred[Verdict]:
        """Whether it may be done. Is cancelled when the answer would come too late."""


class IWatcher(Interface):
    """A hook that gets the progress of running uploads, and may stop one."""

    def watch(event: Event) -> Deferred[Refuse | None]:
        """Takes a PROGRESS event. Refuse: end the upload, and answer its running request so. None, a failure: go on."""
