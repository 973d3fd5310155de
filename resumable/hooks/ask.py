"""Guards: hooks that are asked before something is done, one after another; and the check of their answers.

Invariants: something guarded is done only if every guard that wants to be asked has said yes, in time and in words
that passed `check`. The first no wins; each guard sees the upload as those before it have changed it.
An answer that passes `check` can do no harm to the protocol: it has no header of framing or of the protocols, no
invalid id, and no key that leaves its place. An answer with a member that is unknown here is no verdict: the hook
wants something that it wouldn't get, so the answer is no yes.
Spec: RFC 9110 sections 5.5, 5.6.2 and 7.6.1 (fields), RFC 9457 for refusals without a body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import asdict, evolve, frozen
from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.hooks.calls import Count, HookCalls, count_nothing
from resumable.hooks.interfaces import Allow, BadVerdict, IGuard, Question, Refuse, Verdict
from resumable.hooks.messages import shown
from resumable.hooks.turns import Places
from resumable.model.hooks import Answer, Changes, Granted, IHooks, QuestionKind, RequestView, UploadView
from resumable.model.keys import MAX_KEY, safe_segment
from resumable.networks import client_of
from resumable.protocol import metadata
from resumable.protocol.errors import Refused, Unavailable
from resumable.protocol.fields import LARGEST
from resumable.protocol.names import valid_id

SHORTEST = 256
"""Bytes of a refusal's text, at least."""

TEXT = "text/plain; charset=utf-8"
MAX_BODY = 64 << 10
MAX_HEADERS = 32
MAX_HEADER_BYTES = 8 << 10
MAX_REMOTES = 16
REFUSED = 403

FOLDERS = (
    "an upload's id has no folders here: leave it out, or give one of 16 to 128 letters, digits, _ and -, and give the"
    " path as key (in tusd's format: ChangeFileInfo.Storage.Path), which names the object and, with --place, the file"
)

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")
_REMOTE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OURS = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "content-length", "content-encoding", "content-range"}
    | {"date", "server", "location", "host", "expect", "allow"}
)
_OUR_PREFIXES = ("upload-", "tus-", "access-control-")


@frozen
class Guard:
    """A hook that is asked ``kinds`` of questions. ``name``: in logs and metrics. ``target``: its kind and place, for
    logs.

    ``places``: how many questions may be under way at once; None: any number."""

    name: str
    hook: IGuard
    kinds: frozenset[QuestionKind] = frozenset(QuestionKind)
    target: str = ""
    places: int | None = None


@frozen
class Patience:
    """``within``: seconds that one guard gets, its repetitions included. ``retry_after``: seconds after which clients
    may come again when one has failed."""

    within: float = 10.0
    retry_after: int = 5


