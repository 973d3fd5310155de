"""A small relay on loopback that lets one browser reach a daemon's admin API, whose socket a browser can't open.

Invariants: it answers only a browser that has shown the one-time token of its URL, by a cookie that scripts can't read
and other sites can't send; and only under its own address, so that neither a page of another site (Origin, Fetch
Metadata) nor one whose name leads here (DNS rebinding: Host) gets anything. Everything is below a path that only that
browser was told: cookies know no ports, so another program on this machine isn't sent this one. Where a command line
has shown the address to other users of the machine, only some users' browsers may open it. Answers go through as they
come, no faster than they are read. Spec: RFC 6265bis, RFC 6454, Fetch Metadata.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection
from hmac import compare_digest
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss, Request
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

COOKIE: Final = b"resumable-dashboard"
_METHODS: Final = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE")
_ASKED: Final = (b"accept", b"last-event-id", b"if-none-match")
"""Fields of a request that go on to the daemon: Origin, cookies and the rest are this relay's."""
_ANSWERED: Final = (
    b"cache-control", b"content-length", b"content-security-policy", b"content-type", b"cross-origin-opener-policy",
    b"cross-origin-resource-policy", b"etag", b"referrer-policy", b"retry-after", b"x-content-type-options",
)  # fmt: skip
_OURS: Final = (b"none", b"same-origin")
_AWAY: Final = "The server doesn't answer: does it still run?"


@implementer(IAgentEndpointFactory)
class SocketEndpoints:
    """Every URL leads to one Unix socket."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path

    def endpointForURI(self, uri: Any) -> UNIXClientEndpoint:
        return UNIXClientEndpoint(self._reactor, self._path)


def agent_for(reactor: Any, where: str) -> tuple[IAgent, str]:
    """Of a daemon at ``unix:/path`` or a URL, and the URL that its paths follow."""
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = 8
    if where.startswith("unix:"):
        endpoints = SocketEndpoints(reactor, where.removeprefix("unix:"))
        return Agent.usingEndpointFactory(reactor, endpoints, pool), "http://localhost"
    return Agent(reactor, pool=pool, connectTimeout=10), where.rstrip("/")


class Relay(Resource):
    """``agent`` and ``base`` lead to the daemon; ``bearer``: its token, None where it needs none.

    `opened_at` tells it its port; `url` is the one that a browser opens, once. ``users``: whose browsers may open it;
    None: anybody's who knows it. ``owner``: whose a connection is, as `owner_of_link`.
    """

    isLeaf = True

    users: Collection[int] | None = None

    def __init__(
        self,
        agent: IAgent,
        base: str,
        bearer: str | None = None,
        owner: Callable[[int, int], int | None] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._agent = agent
        self._base = base
        self._bearer = bearer
        self._once: bytes | None = secrets.token_urlsafe(32).encode()
        self._cookie = secrets.token_urlsafe(32).encode()
        self._prefix = b"/" + secrets.token_urlsafe(12).encode()
        self._host = b""
        self._port = 0
        self._owner = owner or owner_of_link

    def opened_at(self, port: int) -> None:
        """It listens there, on 127.0.0.1."""
        self._host = b"127.0.0.1:%d" % port
        self._port = port

    @property
    def url(self) -> str:
        """Good for one browser."""
        assert self._once is not None, "nobody has opened it yet"
        return f"http://{self._host.decode()}{self._prefix.decode()}/?token={self._once.decode()}"

    def render(self, request: Request) -> bytes | int:
        refused = self._refusal(request)
        if refused is not None:
            return _say(request, *refused)
        if request.path == self._prefix + b"/" and b"token" in (request.args or {}):
            return self._open(request)
        given = request.getCookie(COOKIE) or b""
        if not compare_digest(given, self._cookie):
            return _say(request, 403, "Open the address that `resumable dashboard` has printed, in one browser.")
        path = request.path.removeprefix(self._prefix)
        if path in (b"", b"/"):
            return self._lead(request)
        if not path.startswith((b"/dashboard/", b"/v1/")) or request.method not in _METHODS:
            return _say(request, 404, "There is nothing at this address.")
        self._pass_on(request, path)
        return NOT_DONE_YET

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        """Why this can't be our browser's request; None: it can."""
        headers = request.requestHeaders
        if headers.getRawHeaders(b"host") != [self._host]:
            return 421, "This relay has another address."
        origins = headers.getRawHeaders(b"origin", [])
        sites = headers.getRawHeaders(b"sec-fetch-site", [])
        if any(each != b"http://" + self._host for each in origins) or any(each not in _OURS for each in sites):
            return 403, "A page of another site has asked for this."
        if not (request.path + b"/").startswith(self._prefix + b"/"):
            return 404, "There is nothing at this address."
        return None

    def _open(self, request: Request) -> bytes:
        """The token of the URL becomes a cookie, once."""
        given: list[bytes] = (request.args or {})[b"token"]
        known, good = self._once, len(given) == 1 and request.method == b"GET"
        if known is None or not good or not compare_digest(given[0], known):
            return _say(request, 403, "This address was used already, or is wrong. Run `resumable dashboard` again.")
        user = None if self.users is None else self._owner(request.getClientAddress().port, self._port)
        if user is not None and self.users is not None and user not in self.users:
            return _say(request, 403, "Another user's browser. Run `resumable dashboard --no-browser` to choose one.")
        self._once = None
        cookie = b"%b=%b; Path=%b/; HttpOnly; SameSite=Strict" % (COOKIE, self._cookie, self._prefix)
        request.responseHeaders.addRawHeader(b"set-cookie", cookie)
        return self._lead(request)

    def _lead(self, request: Request) -> bytes:
        """To the page."""
        request.setResponseCode(303)
        request.responseHeaders.setRawHeaders(b"location", [self._prefix + b"/dashboard/"])
        request.responseHeaders.setRawHeaders(b"referrer-policy", [b"no-referrer"])
        request.responseHeaders.setRawHeaders(b"cache-control", [b"no-store"])
        return b""

    def _pass_on(self, request: Request, path: bytes) -> None:
        """Ask the daemon, without what is for this relay only. The API's requests have no bodies."""
        headers = Headers({name: request.requestHeaders.getRawHeaders(name, []) for name in _ASKED})
        if self._bearer is not None:
            headers.setRawHeaders(b"authorization", [f"Bearer {self._bearer}".encode("ascii")])
        _, mark, query = request.uri.partition(b"?")
        asked = self._agent.request(request.method, self._base.encode("ascii") + path + mark + query, headers, None)
        passing = Passing(request, asked.cancel)
        asked.addCallback(passing.begin).addErrback(passing.failed)


