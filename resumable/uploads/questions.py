"""Hooks are asked before something is done.

Reason to change: how a question ends. Invariant: what is asked about happens only after a yes; no question outlives the
server, and one that was broken off was a no.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from resumable.hooks import Granted, IHooks, NoHooks, QuestionKind, RequestView, view
from resumable.interfaces import Upload
from resumable.protocol.errors import Stopping


class Questions:
    """What is asked, of all hooks."""

    def __init__(self, hooks: IHooks | None = None) -> None:
        self._hooks = hooks or NoHooks()
        self._under_way: set[Deferred[Granted]] = set()
        self._stopping = False

    def asks(self, kind: QuestionKind) -> bool:
        """Whether anybody wants to be asked."""
        return bool(self._hooks.asks(kind))

    async def ask(self, kind: QuestionKind, upload: Upload, request: RequestView | None = None) -> Granted:
        """A yes. Raises Refused with the hook's answer, Unavailable when a hook has failed, Stopping."""
        if not self._hooks.asks(kind):
            return Granted()
        if self._stopping:
            raise Stopping()
        asking = self._hooks.before(kind, view(upload), request)
        self._under_way.add(asking)
        try:
            return await asking
        except CancelledError:
            raise Stopping() from None
        finally:
            self._under_way.discard(asking)

    def stop(self) -> None:
        """Break off what is under way, ask nothing more."""
        self._stopping = True
        for asking in tuple(self._under_way):
            asking.cancel()
