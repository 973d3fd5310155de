"""Everything about one upload, as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from resumable.cli.texts import Document, number, plain, replicas_of, share, when
from resumable.doctor.findings import size_text


def whole(upload: Document, now: float) -> Iterator[str]:
    """A line for each thing. ``now``: seconds since the epoch."""
    length, durable = number(upload, "length"), number(upload, "durable") or 0
    size = "not known yet" if length is None else f"{size_text(length)} ({length} bytes)"
    facts: list[tuple[str, object]] = [
        ("id", upload.get("id")),
        ("state", upload.get("state")),
        ("gone", upload.get("gone")),
        ("owner", upload.get("owner")),
        ("protocol", upload.get("protocol")),
        ("size", size),
        ("durable", f"{size_text(durable)} ({durable} bytes), {share(durable, length)}"),
        ("local copy", None if upload.get("object") else upload.get("local")),
        ("spool", upload.get("object")),
        ("placed", upload.get("placed")),
        ("appending", "a request holds it" if upload.get("appending") else None),
    ]
    for name in ("created_at", "touched_at", "finished_at", "stored_at", "expires_at", "gone_at"):
        facts.append((name.removesuffix("_at"), when(upload.get(name), now)))
    metadata = upload.get("metadata")
    if isinstance(metadata, dict):
        facts += [(f"metadata {plain(key)}", value) for key, value in metadata.items()]
    for replica in replicas_of(upload):
        facts += _replica(replica, now)
    told = [(name, plain(value)) for name, value in facts if value is not None]
    width = max(len(name) for name, _ in told)
    yield from (f"{name.ljust(width)}  {value}" for name, value in told)


def _replica(replica: Document, now: float) -> list[tuple[str, object]]:
    name = f"remote {plain(replica.get('remote'))}"
    required = "" if replica.get("required") else ", best effort"
    confirmed = number(replica, "confirmed") or 0
    facts: list[tuple[str, object]] = [(name, f"{replica.get('state')}, {size_text(confirmed)} there{required}")]
    facts += [("  " + word, replica.get(word)) for word in ("key", "location", "error")]
    if number(replica, "attempts"):
        facts.append(("  failed tries", replica.get("attempts")))
    facts.append(("  next try", when(replica.get("retry_at"), now)))
    return facts
