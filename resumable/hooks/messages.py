"""Events, questions and answers in our own format: JSON, signed.

Pure. Invariants: an event gives the same document each time it is delivered, to the byte. A result of `parse` has still
to be checked. A secret never shows in a message or a repr.
Spec: docs/hooks.md promises the format; CloudEvents 1.0.2, structured mode, https://github.com/cloudevents/spec;
RFC 3339 for times; https://github.com/standard-webhooks/standard-webhooks (spec/standard-webhooks.md, "Signature
scheme", symmetric): HMAC-SHA256 over ``id.timestamp.body``, one signature for each secret, so that a receiver can
change from one secret to the next.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any

from attrs import fields

from resumable.hooks.interfaces import Allow, BadVerdict, Event, Question, Refuse, Verdict
from resumable.model.hooks import Answer, Changes, RequestView, UploadView
from resumable.model.values import json_time

CONTENT_TYPE = "application/cloudevents+json"
PREFIX = "resumable.upload."
"""The beginning of each event's type; a name of the project's, nobody's domain."""

SECRET_PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a secret, as the specification has them."""


def document(message: Event | Question, source: str) -> dict[str, Any]:
    """The CloudEvent, in JSON's types. ``source``: the daemon, as a URI reference."""
    data: dict[str, object] = {"upload": _upload(message.upload)}
    if message.request is not None:
        data["request"] = _request(message.request)
    if isinstance(message, Event) and message.details:
        data["details"] = dict(message.details)
    found: dict[str, Any] = {
        "specversion": "1.0",
        "id": message.id,
        "source": source,
        "type": PREFIX + message.kind.value,
        "subject": message.upload.id,
        "time": json_time(message.at),
    }
    if isinstance(message, Event) and message.sequence is not None:
        found["sequence"] = sequence_of(message.sequence)
    return {**found, "datacontenttype": "application/json", "data": data}


def sequence_of(number: int) -> str:
    """As CloudEvents' extension ``sequence`` has it: text whose order is the order of the numbers.

    https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/sequence.md"""
    return f"{number:019d}"


def dumps(found: Mapping[str, object]) -> bytes:
    """Compact JSON in ASCII."""
    return json.dumps(found, separators=(",", ":")).encode()


def texts(pairs: Mapping[str, bytes]) -> dict[str, str]:
    """Metadata as JSON's strings; bytes that are no UTF-8 become U+FFFD."""
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
        "digest": upload.digest,
    }


def _request(request: RequestView) -> dict[str, object]:
    headers = {name: list(values) for name, values in request.headers.items()}
    return {
        "id": request.id,
        "method": request.method,
        "uri": request.uri,
        "address": request.address,
        "headers": headers,
        "protocol": request.protocol,
        "protocol_version": request.protocol_version,
    }


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


def shown(value: object) -> str:
    """A value that a hook gave, for a message: ASCII, quoted, short."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def loads(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises BadVerdict."""
    try:
        # too deep nesting ends in RecursionError; numbers of thousands of digits are a ValueError
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise BadVerdict("the answer is not JSON") from None
    if not isinstance(found, dict):
        raise BadVerdict("the answer is not a JSON object")
    return found


def text_pairs(found: object) -> dict[str, bytes]:
    """Metadata that came as JSON's strings. Raises BadVerdict."""
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise BadVerdict("metadata is no object of strings")
    return {key: as_bytes(value) for key, value in found.items()}


def as_bytes(text: str) -> bytes:
    """UTF-8. Raises BadVerdict for half a surrogate pair, which JSON can hold and UTF-8 can't."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadVerdict("a text in the answer is not Unicode") from None


def parse_secret(text: str) -> bytes:
    """The key in ``whsec_...`` (base64 of 24 to 64 bytes). Raises ValueError, which does not repeat it."""
    try:
        encoded = text.strip().removeprefix(SECRET_PREFIX)
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a secret is whsec_ and base64") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(f"a secret has {SHORTEST} to {LONGEST} bytes, in base64")
    return key


class WebhookSigner:
    """Signs with each of ``secrets``, the newest first; without any, nothing is signed."""

    def __init__(self, secrets: Sequence[bytes] = ()) -> None:
        self._secrets = tuple(secrets)

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """Header fields for the message. ``timestamp``: seconds since the epoch, when this attempt is made."""
        headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
        content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
        signatures = [base64.b64encode(hmac.digest(secret, content, sha256)).decode() for secret in self._secrets]
        if signatures:
            headers["webhook-signature"] = " ".join(f"v1,{signature}" for signature in signatures)
        return headers
