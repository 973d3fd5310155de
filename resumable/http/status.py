"""An upload's status as JSON: for people and monitors, not for tus clients.

Reason to change: what the document looks like. Invariant: fields may be added, none changes its meaning. Times are
RFC 3339 in UTC, sizes are bytes; what isn't known is null.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

from attrs import asdict

from resumable.http.streaming import StreamingRequest
from resumable.uploads.status import ReplicaStatus, UploadStatus

_TIMES = ("created_at", "finished_at", "stored_at", "expires_at", "retry_at")


def respond(request: StreamingRequest, status: UploadStatus) -> bytes:
    """Set the fields; answers the body."""
    body = json.dumps(document(status), indent=2).encode() + b"\n"
    request.setResponseCode(200)
    request.set_field(b"content-type", b"application/json")
    request.set_field(b"content-length", b"%d" % len(body))
    request.set_field(b"cache-control", b"no-store")
    request.set_field(b"x-content-type-options", b"nosniff")
    return body


def document(status: UploadStatus) -> dict[str, Any]:
    """The status as what JSON can say. Metadata that is no UTF-8 stays in Base64, and is marked as such."""
    return {
        **_flat(status),
        "metadata": {key: _text(value) for key, value in status.metadata.items()},
        "local": "here" if status.local else "dropped",
        "replicas": [_flat(each) for each in status.replicas],
    }


def _flat(value: UploadStatus | ReplicaStatus) -> dict[str, Any]:
    fields: dict[str, Any] = asdict(value, recurse=False) | {"state": value.state.value}
    return fields | {name: _time(fields[name]) for name in _TIMES if name in fields}


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}
