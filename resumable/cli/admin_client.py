"""The client of a daemon's admin API (docs/api.md), over the Unix socket or the port where it answers operators.

It blocks, and does without Twisted: a command takes 0.2 s of CPU, and would take 0.5 s with it. Invariant: whatever
goes wrong is one sentence that says what to try. Spec: RFC 9110.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from attrs import frozen

from resumable.listening.endpoints import split_endpoint
from resumable.masking import has_user, masked

LARGEST_PAGE: Final = 1000
#: Some ten thousand replicas each.
MOST_ROUNDS: Final = 100

Document = dict[str, Any]


class DaemonRefused(Exception):
    """The daemon refuses to do it, for the reason that it gives."""


class InTheWay(DaemonRefused):
    """The upload isn't in the state for that."""


class NotAllowed(DaemonRefused):
    """The daemon refuses this principal."""


class AdminClient:
    """The API's methods. Each raises DaemonRefused and NoDaemon."""

    def __init__(self, line: AdminLine) -> None:
        self._line = line

    def uploads(self, filters: Mapping[str, str], most: int | None) -> Iterator[list[Document]]:
        """Pages of uploads, ``most`` in all (None for any number). A last empty page says that there are more."""
        left, query = most, dict(filters)
        while True:
            query["limit"] = str(LARGEST_PAGE if left is None else min(left, LARGEST_PAGE))
            page = self._document("GET", "/v1/uploads", query)
            found, place = page.get("uploads"), page.get("next")
            if not isinstance(found, list) or not isinstance(place, str | None):
                raise self._foreign()
            if found:
                yield found
            if place is None:
                return
            if left is not None:
                left -= len(found)
                if left <= 0:
                    yield []
                    return
            query["after"] = place

    def upload(self, upload_id: str) -> Document:
        """Everything about one upload."""
        return self._document("GET", f"/v1/uploads/{_segment(upload_id)}")

    def remove(self, upload_id: str, spare: bool) -> None:
        """End an upload and remove its bytes. ``spare``: raises InTheWay for one that a request appends to now."""
        query = {"unless": "appending"} if spare else {}
        self._checked(self._line.ask("DELETE", f"/v1/uploads/{_segment(upload_id)}", query))

    def retry(self, upload_id: str, remote: str | None) -> int:
        """Try parked replicas of an upload again, in one remote or all (None). How many there are."""
        query = {} if remote is None else {"remote": remote}
        return self._count(self._document("POST", f"/v1/uploads/{_segment(upload_id)}/retry", query), "restarted")

    def retry_all(self, remote: str) -> tuple[int, bool]:
        """Try all parked replicas of a remote again. How many there were, and whether there are more: one may be parked
        again as soon as it was tried."""
        count, more = 0, True
        for _ in range(MOST_ROUNDS):
            done = self._document("POST", "/v1/retry", {"remote": remote})
            count += self._count(done, "restarted")
            more = done.get("more") is True
            if not more:
                break
        return count, more

    def hooks(self) -> dict[str, Document]:
        """How many events wait and are dead, by hook."""
        found = self._document("GET", "/v1/hooks").get("hooks")
        if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
            raise self._foreign()
        return found

    def dead_events(self, hook: str) -> Iterator[list[Document]]:
        """Pages of the events that a hook was given up for."""
        query: dict[str, str] = {}
        while True:
            page = self._document("GET", f"/v1/hooks/{_segment(hook)}/dead", query)
            found, place = page.get("dead"), page.get("next")
            if not isinstance(found, list) or not isinstance(place, int | None):
                raise self._foreign()
            if found:
                yield found
            if place is None:
                return
            query["after"] = str(place)

    def replay(self, hook: str) -> int:
        """Deliver the dead events of a hook again. How many there are."""
        return self._count(self._document("POST", f"/v1/hooks/{_segment(hook)}/replay"), "replayed")

    def drain(self, method: str) -> Document:
        """The state of draining: GET reads it, PUT begins it, DELETE ends it."""
        return self._document(method, "/v1/drain")

    def _document(self, method: str, path: str, query: Mapping[str, str] | None = None) -> Document:
        document = self._checked(self._line.ask(method, path, query)).document
        if not isinstance(document, dict):
            raise self._foreign()
        return document

    def _checked(self, reply: Reply) -> Reply:
        if 200 <= reply.status < 300:
            return reply
        if not isinstance(reply.document, dict) or not isinstance(reply.document.get("detail"), str):
            raise self._foreign(f" ({reply.status})")
        raise _REFUSALS.get(reply.status, DaemonRefused)(reply.document["detail"])

    def _count(self, document: Document, name: str) -> int:
        count = document.get(name)
        if not isinstance(count, int):
            raise self._foreign()
        return count

    def _foreign(self, told: str = "") -> NoDaemon:
        return NoDaemon(f"what answers at {self._line.where} is no daemon of this release{told}")