@implementer(IHooks)
class Guards:
    """All of them, in order. ``new_id`` gives ids for questions. ``remotes``: the names that a guard may choose from;
    None for any."""

    def __init__(
        self,
        guards: Sequence[Guard],
        *,
        clock: IReactorTime,
        wall: Callable[[], float],
        new_id: Callable[[], str],
        patience: Patience | None = None,
        remotes: Collection[str] | None = None,
        count: Count = count_nothing,
    ) -> None:
        self._guards = tuple(guards)
        self._wall = wall
        self._new_id = new_id
        self._patience = patience or Patience()
        self._remotes = remotes
        self._asked = frozenset[QuestionKind]().union(*(guard.kinds for guard in guards))
        self._places = {guard.name: Places(guard.places) for guard in guards if guard.places is not None}
        within = self._patience.within
        self._calls = {
            guard.name: HookCalls(guard.name, guard.target, clock=clock, timeout=within, count=count)
            for guard in guards
        }

    def asks(self, kind: QuestionKind) -> bool:
        """See `IHooks.asks`."""
        return kind in self._asked

    @deferred
    async def before(self, kind: QuestionKind, upload: UploadView, request: RequestView | None = None) -> Granted:
        """See `IHooks.before`."""
        changes, answer = Changes(), Answer()
        for guard in self._guards:
            if kind in guard.kinds:
                allowed = await self._ask(guard, Question(self._new_id(), kind, self._wall(), upload, request))
                upload = changed(upload, allowed.changes)
                changes = merged_changes(changes, allowed.changes)
                answer = merged_answers(answer, allowed.answer)
        return Granted(changes, answer, None if changes.metadata is None else upload.raw_metadata)

    async def _ask(self, guard: Guard, question: Question) -> Allow:
        def checked(said: object) -> Verdict:
            return check(said, question.kind, self._remotes)

        try:
            verdict = await self._calls[guard.name].call_and_log(partial(self._in_turn, guard), question, checked)
        except CancelledError:
            raise
        except Exception as error:
            raise Unavailable(
                "The server can't decide at the moment whether to allow this.", self._patience.retry_after
            ) from error
        if isinstance(verdict, Refuse):
            raise refused(verdict)
        return verdict

    async def _in_turn(self, guard: Guard, question: Question) -> object:
        """The guard's answer, once there is a place for the question."""
        places = self._places.get(guard.name)
        if places is None:
            return await maybeDeferred(guard.hook.ask, question)
        owner = client_of("" if question.request is None else question.request.address)
        await places.take(owner)
        try:
            return await maybeDeferred(guard.hook.ask, question)
        finally:
            places.give_back(owner)


def refused(verdict: Refuse) -> Refused:
    """The answer to the client for a checked refusal.

    A body without a type is text. Text gets blanks at its end: some clients can't take an error's body of less than
    `SHORTEST` bytes, unless it is empty.
    """
    answer = verdict.answer
    status = REFUSED if answer.status is None else answer.status
    if not answer.body:
        return Refused(status, answer.headers)
    media_type = {name.lower(): value for name, value in answer.headers.items()}.get("content-type")
    headers = dict(answer.headers) if media_type else {**answer.headers, "Content-Type": TEXT}
    is_text = (media_type or TEXT).startswith(("text/", "application/json", "application/problem+json"))
    return Refused(status, headers, answer.body.ljust(SHORTEST) if is_text else answer.body)


def changed(upload: UploadView, changes: Changes) -> UploadView:
    """The upload as it will be."""
    if changes.id is not None:
        upload = evolve(upload, id=changes.id)
    if changes.metadata is not None:
        upload = evolve(upload, metadata=changes.metadata, raw_metadata=encoded_metadata(changes.metadata))
    return upload


def merged_changes(first: Changes, second: Changes) -> Changes:
    """The later one wins; but the smaller of two limits."""
    own: dict[str, Any] = asdict(second, recurse=False, filter=lambda _, value: value is not None)
    limits = [each.max_size for each in (first, second) if each.max_size is not None]
    return evolve(first, **{**own, "max_size": min(limits, default=None)})


def merged_answers(first: Answer, second: Answer) -> Answer:
    """The later one wins, header by header."""
    theirs = {name.lower() for name in second.headers}
    headers = {name: value for name, value in first.headers.items() if name.lower() not in theirs}
    status = first.status if second.status is None else second.status
    return Answer(status, {**headers, **second.headers}, second.body or first.body)


def is_ours(name: str) -> bool:
    """Whether a header field belongs to framing or to the protocols, so that no hook may set it."""
    return name.lower() in _OURS or name.lower().startswith(_OUR_PREFIXES)


def can_be_sent(name: str, value: str) -> bool:
    """Whether a hook may have such a header field sent to a client."""
    return bool(_TOKEN.fullmatch(name) and _VALUE.fullmatch(value)) and not is_ours(name)


