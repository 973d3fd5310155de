"""Finished files that have names of their own: the operator's rules for their places, the sidecars beside them, and the
files in the place directory.

Invariants: whatever a client sends, a path that is planned is relative, has no empty segment and none that begins with
a dot, no control or invisible character, and no name that exceeds `MAX_NAME` or is a sidecar's. Placing and removing
never meet: one waits for the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from resumable.aio.threads import IPool
from resumable.model import keys
from resumable.model.hooks import view
from resumable.model.upload import Place, Upload
from resumable.model.values import json_text, json_time
from resumable.spool.interfaces import ISpool
from resumable.spool.placing import SIDECAR, Collision, Order, PlaceDirectory, Rules, fitted
from resumable.spool.reader import Reader

log = Logger()
T = TypeVar("T")

#: The place directory, in the upload directory, where none is named; no upload's id is that short.
DIRECTORY = "finished"

_FLAGS = ("place", "place_dir", "place_collision", "place_file_mode", "place_dir_mode", "sidecar")


@frozen
class PlaceSettings:
    """``template`` None: files stay under their ids; files placed before are still found in ``directory``."""

    directory: Path
    template: keys.KeyTemplate | None = None
    rules: Rules = field(factory=Rules)
    sidecar: bool = False

    def planned(self, upload: Upload) -> Place | None:
        """Where an upload that is finished now is to go; None: nowhere else."""
        if self.template is None or upload.is_partial:
            return None
        shown = view(upload)
        path = self.template.render(upload.id, upload.finished_at or 0.0, shown.metadata, upload.owner or "")
        return _safe_place(path, upload.id)

    def chosen(self, upload: Upload, key: str) -> Place | None:
        """Where a new upload is to go for which a hook has chosen a key; None: nowhere else."""
        return None if self.template is None or upload.is_partial else _safe_place(key, upload.id)


def place_settings(found: dict[str, Any], upload_dir: Path) -> PlaceSettings:
    """Takes its options out of ``found``. Raises ValueError, in one line for the operator."""
    template, directory, collision, file_mode, directory_mode, sidecar = (found.pop(flag) for flag in _FLAGS)
    return PlaceSettings(
        directory or upload_dir / DIRECTORY,
        None if template is None else parse(template),
        Rules(Collision(collision), file_mode, directory_mode),
        sidecar,
    )


def parse(template: str) -> keys.KeyTemplate:
    """The template of a place. Raises BadTemplate, a ValueError."""
    parsed = keys.parse(template, what="--place", owner=True)
    if any(each.startswith(".") for each in template.split("/")):
        raise keys.BadTemplate("--place: no segment may begin with a dot")
    return parsed


def safe_name(name: str) -> str:
    """One segment of a rendered template as a file's name; empty when nothing is left."""
    name = fitted(name.lstrip(". "))
    if name.lower().endswith(SIDECAR):  # a sidecar's name is never a client's
        name = f"{name[: -len(SIDECAR)]}_{name[1 - len(SIDECAR) :]}"
    return name


def sidecar(upload: Upload, path: str) -> bytes:
    """An upload's record as JSON; ``path``: of its file, below the place directory."""
    said: dict[str, object] = {
        "id": upload.id,
        "path": path,
        "size": upload.offset,
        "metadata": {name: json_text(value) for name, value in view(upload).metadata.items()},
        "created_at": json_time(upload.created_at),
        "finished_at": json_time(upload.finished_at or upload.created_at),
    }
    if upload.digest is not None:
        said["digest"] = upload.digest
    if upload.owner is not None:
        said["owner"] = upload.owner
    if upload.partials:
        said["partials"] = list(upload.partials)
    return json.dumps(said, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n"


def _safe_place(path: str, upload_id: str) -> Place:
    return Place("/".join(safe_name(each) or upload_id for each in path.split("/")))


class PlacedFiles:
    """``pool``: its threads touch the directory."""

    def __init__(self, spool: ISpool, pool: IPool, settings: PlaceSettings) -> None:
        self._spool = spool
        self._pool = pool
        self._settings = settings
        self._lock = DeferredLock()

    @cached_property
    def _directory(self) -> PlaceDirectory:
        """Made when it is needed: a spool in a store has none."""
        return self._spool.places(str(self._settings.directory), self._settings.rules)

    @property
    def wanted(self) -> bool:
        """Whether finished files get places at all."""
        return self._settings.template is not None

    def ready(self, upload: Upload) -> bool:
        """Whether all is known of the upload that its place is to tell: a sidecar has the digest."""
        return upload.digest_due is None or not self._settings.sidecar

    def planned(self, upload: Upload) -> Place | None:
        """Where an upload is to go whose finish is about to be recorded; None: it stays under its id."""
        return self._settings.planned(upload)

    def chosen(self, upload: Upload, key: str) -> Place | None:
        """Where a new upload is to go for which a hook has chosen that key; None: as any other."""
        return self._settings.chosen(upload, key)

    async def reader(self, upload: Upload) -> Reader | None:
        """The placed file, open; None when it was moved, changed or removed. Raises OSError."""
        if upload.place is None or upload.place.stamp is None:
            return None
        fd = await self._pool.run(self._directory.open, upload.place, upload.offset)
        return None if fd is None else self._spool.opened(fd, upload.offset)

    def remove(self, uploads: Sequence[Upload]) -> Deferred[Mapping[str, OSError]]:
        """Remove the placed files of these, as far as they are still there and unchanged; answers why some can't be
        removed now, by id."""
        return self.alone(lambda: self.take_away(uploads))

    def alone(self, work: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        """Do this while nothing else is placed or removed."""
        return self._lock.run(lambda: Deferred.fromCoroutine(work()))

    async def place(self, uploads: Sequence[Upload]) -> Sequence[Place | OSError]:
        """Give each file its name: where each is now, or why it isn't there. Within `alone`."""
        return await self._pool.run(self._directory.place, [self._order(each) for each in uploads])

    async def take_away(self, uploads: Sequence[Upload]) -> Mapping[str, OSError]:
        """As `remove`, within `alone`."""
        stuck: dict[str, OSError] = {}
        for upload in uploads:
            if upload.place is None:
                continue
            try:
                await self._pool.run(self._directory.remove, upload.id, upload.place, upload.offset)
            except OSError as error:
                stuck[upload.id] = error
                log.warn(
                    "the placed file {path} was not removed: {reason}",
                    reason=error.strerror,
                    upload=upload.id,
                    path=upload.place.path,
                )
        return stuck

    def _order(self, upload: Upload) -> Order:
        assert upload.place is not None
        said = (lambda path: sidecar(upload, path)) if self._settings.sidecar else None
        return Order(upload.id, upload.place.path, said)
