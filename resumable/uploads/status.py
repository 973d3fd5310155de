"""How far an upload is, in both tiers, as one value.

Reason to change: what is told of an upload's progress. Invariant: looking never touches the hold, so a monitor may look
as often as it likes. What comes out holds no secrets: errors are those of `IReplicas`, one line without any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from resumable.model.listing import State, state_of
from resumable.model.replica import Progress
from resumable.model.upload import Gone, Replica, ReplicaState, Upload
from resumable.protocol import metadata
from resumable.uploads.context import UploadContext, as_answer
from resumable.uploads.lookup import present


@frozen
class ReplicaStatus:
    """One remote's copy, in bytes. ``sent``: on their way or there; ``confirmed``: there; ``lag``: durable, but not
    there."""

    remote: str
    required: bool
    state: ReplicaState
    key: str | None
    sent: int
    confirmed: int
    lag: int
    attempts: int
    error: str | None
    retry_at: float | None
    location: str | None
    stored_at: float | None


@frozen
class UploadStatus:
    """One upload. ``received``: bytes that have come, durable or not; ``durable``: committed; ``offset``: what its
    client is told. ``local``: whether its data is still here, unless it is gone. ``placed``: its file's path below the
    place directory, None before it is there. ``metadata``: the client's, decoded. ``owner``: the identity that created
    it. ``appending``: whether a request holds it now. ``touched_at``: when that last moved it. ``gone``: why it is,
    where that is shown."""

    id: str
    state: State
    length: int | None
    received: int
    durable: int
    offset: int
    created_at: float
    finished_at: float | None
    stored_at: float | None
    expires_at: float | None
    metadata: Mapping[str, bytes]
    local: bool
    placed: str | None
    replicas: Sequence[ReplicaStatus]
    owner: str | None
    appending: bool
    touched_at: float
    gone: Gone | None
    gone_at: float | None


async def status_of(context: UploadContext, upload_id: str) -> UploadStatus:
    """The status of an upload that is there. Raises NotFound, Gone, Unavailable."""
    upload = await present(context, upload_id)
    try:
        replicas = [] if context.replicas is None else await context.replicas.of(upload_id)
    except Exception as error:
        raise as_answer(error, upload_id) from error
    return status_from(context, upload, replicas)


def status_from(context: UploadContext, upload: Upload, replicas: Sequence[Replica]) -> UploadStatus:
    """The status of what the catalog says of an upload, which may be gone."""
    progress = context.replication.progress(upload.id)
    return UploadStatus(
        id=upload.id,
        state=state_of(upload),
        length=upload.length,
        received=max(upload.offset, context.holds.received(upload.id) or 0),
        durable=upload.offset,
        offset=context.shown(upload).offset,
        created_at=upload.created_at,
        finished_at=upload.finished_at,
        stored_at=upload.stored_at,
        expires_at=context.expires_at(upload),
        metadata=metadata.parse(upload.metadata or ""),
        local=upload.dropped_at is None,
        placed=upload.place.path if upload.place is not None and upload.placed else None,
        replicas=[_replica(each, upload, progress.get(each.remote)) for each in replicas],
        owner=upload.owner,
        appending=context.holds.held(upload.id),
        touched_at=upload.touched_at,
        gone=upload.gone,
        gone_at=upload.gone_at,
    )


def _replica(replica: Replica, upload: Upload, progress: Progress | None) -> ReplicaStatus:
    confirmed = replica.confirmed if progress is None else max(replica.confirmed, progress.confirmed)
    location = (replica.stored or {}).get("location")
    return ReplicaStatus(
        remote=replica.remote,
        required=replica.required,
        state=replica.state,
        key=replica.key,
        sent=confirmed if progress is None else max(confirmed, progress.sent),
        confirmed=confirmed,
        lag=max(0, upload.offset - confirmed),
        attempts=replica.attempts,
        error=replica.error,
        retry_at=replica.retry_at,
        location=None if location is None else str(location),
        stored_at=replica.stored_at,
    )
