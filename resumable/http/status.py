"""An upload's status as JSON: for people and monitors, not for tus clients.

Reason to change: what the document looks like. Invariant: fields may be added, none changes its meaning; whoever isn't
an operator is told how far an upload is, and nothing of where its bytes go or what a store said: that has names of
buckets, accounts and keys in it. Times are RFC 3339 in UTC, sizes are bytes; what isn't known is null.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import asdict

from resumable.http import answers
from resumable.http.request import StreamingRequest
from resumable.model.upload import ReplicaState
from resumable.model.values import json_text
from resumable.uploads.status import ReplicaStatus, UploadStatus

_TIMES = ("created_at", "finished_at", "stored_at", "expires_at", "retry_at", "touched_at", "gone_at")
_FOR_OPERATORS = ("owner", "appending", "touched_at", "gone", "gone_at", "placed")
_REPLICA = ("required", "state", "sent", "confirmed", "lag", "stored_at")
"""What everybody may know of a remote's copy."""


def respond(request: StreamingRequest, status: UploadStatus, *, fully: bool = False) -> bytes:
    """Set the fields; answers the body. ``fully``: for an operator."""
    return answers.respond(request, full(status) if fully else document(status))


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
    """`document`, and what is for operators only."""
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
    return fields | {name: answers.written(fields[name]) for name in _TIMES if name in fields}
