"""The replicas of one remote that this process knows of.

One reason to change: what is remembered between turns, and how the lag follows from it. Invariant: so many are
remembered and no more; who is forgotten is read from the catalog again.
"""

from __future__ import annotations

from collections import OrderedDict

from resumable.model.upload import Replica, Upload
from resumable.replication.lag import Lag
from resumable.replication.settings import Means
from resumable.replication.standing import Standing, fresher

KNOWN = 4096
"""Replicas that need not be read from the catalog before their next turn."""


class Known:
    """``lag`` (None: nobody wants to know) is told of what was committed."""

    def __init__(self, remote: str, means: Means, lag: Lag | None) -> None:
        self._remote = remote
        self._replicas = means.replicas
        self._lag = lag
        self._standings: OrderedDict[str, Standing | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._standings)

    def get(self, upload_id: str) -> Standing | None:
        """None: nothing is known, or that it has no replica here."""
        return self._standings.get(upload_id)

    def lacks(self, upload_id: str) -> bool:
        """Whether it is known to have no replica here."""
        return upload_id in self._standings and self._standings[upload_id] is None

    def remember(self, upload_id: str, standing: Standing | None) -> None:
        """None: it has no replica here."""
        self._standings[upload_id] = standing
        self._standings.move_to_end(upload_id)
        if len(self._standings) > KNOWN:
            self._standings.popitem(last=False)

    def forget(self, upload_id: str, standing: Standing | None = None) -> None:
        """It no longer counts, nor what it lacks."""
        standing = self._standings.pop(upload_id, None) or standing
        if self._lag is not None and standing is not None and standing.counted is not None:
            self._lag.move(min(0, standing.confirmed - standing.counted))

    def read(self, replica: Replica, upload: Upload | None) -> Standing:
        """What the catalog has, while nothing is under way for it."""
        standing = self.get(replica.upload_id) or Standing(replica, replica)
        standing.replica = standing.saved = replica
        if upload is not None:
            self.committed(standing, upload)
        self.remember(replica.upload_id, standing)
        return standing

    async def ask(self, upload_id: str) -> Standing | None:
        """With its upload, from the catalog if need be; None: it has no replica here. Raises CatalogUnavailable."""
        standing = self.get(upload_id)
        if standing is not None and standing.upload is not None:
            return standing
        found = await self._replicas.get(upload_id, self._remote)
        if found is None:
            self.remember(upload_id, None)
            return None
        return self.read(*found)

    def committed(self, standing: Standing, upload: Upload) -> None:
        """What the upload has more than when it was last seen, the remote lacks."""
        if self._lag is not None and standing.counted is not None and upload.offset > standing.counted:
            self._lag.move(upload.offset - standing.counted)
        standing.counted = max(standing.counted or 0, upload.offset)
        standing.upload = fresher(standing.upload, upload)
