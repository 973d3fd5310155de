"""Finished files in places of their own: the steps that give a data file another name, and take it away.

Everything here blocks, so it is for threads.

Invariants: a place appears with the whole file or not at all, as link(2) and rename(2) have it, after its sidecar; only
`Collision.REPLACE` replaces another file; no step leaves the root, or follows a symbolic link in it;
after a crash between any two steps the same call ends with the file in one place. The data file itself is only ever
linked to: it goes when the catalog says so. A placed file counts as ours while its size and the time of its last
change are those that we placed; inode numbers don't outlive a restored backup.
"""

from __future__ import annotations

import enum
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import frozen

from resumable.model.upload import Place
from resumable.spool.directory import NOT_THERE, Folders, joined, parted
from resumable.spool.disk import FileFacts, IDisk

SIDECAR = ".info.json"
"""Ends the name of the sidecar: the file beside a placed file, with the upload's record."""
MAX_NAME = 255 - len(SIDECAR)
"""Bytes of a name: NAME_MAX of Linux's file systems (limits.h), so that the sidecar's name fits too."""
NUMBERS = 100
"""Numbers below this one are tried before the upload's id is taken: each costs a look at the disk."""
MAX_SIDECAR = 1 << 20
"""Bytes of a sidecar that are read."""


class Collision(enum.Enum):
    """The name is taken. NUMBER: the file gets another; REFUSE: it waits until that is free; REPLACE: it takes it."""

    NUMBER = "number"
    REFUSE = "refuse"
    REPLACE = "replace"


@frozen
class Rules:
    """The operator's rules for placed files; modes of None are the disk's."""

    collision: Collision = Collision.NUMBER
    file_mode: int | None = None
    directory_mode: int | None = None


@frozen
class Order:
    """A data file to be placed at ``path``, or beside it. ``sidecar``: makes the text beside it, from its final
    path."""

    upload_id: str
    path: str
    sidecar: Callable[[str], bytes] | None = None


