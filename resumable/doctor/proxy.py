"""The proxy in front of the server: does it collect requests, limit bodies, hide the address, refuse long metadata?

Metadata comes in one header field and goes back in the answer to HEAD. Where a proxy has less room for an answer's head
than for a request's, an upload with much of it can be made, but HEAD is answered 502 and the client starts over.

Invariant: each upload that is made is removed again, and each answer is waited for within a limit. A 413 or the like
without Tus-Resumable is the proxy's own answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from attrs import frozen
from twisted.internet.task import deferLater
from twisted.web.iweb import IPolicyForHTTPS

from resumable.doctor.findings import Finding, unseen
from resumable.doctor.visitor import TusAnswer, Unanswered, Visitor, upload_at

BUFFERING: Final = "proxy buffering"
LIMIT: Final = "proxy body limit"
LOCATION: Final = "Location"
DELETE: Final = "DELETE"

#: Bytes that are announced, or announced where that is too much, and sent. A buffer smaller than that does no harm.
LONG: Final = 2 << 30
SHORT: Final = 256 << 10
SENT: Final = 128 << 10
PAUSE: Final = 0.25

_TUS: Final = {"Tus-Resumable": "1.0.0"}
#: filename resumable-doctor
_NAMED: Final = {"Upload-Metadata": "filename cmVzdW1hYmxlLWRvY3Rvcg=="}
_BODY: Final = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}

_DONT_COLLECT: Final = (
    "Let it pass requests on as they come: proxy_request_buffering off (nginx; ingress-nginx has an annotation for it),"
    " no option http-buffer-request (HAProxy), no request_buffers (Caddy), no buffering middleware (Traefik)."
    " Otherwise a client whose connection drops has sent everything for nothing."
)
_RAISE_LIMIT: Final = (
    "Raise it: client_max_body_size 0 (nginx), proxy-body-size 0 (ingress-nginx). Where that can't be (Cloudflare),"
    " let clients send less in one request (chunkSize)."
)
_REFUSALS: Final = {
    401: "Give the check a client's credentials, as a header.",
    403: "Give the check a client's credentials, as a header; or let the proxy pass POST, HEAD, PATCH and DELETE.",
    404: "It has to be the URL of --base-path as clients see it.",
    405: "Let the proxy pass POST, HEAD, PATCH, DELETE and OPTIONS.",
    429: "Wait, or let the check in as somebody who may do more.",
    502: "The proxy doesn't reach the server: check its address there, and whether the daemon runs.",
    503: "The server or the proxy can't take uploads now: see their logs.",
    504: "The proxy's time for an answer has passed: see the server's log.",
}


async def check_proxy(
    reactor: Any,
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    policy: IPolicyForHTTPS | None = None,
    patience: float = 5.0,
) -> list[Finding]:
    """Make an upload through ``url``, cut its append in the middle, and see what arrived; and one with long metadata.

    ``headers``: those that let a client in, such as Authorization. ``patience``: seconds that bytes have to arrive in.
    Never raises: each failure is a finding. Guards and hooks see these uploads.
    """
    check = _Check(reactor, url if url.endswith("/") else url + "/", Visitor(reactor, headers or {}, policy), patience)
    try:
        return await check.run()
    except Unanswered as why:
        advice = (
            "See whether the proxy and the daemon behind it run, and whether the proxy has a time-out below a minute."
        )
        return [Finding(BUFFERING, "bad", f"{url}: {why}", advice)]


class _Check:
    def __init__(self, reactor: Any, url: str, visitor: Visitor, patience: float) -> None:
        self._reactor = reactor
        self._url = url
        self._visitor = visitor
        self._patience = patience

    async def run(self) -> list[Finding]:
        length, made = await self._create()
        location = made.get("location")
        if made.status != 201 or not made.is_tus or location is None:
            return [self._refused("POST", made)]
        upload = upload_at(self._url, location)
        try:
            found = [*_place(self._url, location), *await self._append(upload, length)]
        finally:
            left = await self._remove(upload)
        return [*found, *left, *await check_heads(self._visitor, self._url)]

    async def _create(self) -> tuple[int, TusAnswer]:
        """A long one, so that limits show, unless the server itself takes no such thing."""
        for length in (LONG, SHORT):
            made = await self._visitor.ask("POST", self._url, {**_TUS, **_NAMED, "Upload-Length": str(length)})
            if made.status not in (413, 507):
                break
        return length, made

    async def _append(self, upload: str, length: int) -> list[Finding]:
        wait = min(1.0, self._patience / 2)
        answer = await self._visitor.cut("PATCH", upload, {**_TUS, **_BODY}, length, bytes(SENT), wait)
        if answer is None:
            return [await self._arrived(upload)]
        if answer.status != 413 or answer.is_tus:
            return [self._refused("PATCH", answer)]
        size = "2 GiB" if length == LONG else "256 KiB"
        what = f"a request of {size} is refused before it gets to the server"
        smaller = [] if length == SHORT else await self._append(upload, SHORT)
        return (
            smaller if smaller and smaller[0].name == LIMIT else [Finding(LIMIT, "warn", what, _RAISE_LIMIT), *smaller]
        )

    async def _arrived(self, upload: str) -> Finding:
        """Ask until something has, as a client does that comes back."""
        until = self._reactor.seconds() + self._patience
        while True:
            answer = await self._visitor.ask("HEAD", upload, _TUS)
            if answer.status not in (200, 423):
                return self._refused("HEAD", answer)
            offset = answer.get("upload-offset") or "0"
            if offset.isdigit() and int(offset):
                what = (
                    f"requests are passed on as they come: {offset} of {SENT} bytes were kept of one that was cut off"
                )
                return Finding(BUFFERING, "ok", what)
            if self._reactor.seconds() >= until:
                what = f"requests are collected before they are passed on: of {SENT} bytes none came through"
                return Finding(BUFFERING, "bad", what, _DONT_COLLECT)
            await deferLater(self._reactor, PAUSE)

    async def _remove(self, upload: str) -> list[Finding]:
        try:
            status = (await self._visitor.ask(DELETE, upload, _TUS)).status
        except Unanswered:
            status = 0
        if status in (204, 404, 410):
            return []
        what = f"the upload that was made for this is still there: {upload.partition('?')[0]}"
        return [
            Finding(
                DELETE,
                "warn",
                what,
                "Let the proxy pass DELETE, unless termination is turned off on purpose.",
            )
        ]

    def _refused(self, method: str, answer: TusAnswer) -> Finding:
        who = "the server" if answer.is_tus else "somebody in front of the server"
        advice = _REFUSALS.get(answer.status, "Ask the log of whoever answered.")
        return Finding(BUFFERING, "bad", f"{who} answers {method} with {answer.status}", advice)


def _place(url: str, location: str) -> list[Finding]:
    """Whether a Location leads to where the client is."""
    try:
        here, there = urlsplit(url), urlsplit(urljoin(url, location))
    except ValueError:
        return [Finding(LOCATION, "bad", f"Location is no URL: {location[:200]}", "Find the proxy that sets it.")]
    path = there.path.rpartition("/")[0] + "/"
    told = f"{there.scheme}://{there.netloc}{path}"
    what = f"clients of {url} are sent to {told}"
    if _origin(here.scheme, here.netloc) != _origin(there.scheme, there.netloc):
        advice = (
            f"Start the server with --public-url {url}; or with --behind-proxy and the proxy's address, and let the"
            " proxy set X-Forwarded-Proto and X-Forwarded-Host."
        )
        return [Finding(LOCATION, "bad", what, advice)]
    if here.path != path:
        return [
            Finding(LOCATION, "bad", what, f"Start the server with --public-url {url}, as the proxy changes the path.")
        ]
    return [Finding(LOCATION, "ok", f"clients are sent to {told}")]


def _origin(scheme: str, netloc: str) -> tuple[str, str]:
    default = {"http": ":80", "https": ":443"}.get(scheme, ":")
    return scheme, netloc.lower().removesuffix(default)


METADATA: Final = "long metadata"
#: Bytes of Upload-Metadata: nearly all that the server takes in one head; and what proxies let through by default.
METADATA_SIZES: Final = (14_000, 7_000)

_LONGER_ANSWERS: Final = (
    "Give it 32 KiB for the head of an answer: proxy_buffer_size 32k and proxy_buffers 4 32k (nginx; ingress-nginx has"
    " annotations for them), tune.bufsize 32768 (HAProxy), responsefieldsize=32768 (Apache). Otherwise a client with"
    " that much metadata starts over each time that it comes back."
)
_LONGER_REQUESTS: Final = (
    "Clients with more metadata can't begin. If there may be such, give it room for a header field of 16 KiB:"
    " large_client_header_buffers 4 32k (nginx), tune.bufsize 32768 (HAProxy), LimitRequestFieldSize 32768 (Apache)."
)


async def check_heads(visitor: Visitor, url: str) -> list[Finding]:
    """Make an upload with as much metadata as gets through, ask for it, and remove it. Never raises."""
    refused: list[_Refusal] = []
    for size in METADATA_SIZES:
        said = f"filename cmVzdW1hYmxlLWRvY3Rvcg==,note {'eHh4' * (size // 4)}"
        made = await _asked(visitor, "POST", url, {**_TUS, "Upload-Metadata": said, "Upload-Length": "1"})
        location = made and made.get("location")
        if made and made.status == 201 and location:
            return await _looked_at(visitor, upload_at(url, location), said, refused)
        refused.append(_Refusal(size, made))
    return [refused[-1].finding()]


async def _looked_at(visitor: Visitor, upload: str, said: str, refused: list[_Refusal]) -> list[Finding]:
    try:
        got = await _asked(visitor, "HEAD", upload, _TUS)
    finally:
        await _asked(visitor, "DELETE", upload, _TUS)
    size = f"{len(said)} bytes of metadata"
    if got is None or got.status not in (200, 423) or (got.status == 200 and got.get("upload-metadata") != said):
        how = _how(got) if got is None or got.status != 200 else "answered without them"
        return [
            Finding(METADATA, "bad", f"an upload with {size} can be made, and HEAD of it is {how}", _LONGER_ANSWERS)
        ]
    return [refused[0].finding()] if refused else [Finding(METADATA, "ok", f"{size} go both ways")]


@frozen
class _Refusal:
    size: int
    answer: TusAnswer | None

    def finding(self) -> Finding:
        what = f"an upload with {self.size} bytes of metadata can't be made: POST is {_how(self.answer)}"
        if self.answer is not None and self.answer.is_tus:
            return unseen(METADATA, what, "Give --header with credentials, or try later: a rate may be used up.")
        return Finding(METADATA, "warn", what, _LONGER_REQUESTS)


def _how(answer: TusAnswer | None) -> str:
    if answer is None:
        return "not answered"
    return f"answered with {answer.status} by {'the server' if answer.is_tus else 'somebody in front of the server'}"


async def _asked(visitor: Visitor, method: str, url: str, fields: dict[str, str]) -> TusAnswer | None:
    """The answer; None without one."""
    try:
        return await visitor.ask(method, url, fields)
    except Unanswered:
        return None
