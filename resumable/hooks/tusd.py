"""tusd's HTTP hooks: a hook server made for tusd works as it is.

Invariants: nothing unknown in an answer is objected to, as Go's decoder doesn't. A part of an answer that can't be
passed on to the client is left out, with one warning; the rest counts. An answer that can't be read is no yes, and a
client that gets an error has been refused.
Source: tusd v2, docs/_advanced-topics/hooks.md, pkg/hooks/hooks.go and http/http.go, pkg/handler/hooks.go and http.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from posixpath import normpath
from typing import Any, Final
from urllib.parse import unquote

from attrs import evolve, frozen
from twisted.logger import Logger
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.hooks import messages
from resumable.hooks.ask import MAX_HEADER_BYTES, MAX_HEADERS, can_be_sent
from resumable.hooks.http import Poster
from resumable.hooks.interfaces import (
    Allow,
    BadVerdict,
    Event,
    EventKind,
    IGuard,
    IHook,
    IWatcher,
    Question,
    Refuse,
    Verdict,
)
from resumable.hooks.messages import as_bytes, loads, shown, text_pairs
from resumable.model.hooks import Answer, Changes, QuestionKind, RequestView, UploadView

QUESTIONS = {
    QuestionKind.CREATE: "pre-create",
    QuestionKind.FINISH: "pre-finish",
    QuestionKind.TERMINATE: "pre-terminate",
}
EVENTS = {
    EventKind.CREATED: "post-create",
    EventKind.PROGRESS: "post-receive",
    EventKind.FINISHED: "post-finish",
    EventKind.TERMINATED: "post-terminate",
}
REJECTED = {
    QuestionKind.CREATE: "upload has been rejected by server",
    QuestionKind.FINISH: "upload has been rejected by server",
    QuestionKind.TERMINATE: "upload termination has been rejected by server",
}
STOPPED = "upload has been stopped by server"
WARNINGS = 100
"""Different warnings of one hook, at most."""

log = Logger()


STORES: Final = {"s3": ("s3store", "Bucket"), "gs": ("gcsstore", "Bucket"), "az": ("azurestore", "Container")}
"""What tusd calls an object store, and its bucket."""


@frozen
class TusdFormat:
    """``path_of``: where an upload's data is, a path or the URL of an object, for ``Storage``. ``finished``: STORED
    makes post-finish wait until every required remote has the upload, as with tusd and a bucket."""

    path_of: Callable[[str], str]
    finished: EventKind = EventKind.FINISHED

    def hook_for(self, event: Event) -> str | None:
        """tusd's name of the event; None: tusd has none."""
        if event.kind in (EventKind.FINISHED, EventKind.STORED):
            done = event.kind is self.finished and (event.kind is EventKind.FINISHED or event.remote is None)
            return EVENTS[EventKind.FINISHED] if done else None
        return EVENTS.get(event.kind)

    def document(self, hook: str, message: Event | Question) -> dict[str, Any]:
        """A hook request, in JSON's types."""
        new = isinstance(message, Question) and message.kind is QuestionKind.CREATE
        upload = self._upload(message.upload, new)
        if isinstance(message, Event) and message.kind is EventKind.PROGRESS:  # tusd's counts received bytes too
            upload["Offset"] = message.details.get("received", message.upload.offset)
        return {"Type": hook, "Event": {"Upload": upload, "HTTPRequest": _request(message.request)}}

    def _upload(self, upload: UploadView, new: bool) -> dict[str, object]:
        storage = None if new else _storage(self.path_of(upload.id))
        return {
            "ID": "" if new else upload.id,
            "Size": upload.length or 0,
            "SizeIsDeferred": upload.length is None,
            "Offset": upload.offset,
            "MetaData": messages.texts(upload.metadata),
            "IsPartial": upload.partial,
            "IsFinal": bool(upload.partials),
            "PartialUploads": list(upload.partials) or None,
            "Storage": storage,
        }


def _storage(path: str) -> dict[str, str]:
    """Where an upload is, in tusd's words. ``path``: of a file, or the URL of an object."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        return {"Type": "filestore", "Path": path}
    bucket, _, key = rest.partition("/")
    kind, called = STORES.get(scheme, (f"{scheme}store", "Bucket"))
    return {"Type": kind, called: unquote(bucket), "Key": unquote(key)}


@implementer(IHook, IGuard, IWatcher)
class TusdHook:
    """Posts as tusd does: plain JSON, not signed; only the headers that are to be forwarded, and an event's sequence,
    go along."""

    def __init__(self, poster: Poster, format: TusdFormat, target: str = "") -> None:
        """``target``: the hook's kind and place, for the log."""
        self._poster = poster
        self._format = format
        self._target = target
        self._warned: set[str] = set()

    @deferred
    async def deliver(self, event: Event) -> None:
        """See `IHook.deliver`: any 2xx says that it arrived. An event that tusd has no hook for has arrived."""
        hook = self._format.hook_for(event)
        if hook is not None:
            await self._poster.post(*self._prepared(hook, event))

    @deferred
    async def ask(self, question: Question) -> Verdict:
        """See `IGuard.ask`. tusd has no hook before an append: it is allowed."""
        hook = QUESTIONS.get(question.kind)
        if hook is None:
            return Allow()
        answer = await self._poster.insist(*self._prepared(hook, question))
        _check_type(answer.headers)
        return parse(answer.body, question.kind, self._left_out)

    @deferred
    async def watch(self, event: Event) -> Refuse | None:
        """See `IWatcher.watch`: StopUpload."""
        answer = await self._poster.post(*self._prepared(EVENTS[event.kind], event))
        _check_type(answer.headers)
        return parse_stop(answer.body, self._left_out)

    def _left_out(self, what: str) -> None:
        """Warn once of each, `WARNINGS` times at most: a hook may make names up."""
        if what not in self._warned and len(self._warned) < WARNINGS:
            self._warned.add(what)
            said = "hook {target}: the {what} of its answer can't be passed on: left out"
            log.warn(said, target=self._target, what=what)

    def _prepared(self, hook: str, message: Event | Question) -> tuple[Callable[[], dict[str, str]], bytes]:
        headers = {**self._poster.forwarded(message.request), "content-type": "application/json"}
        if isinstance(message, Event) and message.sequence is not None:
            headers["event-sequence"] = messages.sequence_of(message.sequence)
        return lambda: headers, messages.dumps(self._format.document(hook, message))