def owner_of_link(client: int, server: int, table: Path = Path("/proc/net/tcp")) -> int | None:
    """The user whose program has connected from the one port of 127.0.0.1 to the other; None: the system doesn't say.

    proc_net_tcp(5): addresses as hexadecimal numbers in the machine's order; the eighth field is the user.
    """
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return None
    ends = tuple(f":{port:04X}" for port in (client, server))
    for fields in map(str.split, lines):
        if len(fields) > 7 and fields[1].endswith(ends[0]) and fields[2].endswith(ends[1]):
            return int(fields[7])
    return None


class Passing(Protocol):
    """One answer on its way from the daemon to the browser. ``give_up``: stop asking."""

    def __init__(self, request: Request, give_up: Callable[[], object]) -> None:
        self._request = request
        self._give_up = give_up
        self._gone = False
        request.notifyFinish().addErrback(self._left)

    def begin(self, response: IResponse) -> None:
        """The head is here."""
        if self._gone:
            response.deliverBody(self)
            return
        request = self._request
        request.setResponseCode(response.code)
        for name in _ANSWERED:
            for value in response.headers.getRawHeaders(name, []):
                request.responseHeaders.addRawHeader(name, value)
        request.write(b"")  # the head goes out now: a stream of events may be quiet at first
        response.deliverBody(self)

    def connectionMade(self) -> None:
        self._give_up = self.transport.loseConnection  # type: ignore[union-attr]
        if self._gone:
            self._give_up()
        else:
            self._request.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        if not self._gone:
            self._request.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._gone:
            return
        self._request.unregisterProducer()
        if reason.check(ResponseDone, PotentialDataLoss, ConnectionDone):
            self._request.finish()
        else:  # a part of an answer must not look like all of it
            self._request.loseConnection()

    def failed(self, failure: Failure) -> None:
        """There is no answer."""
        if not self._gone:
            self._request.write(_say(self._request, 502, _AWAY))
            self._request.finish()

    def _left(self, _: Failure) -> None:
        """The browser has gone."""
        self._gone = True
        self._give_up()


def _say(request: Request, status: int, text: str) -> bytes:
    """An answer in one sentence; a problem document, as the API's are."""
    request.setResponseCode(status)
    body = json.dumps({"type": "about:blank", "status": status, "detail": text}).encode()
    for name, value in (
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ):
        request.responseHeaders.setRawHeaders(name, [value])
    return body


def is_plain_remote(where: str) -> bool:
    """Whether a token would cross a network without TLS."""
    parts = urlsplit(where)
    return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")
