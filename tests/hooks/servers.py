"""Hook servers in the test's reactor: well-behaved ones, and those that do anything but."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from resumable.hooks.http import HttpHook, Poster, Posting
from resumable.hooks.interfaces import Event, EventKind, Question
from resumable.hooks.messages import WebhookSigner
from resumable.httpclient.client import Http, HttpLimits
from resumable.model.hooks import QuestionKind, RequestView, UploadView

SECRET = b"a secret of 24 bytes or more"
NOW = 1_800_000_000.25
REQUEST = RequestView(
    "POST",
    "/files/",
    "192.0.2.7:4711",
    {"cookie": ("a=1", "b=2"), "authorization": ("Bearer t",), "x-own": ("yes",)},
    "7f3a-1",
    "tus",
    "1.0.0",
)
UPLOAD = UploadView("an-upload-id-1234", 10, 4, {"filename": b"a.txt", "odd": b"\xff"}, "filename YS50eHQ=,odd /w==")


def event(kind: EventKind = EventKind.FINISHED, **details: object) -> Event:
    sequence = None if kind is EventKind.PROGRESS else 7
    return Event(f"evt_an-upload-id-1234_{kind.value}_7", kind, NOW, UPLOAD, REQUEST, details, sequence)


def question(kind: QuestionKind = QuestionKind.CREATE) -> Question:
    return Question("ask_1", kind, NOW, UPLOAD, REQUEST)


class HookServer(Resource):
    """Keeps what came. ``answers`` are given one after another, the last for ever: (status, headers, body), JSON, or
    None for an answer that never comes."""

    isLeaf = True

    def __init__(self, *answers) -> None:
        super().__init__()
        self.answers = list(answers)
        self.requests = []
        self.bodies: list[bytes] = []
        self.transports = set()
        self.came: Deferred = Deferred()

    def render(self, request):
        self.requests.append(request)
        self.transports.add(request.transport)
        self.bodies.append(request.content.read())
        if not self.came.called:
            self.came.callback(None)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            return NOT_DONE_YET
        if not isinstance(answer, tuple):
            answer = (200, {"Content-Type": "application/json"}, json.dumps(answer).encode())
        status, headers, body = answer
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name, value)
        return body

    def header(self, name: str, index: int = -1) -> str | None:
        return self.requests[index].getHeader(name)


class Raw(Protocol):
    """Says ``factory.say`` once it has heard anything, then closes if it shall."""

    def dataReceived(self, data):
        if not self.factory.came.called:
            self.factory.came.callback(None)
        self.factory.count += 1
        if self.factory.say is not None:
            self.transport.write(self.factory.say)
        if self.factory.close:
            self.transport.loseConnection()


class RawServer(Factory):
    protocol = Raw
    noisy = False

    def __init__(self, say: bytes | None, close: bool = True) -> None:
        self.say = say
        self.close = close
        self.count = 0
        self.came: Deferred = Deferred()


class Rig:
    """A server, and all that it takes to post to it. Time-outs go by ``clock``; the network by the reactor."""

    def __init__(self, server, posting: Posting | None = None, context=None, policy=None, path: str = "/hook") -> None:
        factory = server if isinstance(server, Factory) else Site(server)
        factory.noisy = False
        self.server = server
        self.clock = Clock()
        listen = reactor.listenTCP if context is None else lambda *a, **k: reactor.listenSSL(a[0], a[1], context, **k)
        self.port = listen(0, factory, interface="127.0.0.1")
        self.http = Http(reactor, HttpLimits(until_closed=True), clock=self.clock, policy=policy)
        scheme, host = ("http", "127.0.0.1") if context is None else ("https", "localhost")
        self.url = f"{scheme}://{host}:{self.port.getHost().port}{path}"
        self.poster = Poster(
            self.url, self.http, clock=self.clock, wall=lambda: NOW, rng=Random(1), posting=posting or Posting(pause=0)
        )

    def hook(self, *secrets: bytes, wall: Callable[[], float] = lambda: NOW) -> HttpHook:
        return HttpHook(self.poster, WebhookSigner(secrets or (SECRET,)), source="/files/", wall=wall)

    async def timed_out(self, asked: Deferred) -> None:
        """The server has heard the question; time passes."""
        await self.server.came
        self.clock.advance(1000)

    async def close(self) -> None:
        await maybeDeferred(self.port.stopListening)
        await self.http.close()
        await deferLater(reactor, 0.01)
