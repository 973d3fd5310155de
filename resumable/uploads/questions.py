"""Questions to hooks before something is done, and the context of one request for them.

Invariant: the thing asked about happens only after a yes; no question outlives the server or its upload, and a question
that was broken off was a no.
"""

from __future__ import annotations

from attrs import define, evolve
from twisted.internet.defer import CancelledError, Deferred

from resumable.model.hooks import Answer, Changes, Granted, IHooks, QuestionKind, RequestView, view
from resumable.model.upload import Upload
from resumable.protocol.errors import Gone, Stopping


class Questions:
    """Asks all hooks, and breaks questions off. ``hooks`` None: there are none."""

    def __init__(self, hooks: IHooks | None = None) -> None:
        self._hooks = hooks
        self._under_way: dict[Deferred[Granted], str] = {}
        self._stopping = False

    def asks(self, kind: QuestionKind) -> bool:
        """Whether a hook wants to be asked."""
        return self._hooks is not None and bool(self._hooks.asks(kind))

    async def ask(self, kind: QuestionKind, upload: Upload, request: RequestView | None = None) -> Granted:
        """A yes. Raises Refused with the hook's answer, Unavailable when a hook has failed, Stopping, Gone."""
        if self._hooks is None or not self._hooks.asks(kind):
            return Granted()
        if self._stopping:
            raise Stopping()
        asking = self._hooks.before(kind, view(upload), request)
        self._under_way[asking] = upload.id
        try:
            return await asking
        except CancelledError:
            raise (Stopping() if asking in self._under_way else Gone("The upload was removed.")) from None
        finally:
            self._under_way.pop(asking, None)

    def over(self, upload_id: str) -> None:
        """The upload is gone: end the questions about it."""
        for asking in [asking for asking, about in self._under_way.items() if about == upload_id]:
            del self._under_way[asking]
            asking.cancel()

    def stop(self) -> None:
        """Break off all questions under way, ask nothing more."""
        self._stopping = True
        for asking in tuple(self._under_way):
            asking.cancel()


_NOTHING = Answer()


@define
class HookContext:
    """One request, as far as hooks have to do with it.

    ``request``: the request as hooks see it; None where there are no hooks. ``changes``: their changes to the upload
    that it makes. ``answer``: their additions to the client's success.
    """

    request: RequestView | None = None
    changes: Changes | None = None
    answer: Answer = _NOTHING

    def add(self, granted: Granted) -> None:
        """Hooks have agreed once more; where they say different things to the client, the later word counts."""
        theirs = {name.lower() for name in granted.answer.headers}
        kept = {name: value for name, value in self.answer.headers.items() if name.lower() not in theirs}
        self.answer = evolve(
            granted.answer,
            status=self.answer.status if granted.answer.status is None else granted.answer.status,
            headers={**kept, **granted.answer.headers},
            body=granted.answer.body or self.answer.body,
        )
