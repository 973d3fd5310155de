"""The journal of a remote's backend, in the catalog.

Invariant: each value that is remembered is the catalog's; after a change that may or may not have landed, none is.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from resumable.model.replica import IReplicas
from resumable.remotes.interfaces import IPartJournal

KEPT = 4096
"""Values that are remembered, so that loading a value that was just saved costs nothing."""


@implementer(IPartJournal)
class CatalogJournal:
    """The journal of the remote with this name. Fails with CatalogUnavailable.

    Each value goes through JSON, so that nobody shares one with the journal. ``kept``: values that are remembered.
    """

    def __init__(self, replicas: IReplicas, remote: str, kept: int = KEPT) -> None:
        self._replicas = replicas
        self._remote = remote
        self._limit = kept
        self._kept: OrderedDict[str, str] = OrderedDict()
        self._saving: dict[str, int] = {}

    def load(self, upload_id: str) -> Deferred[dict[str, Any] | None]:
        """See IJournal."""
        text = self._kept.get(upload_id)
        if text is not None:
            self._kept.move_to_end(upload_id)
            return succeed(json.loads(text))
        return self._replicas.load_journal(upload_id, self._remote).addCallback(self._loaded, upload_id)

    def save(self, upload_id: str, value: Mapping[str, Any]) -> Deferred[None]:
        """See IJournal."""
        text = json.dumps(dict(value))
        self._kept.pop(upload_id, None)
        self._saving[upload_id] = self._saving.get(upload_id, 0) + 1
        saved = self._replicas.save_journal(upload_id, self._remote, json.loads(text))
        return saved.addBoth(self._saved, upload_id, text)

    def save_part(self, upload_id: str, number: int, value: str) -> Deferred[None]:
        """See IPartJournal."""
        return self._replicas.save_part(upload_id, self._remote, number, value)

    def load_parts(self, upload_id: str) -> Deferred[dict[int, str]]:
        """See IPartJournal."""
        return self._replicas.load_parts(upload_id, self._remote)

    def drop_parts(self, upload_id: str) -> Deferred[None]:
        """See IPartJournal."""
        return self._replicas.drop_parts(upload_id, self._remote)

    def forget(self, upload_id: str) -> None:
        """The catalog's value was changed with the replica's state: the one that is remembered may be older."""
        self._kept.pop(upload_id, None)

    def _loaded(self, value: dict[str, Any] | None, upload_id: str) -> dict[str, Any] | None:
        if value is not None and upload_id not in self._saving:
            self._keep(upload_id, json.dumps(value))
        return value

    def _saved(self, result: Failure | None, upload_id: str, text: str) -> Failure | None:
        left = self._saving.pop(upload_id) - 1
        if left:
            self._saving[upload_id] = left  # the last of them will be the one that counts
        elif isinstance(result, Failure):
            self._kept.pop(upload_id, None)
        else:
            self._keep(upload_id, text)
        return result

    def _keep(self, upload_id: str, text: str) -> None:
        self._kept[upload_id] = text
        self._kept.move_to_end(upload_id)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
