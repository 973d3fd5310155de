"""What a daemon is asked through a line, and what becomes of its answers.

Changes when the admin API (docs/api.md) does. Invariant: an answer that isn't understood is told of in one sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from resumable.client.line import Line, NoDaemon, Reply

LARGEST_PAGE: Final = 1000
#: Some ten thousand replicas each.
MOST_ROUNDS: Final = 100

Document = dict[str, Any]


class Refused(Exception):
    """The daemon won't, in its own words."""


class NotAllowed(Refused):
    """It won't for whoever asks."""


class Asking:
    """Every method raises Refused and NoDaemon."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def uploads(self, filters: Mapping[str, str], most: int | None) -> Iterator[list[Document]]:
        """Pages, until there are no more or ``most`` were told; a last empty one says that there are more."""
        left, query = most, dict(filters)
        while True:
            query["limit"] = str(LARGEST_PAGE if left is None else min(left, LARGEST_PAGE))
            page = self._document("GET", "/v1/uploads", query)
            found, place = page.get("uploads"), page.get("next")
            if not isinstance(found, list) or not isinstance(place, str | None):
                raise self._foreign()
            if found:
                yield found
            if place is None:
                return
            if left is not None:
                left -= len(found)
                if left <= 0:
                    yield []
                    return
            query["after"] = place

    def upload(self, upload_id: str) -> Document:
        return self._document("GET", f"/v1/uploads/{_segment(upload_id)}")

    def remove(self, upload_id: str) -> None:
        self._checked(self._line.ask("DELETE", f"/v1/uploads/{_segment(upload_id)}"))

    def retry(self, upload_id: str, remote: str | None) -> int:
        """How many replicas are tried again."""
        query = {} if remote is None else {"remote": remote}
        return self._count(self._document("POST", f"/v1/uploads/{_segment(upload_id)}/retry", query), "restarted")

    def retry_all(self, remote: str) -> tuple[int, bool]:
        """As `retry`, for everything that was parked for the remote; and whether there is more, as it may be parked
        again as soon as it was tried."""
        count, more = 0, True
        for _ in range(MOST_ROUNDS):
            done = self._document("POST", "/v1/retry", {"remote": remote})
            count += self._count(done, "restarted")
            more = done.get("more") is True
            if not more:
                break
        return count, more

    def replay(self, hook: str) -> int:
        """How many events are sent on their way again."""
        return self._count(self._document("POST", f"/v1/hooks/{_segment(hook)}/replay"), "replayed")

    def drain(self, method: str) -> Document:
        """GET looks, PUT begins, DELETE ends."""
        return self._document(method, "/v1/drain")

    def _document(self, method: str, path: str, query: Mapping[str, str] | None = None) -> Document:
        document = self._checked(self._line.ask(method, path, query)).document
        if not isinstance(document, dict):
            raise self._foreign()
        return document

    def _checked(self, reply: Reply) -> Reply:
        if 200 <= reply.status < 300:
            return reply
        if not isinstance(reply.document, dict) or not isinstance(reply.document.get("detail"), str):
            raise self._foreign(f" ({reply.status})")
        raise (NotAllowed if reply.status in (401, 403) else Refused)(reply.document["detail"])

    def _count(self, document: Document, name: str) -> int:
        count = document.get(name)
        if not isinstance(count, int):
            raise self._foreign()
        return count

    def _foreign(self, told: str = "") -> NoDaemon:
        return NoDaemon(f"what answers at {self._line.where} is no daemon of this release{told}")


def _segment(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")
