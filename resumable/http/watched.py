"""What can be watched: uploads as their clients and operators see them, lists of them, the daemon as a whole.

Invariants: a watcher is told what a request for JSON would be told, encoded once for all who see the same. Looking
never touches the hold. A list's first event is its page; then each row that has changed, or left the list, is told.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Final, TypeVar

from resumable.http import events, status
from resumable.http.admin import query
from resumable.http.admin.query import Wanted
from resumable.http.live import WatchedKind
from resumable.model.listing import UploadState
from resumable.model.upload import ReplicaState
from resumable.uploads.operators import Operators, StatusPage
from resumable.uploads.status import UploadStatus
from resumable.uploads.uploads import Uploads

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Shown = Callable[[UploadStatus], dict[str, Any]]
Page = StatusPage[UploadStatus]

_RESTLESS: Final = frozenset({"uptime"})
"""Fields that change with each look."""


def encoded(document: object) -> bytes:
    """In one line."""
    return json.dumps(document, separators=(",", ":")).encode()


def _last(state: UploadState | None) -> bytes:
    """Nothing more comes; ``state``: the upload's, None where nobody knows it any more."""
    return events.event(b"end", encoded({"state": (state or UploadState.GONE).value}), events.LAST)


def settled(upload: UploadStatus) -> bool:
    """Whether its client has nothing more to wait for: it is stored; or finished, where no remote has to have it and
    none is about to; or gone."""
    if upload.state is not UploadState.FINISHED:
        return upload.state in (UploadState.STORED, UploadState.GONE)
    return not any(each.required or each.state is ReplicaState.OPEN for each in upload.replicas)


def is_gone(upload: UploadStatus) -> bool:
    """Whether nothing but that is to be told of it."""
    return upload.gone is not None


class UploadTopic:
    """One upload. ``show``: its document. ``final``: whether it is told of for the last time."""

    def __init__(self, name: bytes, show: Shown, final: Callable[[UploadStatus], bool], first: UploadStatus) -> None:
        self._name, self._show, self._final = name, show, final
        self._found: UploadStatus | None = first
        self._set(first)

    def _set(self, found: UploadStatus | None) -> None:
        self.over = found is None or self._final(found)
        if found is not None:
            self._data = encoded(self._show(found))
            self._identity = events.identity_of(self._data)

    def update(self, found: UploadStatus | None) -> bytes | None:
        """See `Topic.update`."""
        if found == self._found:
            return None
        self._found = found
        self._set(found)
        return self.whole(b"")

    def whole(self, seen: bytes) -> bytes:
        """See `Topic.whole`."""
        state = None if self._found is None else self._found.state
        told = b""
        if self._found is not None and seen != self._identity and not self._hidden():
            told = events.event(self._name, self._data, self._identity)
        return told + (_last(state) if self.over else b"") or events.HEARTBEAT

    def _hidden(self) -> bool:
        """A client's request for an upload that is gone is refused, so that its document isn't shown."""
        return self._found is not None and self._found.gone is not None and self._show is status.document


class ListTopic:
    """A page of uploads, in the order that was asked for."""

    over = False

    def __init__(self, first: Page) -> None:
        self._page = first
        self._rows = {each.id: (each, encoded(status.full(each))) for each in first.shown}

    def update(self, found: Page | None) -> bytes | None:
        """See `Topic.update`."""
        assert found is not None, "a list may be empty, and is always there"
        before, self._page, rows, told = self._rows, found, {}, []
        for each in found.shown:
            known = before.get(each.id)
            if known is None or known[0] != each:
                known = (each, encoded(status.full(each)))
                told.append(events.event(b"upload", known[1]))
            rows[each.id] = known
        told += [events.event(b"gone", encoded({"id": each})) for each in before if each not in rows]
        self._rows = rows
        return b"".join(told) or None

    def whole(self, seen: bytes) -> bytes:
        """See `Topic.whole`."""
        rows = b",".join(line for _, line in self._rows.values())
        following = json.dumps(query.cursor(self._page.place)).encode()
        return events.event(b"uploads", b'{"uploads":[%b],"next":%b}' % (rows, following))


class DaemonTopic:
    """The daemon's status."""

    over = False

    def __init__(self, first: Mapping[str, Any]) -> None:
        self._document = first

    def update(self, found: Mapping[str, Any] | None) -> bytes | None:
        """See `Topic.update`."""
        assert found is not None, "the daemon is always there"
        before, self._document = self._document, found
        return None if _restful(before) == _restful(found) else self.whole(b"")

    def whole(self, seen: bytes) -> bytes:
        """See `Topic.whole`."""
        return events.event(b"status", encoded(self._document))


def _restful(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in _RESTLESS}


def client_statuses(uploads: Uploads, show: Shown) -> WatchedKind[str, UploadStatus]:
    """By their ids. A client has nothing to wait for once the upload is stored."""
    return WatchedKind(lambda ids: uploads.statuses(ids), lambda _, first: UploadTopic(b"status", show, settled, first))


def operator_statuses(operators: Operators) -> WatchedKind[str, UploadStatus]:
    """By their ids, until they are gone."""
    return WatchedKind(
        lambda ids: operators.statuses(ids), lambda _, first: UploadTopic(b"upload", status.full, is_gone, first)
    )


def lists(operators: Operators) -> WatchedKind[Wanted, Page]:
    """By what is wanted."""

    async def look(keys: Sequence[Wanted]) -> dict[Wanted, Page]:
        return {wanted: await page_of(operators, wanted) for wanted in keys}

    return WatchedKind(look, lambda _, first: ListTopic(first))


async def page_of(operators: Operators, wanted: Wanted) -> Page:
    """The page that is wanted."""
    return await operators.page(wanted.filter, wanted.place, wanted.limit, wanted.newest, lambda each: each)


def daemon(look: Callable[[], Awaitable[Mapping[str, Any]]]) -> WatchedKind[None, Mapping[str, Any]]:
    """The daemon's status, by None."""

    async def look_once(keys: Sequence[None]) -> dict[None, Mapping[str, Any]]:
        return {None: await look()}

    return WatchedKind(look_once, lambda _, first: DaemonTopic(first))