class PlaceDirectory:
    """The directory ``root``. ``located`` is where an upload's data file lies, ``working`` a directory for files under
    way; all on one file system."""

    def __init__(self, disk: IDisk, root: str, located: Callable[[str], str], working: str, rules: Rules) -> None:
        self._disk = disk
        self._root = root
        self._located = located
        self._working = working
        self._rules = rules

    def place(self, orders: Sequence[Order]) -> Sequence[Place | OSError]:
        """Place them; durable on return, except for those that failed. One that was placed already stays."""
        results: list[Place | OSError] = []
        with Folders(self._disk, self._root, self._rules.directory_mode) as folders:
            for order in orders:
                try:
                    results.append(self._place_one(order, folders))
                except OSError as error:
                    results.append(error)
            try:
                folders.sync()
            except OSError as error:
                return [error] * len(orders)
        return results

    def remove(self, upload_id: str, place: Place, size: int) -> None:
        """Remove the placed file, its sidecar, and directories that are empty then; durable on return.

        A file that isn't the placed one is left alone. A place without a stamp is one that `place`
        may have reached: it is looked for.
        """
        with Folders(self._disk, self._root) as folders:
            folder, head, name = folders.find(place.path)
            if folder is None:
                return
            data = None if place.stamp else self._disk.look(self._located(upload_id))
            for each in [name] if place.stamp else candidates(name, upload_id):
                facts = self._disk.look(each, folder)
                ours = _is_placed(facts, place, size) or _is_same(facts, data)
                if ours or facts is None:
                    self._unlink_sidecar(upload_id, each, folder)
                if ours:
                    self._disk.unlink(each, folder)
            # even if nothing was there: an earlier removal may have been cut off before it was synced
            self._disk.fsync(folder)
            folders.prune(head)

    def open(self, place: Place, size: int) -> int | None:
        """A descriptor of the placed file, for reading; None when it was moved, removed or changed."""
        with Folders(self._disk, self._root) as folders:
            folder, _, name = folders.find(place.path)
            if folder is None or not _is_placed(self._disk.look(name, folder), place, size):
                return None
            try:
                fd = self._disk.open(name, read_only=True, within=folder)
            except OSError as error:
                if error.errno in NOT_THERE:
                    return None
                raise
        if _is_placed(self._disk.look(fd), place, size):
            return fd
        self._disk.close(fd)
        return None

    # -- one file

    def _place_one(self, order: Order, folders: Folders) -> Place:
        head, name = parted(order.path)
        folder = folders.make(head)
        data = self._prepared(order.upload_id)
        try:
            found = self._linked(order.upload_id, name, data, folder) if data.links > 1 else None
            if found is None:
                found = self._link(order, head, name, folder)
            elif order.sidecar is not None:
                self._write_sidecar(order, joined(head, found), found, folder)
        finally:
            self._tidy(order.upload_id)
        return Place(joined(head, found), str(data.modified))

    def _prepared(self, upload_id: str) -> FileFacts:
        """The data file, its permissions and the time of its last change as they stay."""
        fd = self._disk.open(self._located(upload_id), read_only=True)
        try:
            if self._rules.file_mode is not None:
                self._disk.set_mode(fd, self._rules.file_mode)
            self._disk.fsync(fd)
            data = self._disk.look(fd)
        finally:
            self._disk.close(fd)
        assert data is not None, "it is open"
        return data

    def _linked(self, upload_id: str, name: str, data: FileFacts, folder: int) -> str | None:
        """The name that a crash has left it with before that was recorded."""
        for each in candidates(name, upload_id):
            if _is_same(self._disk.look(each, folder), data):
                return each
        return None

    def _names(self, upload_id: str, name: str) -> Iterable[str]:
        return candidates(name, upload_id) if self._rules.collision is Collision.NUMBER else [fitted(name)]

    def _link(self, order: Order, head: str, wanted: str, folder: int) -> str:
        source = self._located(order.upload_id)
        replaces = self._rules.collision is Collision.REPLACE
        for name in self._names(order.upload_id, wanted):
            if not replaces and self._disk.look(name, folder) is not None:
                continue
            if order.sidecar is not None and not self._write_sidecar(order, joined(head, name), name, folder):
                continue
            if self._put(source, order.upload_id, name, folder):
                return name
            if order.sidecar is not None:  # somebody was faster
                self._unlink_sidecar(order.upload_id, name, folder)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), order.path)

    def _put(self, source: str, upload_id: str, name: str, folder: int) -> bool:
        """Give the file a name; False if that is taken."""
        if self._rules.collision is not Collision.REPLACE:
            return self._disk.link(source, name, folder)
        working = f"{self._working}/{upload_id}"
        self._disk.unlink(working)
        self._disk.link(source, working)
        self._disk.rename(working, name, folder)
        return True

    def _tidy(self, upload_id: str) -> None:
        """The half-done files that a crash or a failure has left."""
        for each in (upload_id, f"{upload_id}{SIDECAR}"):
            self._disk.unlink(f"{self._working}/{each}")

    # -- sidecars

    def _write_sidecar(self, order: Order, path: str, name: str, folder: int) -> bool:
        assert order.sidecar is not None
        name = f"{name}{SIDECAR}"
        replaces = self._rules.collision is Collision.REPLACE
        if not replaces and self._disk.look(name, folder) is not None:
            return self._owns(order.upload_id, name, folder)
        working = f"{self._working}/{order.upload_id}{SIDECAR}"
        self._disk.unlink(working)  # it may be another sidecar's second name
        fd = self._disk.open(working, create=True)
        try:
            self._disk.writev(fd, [order.sidecar(path)], 0)
            if self._rules.file_mode is not None:
                self._disk.set_mode(fd, self._rules.file_mode)
            self._disk.fsync(fd)
        finally:
            self._disk.close(fd)
        if replaces:
            self._disk.rename(working, name, folder)
            return True
        return self._disk.link(working, name, folder)

    def _unlink_sidecar(self, upload_id: str, name: str, folder: int) -> None:
        if self._owns(upload_id, f"{name}{SIDECAR}", folder):
            self._disk.unlink(f"{name}{SIDECAR}", folder)

    def _owns(self, upload_id: str, name: str, folder: int) -> bool:
        """Whether that is this upload's sidecar. Clients can't make one: no name that they give ends so."""
        facts = self._disk.look(name, folder)
        if facts is None or not facts.is_file:
            return False
        fd = self._disk.open(name, read_only=True, within=folder)
        try:
            found = json.loads(self._disk.read(fd, MAX_SIDECAR, 0))
        except ValueError:
            return False
        finally:
            self._disk.close(fd)
        return isinstance(found, dict) and found.get("id") == upload_id


def _is_placed(facts: FileFacts | None, place: Place, size: int) -> bool:
    return facts is not None and facts.is_file and facts.size == size and str(facts.modified) == place.stamp


def _is_same(facts: FileFacts | None, data: FileFacts | None) -> bool:
    return facts is not None and data is not None and facts.inode == data.inode


def fitted(name: str, mark: str = "") -> str:
    """The name with ``mark`` before its extension, its stem cut to fit."""
    stem, dot, extension = name.rpartition(".")
    ending = f"{mark}.{extension}" if dot and stem and len(extension.encode()) < 16 else mark
    stem = name[: len(name) - len(ending) + len(mark)]
    room = MAX_NAME - len(ending.encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + ending


def candidates(name: str, upload_id: str) -> Iterator[str]:
    """``report.pdf``, ``report (2).pdf``, ``report (3).pdf``, ..., and at last one with the id, which no other has."""
    yield fitted(name)
    for number in range(2, NUMBERS):
        yield fitted(name, f" ({number})")
    yield fitted(name, f" ({upload_id})")
