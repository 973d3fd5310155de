"""JSON answers, and the fields of an upload's status in JSON: which everybody may see, and which only operators.

Invariants: no cache keeps such an answer, and no browser takes it for something else. Fields may be added, none changes
its meaning. Only operators are told where an upload's bytes go and what a store said: that has names of buckets,
accounts and keys in it. Times are RFC 3339 in UTC, sizes are bytes; a value that isn't known is null.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import asdict

from resumable.http.request import StreamingRequest
from resumable.model.upload import ReplicaState
from resumable.model.values import json_text, json_time
from resumable.uploads.status import ReplicaStatus, UploadStatus

_TIMES = ("created_at", "finished_at", "stored_at", "expires_at", "retry_at", "touched_at", "gone_at")
_FOR_OPERATORS = ("owner", "appending", "touched_at", "gone", "gone_at", "placed", "object")
_REPLICA = ("required", "state", "sent", "confirmed", "lag", "stored_at")
"""Fields of a remote's copy that everybody may see."""


def respond(request: StreamingRequest, document: object) -> bytes:
    """Set status 200 and the fields; answers the body. ``document``: what JSON can say, or bytes that are JSON."""
    body = document if isinstance(document, bytes) else json.dumps(document, indent=2).encode() + b"\n"
    request.setResponseCode(200)
    request.set_field(b"content-type", b"application/json")
    request.set_field(b"content-length", b"%d" % len(body))
    request.set_field(b"cache-control", b"no-store")
    request.set_field(b"x-content-type-options", b"nosniff")
    return body


def page(name: str, lines: Sequence[bytes], following: str | None) -> bytes:
    """A page of documents, each of them JSON already, in a line of its own. ``following``: goes into ``after``."""
    whole = b'{"%s": [\n%s\n], "next": %s}\n'
    return whole % (name.encode(), b",\n".join(lines), json.dumps(following).encode())


def written(seconds: float | None) -> str | None:
    """A time since the epoch, or None."""
    return None if seconds is None else json_time(seconds)


def document(status: UploadStatus) -> dict[str, Any]:
    """The status as what JSON can say. Metadata that is no UTF-8 stays in Base64, and is marked as such."""
    shown = full(status)
    for name in _FOR_OPERATORS:
        del shown[name]
    shown["replicas"] = [_coarse(each) for each in status.replicas]
    return shown


def _coarse(replica: ReplicaStatus) -> dict[str, Any]:
    """``trouble``: ``failed``: it is up to the operator now; ``retrying``: the last try was in vain."""
    trouble = "failed" if replica.state is ReplicaState.PARKED else "retrying" if replica.error is not None else None
    shown = _flat(replica)
    return {**{name: shown[name] for name in _REPLICA}, "trouble": trouble}


def line(status: UploadStatus) -> bytes:
    """`full`, encoded."""
    return json.dumps(full(status)).encode()


def full(status: UploadStatus) -> dict[str, Any]:
    """`document`, with the fields for operators only."""
    return {
        **_flat(status),
        "metadata": {key: json_text(value) for key, value in status.metadata.items()},
        "local": _local(status),
        "gone": None if status.gone is None else status.gone.value,
        "replicas": [_flat(each) for each in status.replicas],
    }


def _local(status: UploadStatus) -> str | None:
    if status.gone is not None:
        return None
    return "here" if status.local else "placed" if status.placed else "dropped"


def _flat(value: UploadStatus | ReplicaStatus) -> dict[str, Any]:
    fields: dict[str, Any] = asdict(value, recurse=False) | {"state": value.state.value}
    return fields | {name: written(fields[name]) for name in _TIMES if name in fields}