_REFUSALS: Final = {401: NotAllowed, 403: NotAllowed, 409: InTheWay}


def _segment(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


PATIENCE: Final = 60.0
_LIKE: Final = "it looks like http://127.0.0.1:9090 or unix:/path"


class NoDaemon(Exception):
    """Nobody listens there, or another program answers."""


class BadUrl(NoDaemon):
    """The URL is no place where a daemon could listen."""


@frozen
class Reply:
    """An answer. ``document``: its JSON, or its text where it is no JSON."""

    status: int
    document: Any


class _Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


@frozen
class AdminLine:
    """The way to a daemon. ``where``: ``unix:/path`` or an http(s) URL. ``token``: sent as a bearer's. ``patience``:
    seconds of silence."""

    where: str
    token: str | None = None
    patience: float = PATIENCE

    def ask(self, method: str, path: str, query: Mapping[str, str] | None = None) -> Reply:
        """Send one request, on a connection of its own. Raises NoDaemon."""
        link, base = self._link()
        headers = {"Accept": "application/json", "Connection": "close"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        target = f"{base}{path}" + (f"?{urlencode(query, errors='surrogateescape')}" if query else "")
        try:
            link.request(method, target, headers=headers)
            answer = link.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except ssl.SSLCertVerificationError as error:
            raise NoDaemon(f"{masked(self.where)}: the certificate isn't trusted ({error.verify_message})") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NoDaemon(f"no daemon answers at {masked(self.where)} ({reason})") from error
        finally:
            link.close()
        try:
            return Reply(answer.status, json.loads(text))
        except ValueError:
            return Reply(answer.status, text)

    def _link(self) -> tuple[http.client.HTTPConnection, str]:
        if self.where.startswith("unix:"):
            return _Local(self.where.removeprefix("unix:"), self.patience), ""
        try:
            parts = urlsplit(self.where)
            host = parts.hostname
        except ValueError as error:
            raise BadUrl(f"that is no URL; {_LIKE}") from error
        try:
            port = parts.port
        except ValueError as error:
            raise BadUrl(f"the port of {masked(self.where)} is no number from 0 to 65535") from error
        if has_user(self.where):
            raise BadUrl("a URL takes no user and password here: give the token with --token-file")
        if parts.scheme not in ("http", "https") or not host:
            raise BadUrl(f"{masked(self.where) or 'an empty text'} is no URL; {_LIKE}")
        base = parts.path.rstrip("/")
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self.patience), base
        return http.client.HTTPConnection(host, port, timeout=self.patience), base


_WILDCARDS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def where(endpoint: str) -> str | None:
    """The place to connect to for a Twisted endpoint, as `AdminLine` takes it; None where it can't be told."""
    kind, arguments, named = split_endpoint(endpoint)
    if kind == "unix":
        path = named.get("address") or (arguments or [""])[0]
        return f"unix:{path}" if path else None
    port = named.get("port") or (arguments or [""])[0]
    if kind not in ("tcp", "tcp4", "tcp6", "ssl") or not port.isdigit() or port == "0":
        return None
    interface = named.get("interface", "::" if kind == "tcp6" else "")
    host = _WILDCARDS.get(interface, interface)
    scheme = "https" if kind == "ssl" else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
