"""tusd's HTTP hooks: a hook server made for tusd works as it is.

One reason to change: tusd's format. Invariant: what a tusd hook server can't say in tusd is not made of its answer: no
refusal that tusd would not have seen, but for a before-finish whose answer is an error; nothing unknown is objected to,
as Go's decoder doesn't. What can't be read is no yes.
Source: tusd v2, docs/_advanced-topics/hooks.md, pkg/hooks/hooks.go and http/http.go, pkg/handler/hooks.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from resumable.events import messages
from resumable.events.interfaces import Allow, Event, EventKind, IGuard, IHook, IWatcher, Question, Refuse, Verdict
from resumable.events.post import Poster
from resumable.events.verdicts import BadVerdict, as_bytes, loads, text_pairs
from resumable.hooks import Answer, Changes, QuestionKind, RequestView, UploadView

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


@frozen
class TusdFormat:
    """``path_of``: where an upload's data is, for ``Storage``. ``finished``: STORED makes post-finish wait until every
    required remote has the upload, which is what tusd with a bucket means by it."""

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
        if isinstance(message, Event) and message.kind is EventKind.PROGRESS:  # tusd's is what has arrived, too
            upload["Offset"] = message.details.get("received", message.upload.offset)
        return {"Type": hook, "Event": {"Upload": upload, "HTTPRequest": _request(message.request)}}

    def _upload(self, upload: UploadView, new: bool) -> dict[str, object]:
        storage = None if new else {"Type": "filestore", "Path": self.path_of(upload.id)}
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


@implementer(IHook, IGuard, IWatcher)
class TusdHook:
    """Posts as tusd does: plain JSON, not signed; only the headers that are to be forwarded go along."""

    def __init__(self, poster: Poster, format: TusdFormat) -> None:
        self._poster = poster
        self._format = format

    def deliver(self, event: Event) -> Deferred[None]:
        """See IHook: any 2xx says that it arrived. What tusd has no hook for has arrived."""
        return Deferred.fromCoroutine(self._deliver(event))

    def ask(self, question: Question) -> Deferred[Verdict]:
        """See IGuard. tusd has no hook before an append: nobody is asked."""
        return Deferred.fromCoroutine(self._ask(question))

    def watch(self, event: Event) -> Deferred[Refuse | None]:
        """See IWatcher: StopUpload."""
        return Deferred.fromCoroutine(self._watch(event))

    async def _deliver(self, event: Event) -> None:
        hook = self._format.hook_for(event)
        if hook is not None:
            await self._poster.post(*self._prepared(hook, event))

    async def _ask(self, question: Question) -> Verdict:
        hook = QUESTIONS.get(question.kind)
        if hook is None:
            return Allow()
        answer = await self._poster.insist(*self._prepared(hook, question))
        _check_type(answer.headers)
        return parse(answer.body, question.kind)

    async def _watch(self, event: Event) -> Refuse | None:
        answer = await self._poster.post(*self._prepared(EVENTS[event.kind], event))
        _check_type(answer.headers)
        return parse_stop(answer.body)

    def _prepared(self, hook: str, message: Event | Question) -> tuple[Callable[[], dict[str, str]], bytes]:
        headers = {**self._poster.forwarded(message.request), "content-type": "application/json"}
        return lambda: headers, messages.dumps(self._format.document(hook, message))


def parse(data: bytes, kind: QuestionKind) -> Verdict:
    """What a hook response says to that question; it has still to be checked. Raises BadVerdict."""
    said = _Go(loads(data))
    answer = _answer(said.object("HTTPResponse"))
    no = said.flag("RejectTermination" if kind is QuestionKind.TERMINATE else "RejectUpload")
    # tusd sends a pre-finish hook's answer to the client whatever its status: an error is a no
    if kind is QuestionKind.FINISH and (answer.status or 0) >= 400:
        no = True
    if no:
        return Refuse(_rejecting(answer, REJECTED[kind]))
    return Allow(_changes(said.object("ChangeFileInfo")) if kind is QuestionKind.CREATE else Changes(), answer)


def parse_stop(data: bytes) -> Refuse | None:
    """What a hook response to post-receive says. Raises BadVerdict."""
    said = _Go(loads(data))
    return Refuse(_rejecting(_answer(said.object("HTTPResponse")), STOPPED)) if said.flag("StopUpload") else None


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


def _answer(said: _Go) -> Answer:
    headers = said.pairs("Header") or {}
    return Answer(said.number("StatusCode") or None, headers, as_bytes(said.text("Body")))


def _rejecting(answer: Answer, message: str) -> Answer:
    """As tusd: what the hook leaves out comes from the error."""
    headers = dict(answer.headers)
    if "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = "text/plain; charset=utf-8"
    return evolve(answer, status=answer.status or 400, headers=headers, body=answer.body or f"{message}\n".encode())


def _changes(said: _Go) -> Changes:
    pairs = said.pairs("MetaData")
    key = said.object("Storage").text("Path") or None
    return Changes(id=said.text("ID") or None, metadata=None if pairs is None else text_pairs(pairs), key=key)


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
