"""Events, questions and answers as JSON: our own format.

One reason to change: the format, which docs/hooks.md promises. Pure.

Invariant: an event gives the same document each time it is delivered, to the byte. What `parse` makes of an answer has
still to be checked. Spec: CloudEvents 1.0.2, structured mode, https://github.com/cloudevents/spec; RFC 3339 for times.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from attrs import fields

from resumable.hooks.interfaces import Allow, Event, Question, Refuse, Verdict
from resumable.hooks.verdicts import BadVerdict, as_bytes, loads, shown, text_pairs
from resumable.model.hooks import Answer, Changes, RequestView, UploadView
from resumable.model.values import json_time

CONTENT_TYPE = "application/cloudevents+json"
PREFIX = "resumable.upload."
"""What types of events begin with; a name of the project's, no domain of somebody's."""


def document(message: Event | Question, source: str) -> dict[str, Any]:
    """The CloudEvent, in JSON's types. ``source``: which daemon it is, a URI reference."""
    data: dict[str, object] = {"upload": _upload(message.upload)}
    if message.request is not None:
        data["request"] = _request(message.request)
    if isinstance(message, Event) and message.details:
        data["details"] = dict(message.details)
    return {
        "specversion": "1.0",
        "id": message.id,
        "source": source,
        "type": PREFIX + message.kind.value,
        "subject": message.upload.id,
        "time": json_time(message.at),
        "datacontenttype": "application/json",
        "data": data,
    }


def dumps(found: Mapping[str, object]) -> bytes:
    """Compact JSON in ASCII."""
    return json.dumps(found, separators=(",", ":")).encode()


def texts(pairs: Mapping[str, bytes]) -> dict[str, str]:
    """Metadata as JSON's strings; what is no UTF-8 shows as U+FFFD."""
    return {key: value.decode("utf-8", "replace") for key, value in pairs.items()}


def _upload(upload: UploadView) -> dict[str, object]:
    return {
        "id": upload.id,
        "length": upload.length,
        "offset": upload.offset,
        "metadata": texts(upload.metadata),
        "raw_metadata": upload.raw_metadata,
        "partial": upload.partial,
        "partials": list(upload.partials),
        "identity": upload.identity,
    }


def _request(request: RequestView) -> dict[str, object]:
    headers = {name: list(values) for name, values in request.headers.items()}
    address, name = request.address, request.id
    return {"id": name, "method": request.method, "uri": request.uri, "address": address, "headers": headers}


def parse(data: bytes) -> Verdict:
    """Our own format, docs/hooks.md: ``{"allow": true, "change": {...}, "response": {...}}``.

    It has still to be checked. Raises BadVerdict.
    """
    said = loads(data)
    _only(said, {"allow", "change", "response"}, "the answer")
    answer = _answer(said.get("response"))
    if said.get("allow") is False and "change" not in said:
        return Refuse(answer)
    if said.get("allow") is not True:
        raise BadVerdict("the answer has no allow that is true or false")
    return Allow(_changes(said.get("change")), answer)


def parse_stop(data: bytes) -> Refuse | None:
    """The answer to a progress event: ``{"stop": true, "response": {...}}``, or nothing. Raises BadVerdict."""
    if not data.strip():
        return None
    said = loads(data)
    return Refuse(_answer(said.get("response"))) if said.get("stop") is True else None


def _only(found: Mapping[str, object], known: Collection[str], where: str) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise BadVerdict(f"{where} has a member that is not known here: {shown(unknown[0])}")


def _object(found: object, known: Collection[str], where: str) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadVerdict(f"{where} is not a JSON object")
    _only(found, known, where)
    return found


def _answer(found: object) -> Answer:
    said = _object(found, {"status", "headers", "body"}, "response")
    headers = said.get("headers") or {}
    body = said.get("body", "")
    if not isinstance(headers, dict) or not isinstance(body, str):
        raise BadVerdict("response has headers or a body of another type")
    return Answer(said.get("status"), headers, as_bytes(body))


def _changes(found: object) -> Changes:
    said = _object(found, {each.name for each in fields(Changes)}, "change")
    pairs, remotes = said.get("metadata"), said.get("remotes")
    if remotes is not None:
        if not isinstance(remotes, list) or not all(isinstance(name, str) for name in remotes):
            raise BadVerdict("remotes is no list of names")
        remotes = tuple(remotes)
    if pairs is not None:
        pairs = text_pairs(pairs)
    return Changes(said.get("id"), pairs, said.get("key"), remotes, said.get("max_size"))
