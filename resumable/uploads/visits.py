"""One client's request, as far as hooks have to do with it.

Reason to change: what a request brings for hooks, or takes back from them. Nothing here does any work.
"""

from __future__ import annotations

from attrs import define, evolve

from resumable.model.hooks import Answer, Changes, Granted, RequestView

_NOTHING = Answer()


@define
class Visit:
    """``request``: what hooks are shown of it; None where there are none. ``changes``: what they want of the upload
    that it makes. ``answer``: what they add to the client's success."""

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