def check(verdict: object, kind: QuestionKind, remotes: Collection[str] | None = None) -> Verdict:
    """The verdict, if it is one for such a question; ``remotes``: the names that there are. Raises BadVerdict."""
    if isinstance(verdict, Refuse):
        return evolve(verdict, answer=_checked(verdict.answer, 400, 599))
    if not isinstance(verdict, Allow):
        raise BadVerdict("the answer is neither yes nor no")
    if kind is not QuestionKind.CREATE and verdict.changes != Changes():
        raise BadVerdict(f"nothing can be changed {kind.value}")
    _check_changes(verdict.changes, remotes)
    return evolve(verdict, answer=_checked(verdict.answer, 200, 299))


def check_stop(said: object) -> Refuse | None:
    """A watcher's answer, if it may give that. Raises BadVerdict."""
    if said is None:
        return None
    if not isinstance(said, Refuse):
        raise BadVerdict("the answer is neither a stop nor none")
    return evolve(said, answer=_checked(said.answer, 400, 599))


def _checked(answer: object, low: int, high: int) -> Answer:
    if not isinstance(answer, Answer):
        raise BadVerdict("the response is none")
    status = answer.status
    if status is not None and (type(status) is not int or not low <= status <= high):
        raise BadVerdict(f"the response's status is not one from {low} to {high}")
    if not isinstance(answer.body, bytes) or len(answer.body) > MAX_BODY:
        raise BadVerdict(f"the response's body is more than {MAX_BODY} bytes")
    if len(answer.headers) > MAX_HEADERS:
        raise BadVerdict(f"the response has more than {MAX_HEADERS} headers")
    room = MAX_HEADER_BYTES
    for name, value in answer.headers.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name) or is_ours(name):
            raise BadVerdict(f"the response may not set the header {shown(name)}")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise BadVerdict(f"the response's header {name} has a value that can't be sent")
        room -= len(name) + len(value)
    if room < 0:
        raise BadVerdict(f"the response's headers are more than {MAX_HEADER_BYTES} bytes")
    return answer


def _check_changes(changes: Changes, remotes: Collection[str] | None) -> None:
    if isinstance(changes.id, str) and "/" in changes.id:
        raise BadVerdict(FOLDERS)
    if changes.id is not None and not (isinstance(changes.id, str) and valid_id(changes.id)):
        raise BadVerdict(f"{shown(changes.id)} is no id: 16 to 128 letters, digits, _ and -")
    if changes.key is not None and not safe_key(changes.key):
        raise BadVerdict(f"{shown(changes.key)} is no key for a remote")
    if changes.max_size is not None and not (type(changes.max_size) is int and 0 <= changes.max_size <= LARGEST):
        raise BadVerdict("max_size is not a number of bytes")
    if changes.metadata is not None:
        encoded_metadata(changes.metadata)
    if changes.remotes is not None:
        _check_remotes(changes.remotes, remotes)


def encoded_metadata(pairs: Mapping[str, bytes]) -> str:
    """The Upload-Metadata for these pairs, as a client could have sent it. Raises BadVerdict."""
    try:
        header = metadata.encode(pairs)
    except (ValueError, AttributeError, TypeError) as error:
        raise BadVerdict("metadata has a key or a value that can't be sent") from error
    if len(header) > metadata.MAX_BYTES:
        raise BadVerdict(f"metadata is more than {metadata.MAX_BYTES} bytes")
    return header


def _check_remotes(names: object, known: Collection[str] | None) -> None:
    if not isinstance(names, tuple) or len(names) > MAX_REMOTES or len(set(names)) < len(names):
        raise BadVerdict("remotes is no list of different names")
    for name in names:
        if not isinstance(name, str) or not _REMOTE.fullmatch(name) or (known is not None and name not in known):
            raise BadVerdict(f"there is no remote {shown(name)}")


def safe_key(key: object) -> bool:
    """Whether it can be an object's key as it is: see `resumable.model.keys`."""
    if not isinstance(key, str) or any("\ud800" <= char <= "\udfff" for char in key):
        return False
    return 0 < len(key.encode()) <= MAX_KEY and all(safe_segment(part) == part != "" for part in key.split("/"))
