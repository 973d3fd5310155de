"""A hook behind a URL: CloudEvents, signed as Standard Webhooks.

One reason to change: how our own format travels over HTTP.

Invariant: the same event is sent with the same ``webhook-id`` and the same body each time; what is asked is answered
yes only by a 200 with our JSON. Spec: CloudEvents 1.0.2 HTTP binding, structured mode; Standard Webhooks.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.hooks import messages
from resumable.hooks.interfaces import BadVerdict, Event, IGuard, IHook, IWatcher, Question, Refuse, Verdict
from resumable.hooks.messages import WebhookSigner
from resumable.hooks.post import Poster
from resumable.httpclient.client import HttpAnswer

JSON = frozenset({"application/json", "application/cloudevents+json"})


@implementer(IHook, IGuard, IWatcher)
class HttpHook:
    """``source``: which daemon it is, a URI reference. ``wall`` tells the time for signatures."""

    def __init__(self, poster: Poster, signer: WebhookSigner, *, source: str, wall: Callable[[], float]) -> None:
        self._poster = poster
        self._signer = signer
        self._source = source
        self._wall = wall

    def deliver(self, event: Event) -> Deferred[None]:
        """See IHook: any 2xx says that it arrived."""
        return Deferred.fromCoroutine(self._deliver(event))

    def ask(self, question: Question) -> Deferred[Verdict]:
        """See IGuard."""
        return Deferred.fromCoroutine(self._ask(question))

    def watch(self, event: Event) -> Deferred[Refuse | None]:
        """See IWatcher: a JSON answer may say stop."""
        return Deferred.fromCoroutine(self._watch(event))

    async def _deliver(self, event: Event) -> None:
        await self._poster.post(*self._prepared(event))

    async def _ask(self, question: Question) -> Verdict:
        answer = await self._poster.insist(*self._prepared(question))
        if answer.status != 200 or not is_json(answer):
            raise BadVerdict("it answered something else than JSON")
        return messages.parse(answer.body)

    async def _watch(self, event: Event) -> Refuse | None:
        answer = await self._poster.post(*self._prepared(event))
        return messages.parse_stop(answer.body) if is_json(answer) else None

    def _prepared(self, message: Event | Question) -> tuple[Callable[[], dict[str, str]], bytes]:
        """The body, and headers that are made anew for each attempt: the signature holds the time."""
        body = messages.dumps(messages.document(message, self._source))

        def headers() -> dict[str, str]:
            return {
                **self._poster.forwarded(message.request),
                **self._signer.headers(message.id, int(self._wall()), body),
                "content-type": messages.CONTENT_TYPE,
                "accept": "application/json",
            }

        return headers, body


def is_json(answer: HttpAnswer) -> bool:
    """Whether that is what it calls itself."""
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower() in JSON
