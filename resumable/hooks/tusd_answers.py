"""What a hook server made for tusd has answered.

One reason to change: tusd's hook responses. Pure. Invariants: nothing unknown is objected to, as Go's decoder doesn't,
and what of an answer to a client can't be passed on is left out; the rest counts. What can't be read is no yes, and a
client that is told of an error has been refused.
Source: tusd v2, docs/_advanced-topics/hooks.md, pkg/hooks/hooks.go, pkg/handler/http.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from posixpath import normpath
from typing import Any

from attrs import evolve

from resumable.hooks.interfaces import Allow, Refuse, Verdict
from resumable.hooks.verdicts import (
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    BadVerdict,
    as_bytes,
    can_be_sent,
    loads,
    shown,
    text_pairs,
)
from resumable.model.hooks import Answer, Changes, QuestionKind

REJECTED = {
    QuestionKind.CREATE: "upload has been rejected by server",
    QuestionKind.FINISH: "upload has been rejected by server",
    QuestionKind.TERMINATE: "upload termination has been rejected by server",
}
STOPPED = "upload has been stopped by server"


def _ignore(what: str) -> None: ...


def parse(data: bytes, kind: QuestionKind, left_out: Callable[[str], None] = _ignore) -> Verdict:
    """What a hook response says to that question; it has still to be checked. Raises BadVerdict.

    ``left_out`` is told what of its answer to the client can't be passed on.
    """
    said = _Go(loads(data))
    answer = _answer(said.object("HTTPResponse"), left_out)
    # tusd sends a hook's answer to the client whatever its status, and goes on: an error is a no
    no = said.flag("RejectTermination" if kind is QuestionKind.TERMINATE else "RejectUpload")
    if no or (answer.status or 0) >= 400:
        return Refuse(_rejecting(answer, REJECTED[kind], left_out))
    return Allow(_changes(said.object("ChangeFileInfo")) if kind is QuestionKind.CREATE else Changes(), answer)


def parse_stop(data: bytes, left_out: Callable[[str], None] = _ignore) -> Refuse | None:
    """What a hook response to post-receive says. Raises BadVerdict."""
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
    """Those that can be sent, with the blanks that Go would send."""
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
    """As tusd: what the hook leaves out comes from the error."""
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