def _request(request: RequestView | None) -> dict[str, object]:
    if request is None:
        return {"Method": "", "URI": "", "RemoteAddr": "", "Header": {}}
    headers = {_canonical(name): list(values) for name, values in request.headers.items()}
    return {"Method": request.method, "URI": request.uri, "RemoteAddr": request.address, "Header": headers}


def _canonical(name: str) -> str:
    """As https://pkg.go.dev/net/http#CanonicalHeaderKey writes it."""
    return "-".join(part.capitalize() for part in name.split("-"))


def _check_type(headers: Mapping[str, str]) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadVerdict("it answered without Content-Type: application/json")


def _ignore(what: str) -> None: ...


def parse(data: bytes, kind: QuestionKind, left_out: Callable[[str], None] = _ignore) -> Verdict:
    """The verdict in a hook's response to such a question; it has still to be checked. Raises BadVerdict.

    ``left_out`` is called with each part of its answer to the client that can't be passed on.
    """
    said = _Go(loads(data))
    answer = _answer(said.object("HTTPResponse"), left_out)
    # tusd sends a hook's answer to the client whatever its status, and goes on: an error is a no
    no = said.flag("RejectTermination" if kind is QuestionKind.TERMINATE else "RejectUpload")
    if no or (answer.status or 0) >= 400:
        return Refuse(_rejecting(answer, REJECTED[kind], left_out))
    return Allow(_changes(said.object("ChangeFileInfo")) if kind is QuestionKind.CREATE else Changes(), answer)


def parse_stop(data: bytes, left_out: Callable[[str], None] = _ignore) -> Refuse | None:
    """The stop in a hook's response to post-receive; None: go on. Raises BadVerdict."""
    said = _Go(loads(data))
    if not said.flag("StopUpload"):
        return None
    return Refuse(_rejecting(_answer(said.object("HTTPResponse"), left_out), STOPPED, left_out))


class _Go:
    """An object as Go's decoder reads it: members in any case, null like absent, other types an error."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._members = {name.lower(): value for name, value in found.items() if value is not None}

    def object(self, name: str) -> _Go:
        return _Go(self._get(name, dict, {}))

    def flag(self, name: str) -> bool:
        return bool(self._get(name, bool, False))

    def text(self, name: str) -> str:
        return str(self._get(name, str, ""))

    def number(self, name: str) -> int:
        value = self._get(name, int, 0)
        if isinstance(value, bool):
            raise BadVerdict(f"{name} is of another type")
        return int(value)

    def pairs(self, name: str) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._get(name, dict, None)
        return found

    def _get(self, name: str, kind: type[Any], default: Any) -> Any:
        value = self._members.get(name.lower(), default)
        if value is not default and not isinstance(value, kind):
            raise BadVerdict(f"{name} is of another type")
        return value


def _answer(said: _Go, left_out: Callable[[str], None]) -> Answer:
    status = said.number("StatusCode") or None
    if status is not None and not (200 <= status <= 299 or 400 <= status <= 599):
        left_out(f"status {status}")
        status = None
    return Answer(status, _headers(said.pairs("Header") or {}, left_out), as_bytes(said.text("Body")))


def _headers(found: Mapping[str, Any], left_out: Callable[[str], None]) -> dict[str, str]:
    """The fields that can be sent, with the blanks that Go would send."""
    headers: dict[str, str] = {}
    room = MAX_HEADER_BYTES
    for name, value in found.items():
        if not isinstance(value, str | None):
            raise BadVerdict("Header is of another type")
        text = re.sub(r"[\r\n]", " ", value or "").strip(" \t")
        size = len(name) + len(text)
        if not can_be_sent(name, text) or size > room or len(headers) == MAX_HEADERS:
            left_out(f"header {shown(name)}")
            continue
        headers[name] = text
        room -= size
    return headers


def _rejecting(answer: Answer, message: str, left_out: Callable[[str], None]) -> Answer:
    """The answer of a refusal. As in tusd, parts that the hook leaves out come from the error."""
    headers = dict(answer.headers)
    if "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = "text/plain; charset=utf-8"
    status = answer.status or 400
    if status < 400:
        left_out(f"status {status} of a refusal")
        status = 400
    return evolve(answer, status=status, headers=headers, body=answer.body or f"{message}\n".encode())


def _changes(said: _Go) -> Changes:
    pairs = said.pairs("MetaData")
    if pairs is not None:
        pairs = text_pairs({key: "" if value is None else value for key, value in pairs.items()})
    path = said.object("Storage").text("Path")
    if path.startswith("/"):
        raise BadVerdict("ChangeFileInfo.Storage.Path is absolute: give one below --place-dir, or in the remotes")
    return Changes(id=said.text("ID") or None, metadata=pairs, key=normpath(path) if path else None)
