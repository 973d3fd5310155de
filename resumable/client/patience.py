"""Retries: which answers are worth one, how long to wait, and when to give up.

Invariant: the time for retries counts from the first trouble since the server had more bytes, so that a slow upload
isn't given up, and a long pause that was asked for isn't counted. Pure but for what it is given. Spec: RFC 9110, 10.2.3
(Retry-After).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from resumable.client.effects import HttpReply, Lost, Pause, Steps
from resumable.client.events import Recovered, Retried, TransferEvent, Waiting
from resumable.client.exceptions import GaveUp, NotAuthorised, NothingThere, SizeRefused, TransferRefused

SHORTEST, LONGEST = 0.5, 60.0
"""Seconds: the wait before the second try, and the longest that doubling leads to. Jitter takes up to half of it."""
MOST_ASKED: Final = 3600.0
"""The longest Retry-After that is obeyed."""
MOST_SAID: Final = 400
"""Characters of a server's words that are repeated."""
_PASSING: Final = frozenset({408, 409, 423, 425, 429, 500, 502, 503, 504, 507})
"""Statuses that another try may not meet: 409 is another offset, which is asked for before it."""


class Failed(Lost):
    """An answer that is worth another try. ``after``: seconds that the server asks for."""

    def __init__(self, words: str, after: float | None = None) -> None:
        self.after = after
        super().__init__(words)


class ClientPatience:
    """The retries of one transfer."""

    def __init__(
        self,
        name: str,
        retry_for: float,
        may_send: Callable[[], float] | None,
        tell: Callable[[TransferEvent], None],
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._name, self._retry_for, self._may_send = name, retry_for, may_send
        self._tell, self._now, self._random = tell, now, random
        self._since: float | None = None
        self._attempts = 0
        self._troubled = False

    def moved(self) -> None:
        """The server has more bytes than before: all is well."""
        self._since = None
        self._attempts = 0

    def contact(self, offset: int) -> None:
        """The server has told the offset."""
        if self._troubled:
            self._troubled = False
            self._tell(Recovered(source=self._name, offset=offset))

    def after(self, trouble: Lost, begun: bool = True) -> Steps[None]:
        """Wait before the next try. ``begun``: whether there is something to go on with. Raises GaveUp."""
        if self._since is None:
            self._since = self._now()
        self._attempts += 1
        self._troubled = True
        longest = min(LONGEST, SHORTEST * 2.0 ** min(self._attempts - 1, 20))
        wait = longest * (0.5 + 0.5 * self._random())
        if isinstance(trouble, Failed) and trouble.after is not None:
            wait = max(wait, min(trouble.after, MOST_ASKED))
        left = self._since + self._retry_for - self._now()
        if wait > left:
            if left <= 0 or self._retry_for == 0:
                raise GaveUp(str(trouble), self._attempts, begun) from trouble
            wait = left  # one last try, when the time is over
        event = Retried(
            source=self._name, reason=str(trouble), attempt=self._attempts, wait=wait, gives_up_in=max(0.0, left)
        )
        self._tell(event)
        yield Pause(wait)

    def window(self) -> Steps[None]:
        """Wait until something may be sent. That time isn't counted."""
        if self._may_send is None:
            return
        begun = self._now()
        while (wait := self._may_send()) > 0:
            self._tell(Waiting(source=self._name, wait=wait, reason="nothing may be sent now"))
            yield Pause(wait)
        if self._since is not None:
            self._since += self._now() - begun


def judged(reply: HttpReply, url: str) -> HttpReply:
    """The reply, if it is a success. Raises Failed if another try may do better, else TransferRefused."""
    if 200 <= reply.status < 300:
        return reply
    title, detail = problem(reply)
    if reply.status in _PASSING and not (reply.status == 507 and reply.get("retry-after") is None):
        raise Failed(f"{url} answers {reply.status}: {detail or title}", retry_after(reply))
    kind = {401: NotAuthorised, 403: NotAuthorised, 404: NothingThere, 410: NothingThere, 413: SizeRefused}
    raise kind.get(reply.status, TransferRefused)(reply.status, title, detail, url)


def is_of_the_way(reply: HttpReply) -> bool:
    """Whether the answer says nothing about protocols: it may come from a guard, or from something on the way."""
    return reply.status in (401, 403, 407, 408, 413, 423, 425, 429) or (
        reply.status >= 500 and reply.status not in (501, 505)
    )


def problem(reply: HttpReply) -> tuple[str, str]:
    """Title and detail, of a problem document (RFC 9457) or of a line of text."""
    from http import HTTPStatus

    title, detail = "", ""
    kind = (reply.get("content-type") or "").partition(";")[0].strip().lower()
    if kind.endswith("json"):
        import json

        try:
            document: Any = json.loads(reply.body)
            title, detail = str(document.get("title") or ""), str(document.get("detail") or "")
        except (ValueError, AttributeError, RecursionError):
            pass
    elif kind == "text/plain":
        detail = reply.body[:400].decode("utf-8", "replace").strip().partition("\n")[0].strip()
    if not title:
        try:
            title = HTTPStatus(reply.status).phrase
        except ValueError:
            title = "an unknown status"
    return _line(title), _line(detail)


def _line(text: str) -> str:
    """It, on a line of a terminal that doesn't obey it."""
    return "".join(c if c.isprintable() else " " for c in text[:MOST_SAID])


def retry_after(reply: HttpReply) -> float | None:
    """Seconds to wait, as the answer asks for; None: it doesn't."""
    value = reply.get("retry-after")
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(value)
        said = parsedate_to_datetime(reply.get("date") or "")
        return max(0.0, (when - said).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
