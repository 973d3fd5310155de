"""Uploads as text for people.

Invariant: text that a client has chosen (names, metadata) can't move the cursor or colour the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from resumable.client.admin_client import Document
from resumable.doctor.findings import age_text, size_text

HEADINGS = ("ID", "STATE", "SIZE", "DONE", "IDLE", "REMOTES", "OWNER", "NAME")
LONGEST = 60
_GAP = "  "


def plain(value: object) -> str:
    """A value's text, without characters that a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


class Table:
    """Rows under each other, page by page: a column gets wider with the pages, never narrower."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._widths = [0] * len(HEADINGS)

    def lines(self, page: Sequence[Document]) -> Iterator[str]:
        """The lines of one page; the first page has the headings."""
        rows = [self._row(upload) for upload in page]
        if not any(self._widths):
            rows.insert(0, HEADINGS)
        self._widths = [max(width, *map(len, column)) for width, *column in zip(self._widths, *rows, strict=True)]
        for row in rows:
            yield _GAP.join(cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)).rstrip()

    def _row(self, upload: Document) -> tuple[str, ...]:
        length, offset = _number(upload, "length"), _number(upload, "offset") or 0
        return (
            plain(upload.get("id")),
            plain(upload.get("state")) + ("*" if upload.get("appending") is True else ""),
            "?" if length is None else size_text(length),
            _share(offset, length),
            _since(upload.get("touched_at"), self._now),
            ",".join(_remote(each) for each in _replicas(upload)) or "-",
            _short(upload.get("owner") or "-"),
            _short(_name(upload) or "-"),
        )


def whole(upload: Document, now: float) -> Iterator[str]:
    """Everything about one upload, a line for each thing."""
    length, durable = _number(upload, "length"), _number(upload, "durable") or 0
    size = "not known yet" if length is None else f"{size_text(length)} ({length} bytes)"
    facts: list[tuple[str, object]] = [
        ("id", upload.get("id")),
        ("state", upload.get("state")),
        ("gone", upload.get("gone")),
        ("owner", upload.get("owner")),
        ("size", size),
        ("durable", f"{size_text(durable)} ({durable} bytes), {_share(durable, length)}"),
        ("local copy", upload.get("local")),
        ("placed", upload.get("placed")),
        ("appending", "a request holds it" if upload.get("appending") else None),
    ]
    for name in ("created_at", "touched_at", "finished_at", "stored_at", "expires_at", "gone_at"):
        facts.append((name.removesuffix("_at"), _when(upload.get(name), now)))
    metadata = upload.get("metadata")
    if isinstance(metadata, dict):
        facts += [(f"metadata {plain(key)}", value) for key, value in metadata.items()]
    for replica in _replicas(upload):
        facts += _replica(replica, now)
    told = [(name, plain(value)) for name, value in facts if value is not None]
    width = max(len(name) for name, _ in told)
    yield from (f"{name.ljust(width)}  {value}" for name, value in told)


def _replica(replica: Document, now: float) -> list[tuple[str, object]]:
    name = f"remote {plain(replica.get('remote'))}"
    required = "" if replica.get("required") else ", best effort"
    confirmed = _number(replica, "confirmed") or 0
    facts: list[tuple[str, object]] = [(name, f"{replica.get('state')}, {size_text(confirmed)} there{required}")]
    facts += [("  " + word, replica.get(word)) for word in ("key", "location", "error")]
    if _number(replica, "attempts"):
        facts.append(("  failed tries", replica.get("attempts")))
    facts.append(("  next try", _when(replica.get("retry_at"), now)))
    return facts


def _replicas(upload: Document) -> list[Document]:
    found = upload.get("replicas")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _remote(replica: Document) -> str:
    return f"{_short(replica.get('remote'))}:{plain(replica.get('state'))}"


def _name(upload: Document) -> object:
    metadata = upload.get("metadata")
    if not isinstance(metadata, dict):
        return None
    name = metadata.get("filename") or metadata.get("name")
    return name if isinstance(name, str) else None


def _number(document: Document, name: str) -> int | None:
    value: Any = document.get(name)
    return value if isinstance(value, int) else None


def _share(offset: int, length: int | None) -> str:
    if length is None:
        return size_text(offset)
    return "100%" if offset >= length else f"{offset * 100 // length}%"


def _short(value: object) -> str:
    text = plain(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _seconds(value: object) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except ValueError:
        return None


def _since(value: object, now: float) -> str:
    at = _seconds(value)
    return "?" if at is None else age_text(max(0.0, now - at))


def _when(value: object, now: float) -> str | None:
    at = _seconds(value)
    if at is None:
        return None
    away = f"in {age_text(at - now)}" if at > now else f"{age_text(now - at)} ago"
    return f"{plain(value)} ({away})"
