"""The commands of `resumable` that talk to a daemon, and uploads as text for people.

Invariants: each command returns the exit status. The answer goes to standard output, everything else to standard error.
Text that a client has chosen (names, metadata) can't move the cursor or colour the terminal.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from resumable.cli.admin_client import AdminClient, DaemonRefused, Document, NotAllowed
from resumable.doctor.findings import age_text, size_text

Command = Callable[[AdminClient, Namespace], int]
ENOUGH: Final = 100
_METHODS: Final = {"on": "PUT", "off": "DELETE", "status": "GET"}

HEADINGS = ("ID", "STATE", "SIZE", "DONE", "IDLE", "REMOTES", "OWNER", "NAME")
LONGEST = 60
_GAP = "  "


def ls(asking: AdminClient, given: Namespace) -> int:
    """List uploads, page by page."""
    now = time.time()
    table = Table(now)
    for page in asking.uploads(filters(given, now), None if given.all else given.limit):
        if not page:
            sys.stderr.write(f"resumable: these are {given.limit}; for more: --limit or --all\n")
            break
        for line in map(json.dumps, page) if given.json else table.lines(page):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def filters(given: Namespace, now: float) -> dict[str, str]:
    """The query for the API. Times are this machine's."""
    wanted = {"state": given.state, "owner": given.owner, "remote": given.remote}
    found = {name: value for name, value in wanted.items() if value is not None}
    if given.parked:
        found["replica"] = "parked"
    if given.older_than is not None:
        found["created_before"] = _written(now - given.older_than)
    if given.idle is not None:
        found["idle_since"] = _written(now - given.idle)
    if given.min_size is not None:
        found["min_size"] = str(given.min_size)
    if given.newest:
        found["order"] = "newest"
    return found


def show(asking: AdminClient, given: Namespace) -> int:
    """Show one upload in full."""
    upload = asking.upload(given.id)
    lines = [json.dumps(upload, indent=2)] if given.json else whole(upload, time.time())
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def retry(asking: AdminClient, given: Namespace) -> int:
    """Try parked replicas again: of the named uploads, or all of a remote."""
    if given.all:
        count, more = asking.retry_all(given.remote)
        told = {"restarted": count, "more": more}
        return _tell(told, given, "{restarted} replicas are tried again" + ("; ask again for the rest" if more else ""))

    def one(upload_id: str) -> None:
        count = asking.retry(upload_id, given.remote)
        if not count:
            raise DaemonRefused("nothing of it is parked")
        told = {"id": upload_id, "restarted": count}
        _tell(told, given, "{id}: {restarted} tried again")

    return _each(given.ids, one)


def rm(asking: AdminClient, given: Namespace) -> int:
    """End uploads, and remove their bytes."""
    if sys.stdin is not None and sys.stdin.isatty() and not given.yes and not _agreed(given.ids):
        sys.stderr.write("resumable: nothing was removed\n")
        return 1

    def one(upload_id: str) -> None:
        asking.remove(upload_id)
        _tell({"id": upload_id, "removed": True}, given, "{id}: removed")

    return _each(given.ids, one)


def replay(asking: AdminClient, given: Namespace) -> int:
    """Deliver the dead events of a hook again."""
    return _tell({"replayed": asking.replay(given.hook)}, given, "{replayed} events are sent again")


def drain(asking: AdminClient, given: Namespace) -> int:
    """Stop or allow the creation of uploads, or show how many are unfinished."""
    found = asking.drain(_METHODS[given.what])
    replicas = found.get("replicas")
    waiting = [f"{each}: {count}" for each, count in replicas.items()] if isinstance(replicas, dict) else []
    since = f"draining since {found.get('since')}" if found.get("draining") else "not draining"
    text = f"{since}; {found.get('unfinished')} unfinished, {found.get('appending')} appending"
    behind = f"; replicas that are not there yet: {', '.join(waiting)}" if waiting else ""
    if given.json:
        return _tell(found, given, "")
    sys.stdout.write(plain(text + behind) + "\n")
    return 0


def _each(ids: list[str], one: Callable[[str], None]) -> int:
    """Do it for each upload, also after one was refused."""
    status = 0
    for upload_id in ids:
        try:
            one(upload_id)
        except NotAllowed:
            raise
        except DaemonRefused as refused:
            sys.stderr.write(f"resumable: {plain(upload_id)}: {plain(refused)}\n")
            status = 1
    return status


def _agreed(ids: list[str]) -> bool:
    named = ", ".join(plain(each) for each in ids[:3]) + (", ..." if len(ids) > 3 else "")
    sys.stderr.write(f"Remove {len(ids)} {'upload' if len(ids) == 1 else 'uploads'} for good ({named})? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tell(found: Document, given: Namespace, text: str) -> int:
    told = json.dumps(found) if given.json else plain(text.format(**found))
    sys.stdout.write(told + "\n")
    sys.stdout.flush()
    return 0


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(max(0.0, seconds), UTC).isoformat().replace("+00:00", "Z")


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
        ("protocol", upload.get("protocol")),
        ("size", size),
        ("durable", f"{size_text(durable)} ({durable} bytes), {_share(durable, length)}"),
        ("local copy", None if upload.get("object") else upload.get("local")),
        ("spool", upload.get("object")),
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
