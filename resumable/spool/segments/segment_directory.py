"""The names in a directory that several processes share, and the marker that tells whose it is.

    <upload dir>/<id>                                             a finished upload's file, if its row says so
    <upload dir>/.resumable/marker                                the catalog's installation and this directory's id; or
                                                                  what is moved where
    <upload dir>/.resumable/segments/<hh>/<id>.<start>-<worker>-<random>
    <upload dir>/.resumable/finals/<id>-<worker>-<random>         files that are being put together
    <upload dir>/.resumable/placing/                              files on their way to places

Invariants: every directory is durable before anything is written to it, be it another worker that has made it; a name
with random bits is written by one worker, once; a marker, once there, never changes, and is there
with all its content or not at all. Without the marker nothing is missing and nothing is removed: the directory may just
not be mounted. ``<hh>``, two hex digits of a hash of the id, keep directories small. Everything here blocks.
"""

from __future__ import annotations

import os.path
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Final

from resumable.model.errors import StartupError
from resumable.model.segments import Layout
from resumable.spool.disk import IDisk
from resumable.spool.files import OWN, PRIVATE, SAFE_NAME

_SEGMENT: Final = re.compile(r"[0-9a-f]{2}/[0-9A-Za-z_-]{1,200}\.[0-9]+-[0-9A-Za-z_-]+")
FOLDERS: Final = tuple(f"{number:02x}" for number in range(256))
"""The directories of segments."""
MOVING: Final = "moving"
RETURNING: Final = "returning"
"""First words of a marker while the records go to PostgreSQL, or to SQLite: see `moved_files`."""


def half_moved(found: str, root: str) -> str | None:
    """What a start says of the upload directory ``root`` with this text in its marker, if its records are half moved;
    None: they aren't."""
    word = found.partition(" ")[0]
    if word not in (MOVING, RETURNING):
        return None
    there, back = "postgresql://...", "sqlite --catalog postgresql://..."
    again, undo = (there, back) if word == MOVING else (back, there)
    return (
        f"The records of the upload directory {root} are half moved: repeat `resumable catalog move --to {again}`, "
        f"which goes on, or take them back with `resumable catalog move --to {undo}`."
    )


OLD_SIGN: Final = 3600.0
"""Seconds for which the sign of a worker without a row stays, as it may only be about to get one."""
FOREIGN: Final = "belongs to another catalog: --catalog and --upload-dir have to be those of one installation"
OTHER: Final = (
    "is not the one that the servers of this catalog share: mount that on each machine, or name it with --upload-dir"
)


OWN_CATALOG: Final = (
    "has a catalog of its own: take it over with `resumable catalog move --to postgresql://...`, or choose another "
    "with --upload-dir"
)


class SegmentDirectory:
    """The directory ``root``, as worker ``worker_id`` uses it. ``new_name``: random letters and digits, at least 64
    bits of them. ``installation``: the catalog's id."""

    def __init__(
        self, disk: IDisk, root: str, *, installation: str, worker_id: str, new_name: Callable[[], str]
    ) -> None:
        self.root = root
        self.disk = disk
        self._installation = installation
        self._worker = worker_id
        self._new_name = new_name
        self._own = f"{root}/{OWN}"
        self._marker = f"{self._own}/marker"
        self._says: str | None = None
        self._made = False
        self.segments = f"{self._own}/segments"
        self.finals = f"{self._own}/finals"
        self.placing = f"{self._own}/placing"
        self._signs = f"{self._own}/workers"

    def upload_path(self, upload_id: str) -> str:
        """Of the file under the id. Raises ValueError for an invalid id."""
        if not SAFE_NAME.fullmatch(upload_id):
            raise ValueError("not an upload id")
        return f"{self.root}/{upload_id}"

    def segment_path(self, name: str) -> str:
        """Of a segment's file. Raises ValueError for what is no segment's name."""
        if not _SEGMENT.fullmatch(name):
            raise ValueError("not a segment's name")
        return f"{self.segments}/{name}"

    def files(self, layout: Layout) -> Sequence[tuple[str, int]]:
        """Where an upload's committed bytes are: paths, in order, and how many bytes of each count."""
        if layout.whole:
            return [(self.upload_path(layout.upload_id), layout.offset)]
        return [(self.segment_path(segment.name), segment.size) for segment in layout.segments]

    def folder_of(self, name: str) -> str:
        """The directory in which a segment's name is."""
        return f"{self.segments}/{name[:2]}"

    def new_segment(self, upload_id: str, start: int) -> str:
        """The name of a new segment, which nobody else ever has."""
        folder = FOLDERS[zlib.crc32(upload_id.encode()) % len(FOLDERS)]
        return f"{folder}/{upload_id}.{start}-{self._worker}-{self._new_name()}"

    def new_final(self, upload_id: str) -> str:
        """The path of a new file that becomes the one under the id."""
        return f"{self.finals}/{upload_id}-{self._worker}-{self._new_name()}"

    def check(self, may_mark: bool, known: str | None) -> None:
        """See that this may be the directory that all processes share, before anything is made. ``known``: the id that
        the catalog has; None: it has none. Raises StartupError."""
        try:
            found = self._marked()
        except OSError as error:
            raise StartupError(f"The upload directory {self.root} can't be read: {error.strerror}.") from error
        if found is None and may_mark:
            return
        self._check_marker(found)
        if known is not None and mark(found or "")[1] != known:
            raise StartupError(f"The upload directory {self.root} {OTHER}.")

    def make(self, may_mark: bool) -> None:
        """Make what is missing. ``may_mark``: also the marker, as the catalog has never used a directory before.

        Raises StartupError for another catalog's directory, and for one without a marker that should have it; OSError.
        """
        if not may_mark or self.disk.file_size(self._marker) is not None:
            self._check_marker(self._marked())
        for path in (self.root, self._own):
            self._make(path, PRIVATE if path == self._own else None)
        for path in (self.segments, self.finals, self.placing):
            self._make(path, PRIVATE)
        if may_mark and self.disk.file_size(self._marker) is None:
            self._made = self._mark()
        self._says = self._check_marker(self._marked())
        self.make_folders()

    def make_folders(self) -> None:
        """Make the directories for files that are missing. Raises OSError."""
        for path in (self.segments, self.finals, self.placing):
            self._make(path, PRIVATE)
        there = set(self.disk.names(self.segments))
        for folder in FOLDERS:
            if folder not in there:
                self.disk.make_directory(f"{self.segments}/{folder}", PRIVATE)
        self.disk.sync_directory(self.segments)

    def agree(self, record: Callable[[str], str]) -> None:
        """Agree with the catalog that this is the directory that all processes share. After `make`.

        ``record`` is given this directory's id, and answers the one that the catalog has: that of the first who asked.
        Raises StartupError when that is another's; a marker that was made by this process is gone then.
        """
        assert self._says is not None
        if record(mark(self._says)[1]) == mark(self._says)[1]:
            return
        if self._made:
            self.disk.unlink(self._marker)
        raise StartupError(f"The upload directory {self.root} {OTHER}.")

    def is_ours(self) -> bool:
        """Whether the marker is there, and is this catalog's. Raises OSError."""
        found = self._marked()
        return found is not None and (found == self._says or (mark(found)[0] == self._installation and not self._says))

    def shows(self) -> bool:
        """Whether there is a marker at all: a quick look, whether the directory is mounted. Raises OSError."""
        return self.disk.look(self._marker) is not None

    def sign(self) -> None:
        """Leave this worker's sign: who doesn't see it has another directory, if only a copy. Durable on return. Raises
        OSError."""
        self._make(self._signs, PRIVATE)
        with suppress(FileExistsError):
            self.disk.close(self.disk.create_new(f"{self._signs}/{self._worker}"))
        self.disk.sync_directory(self._signs)

    def unsigned(self, workers: Iterable[str]) -> Sequence[str]:
        """Those of these workers whose sign isn't here. Raises OSError."""
        return [each for each in workers if self.disk.look(f"{self._signs}/{each}") is None]

    def take_sign(self) -> None:
        """This worker ends. Raises OSError."""
        self.disk.unlink(f"{self._signs}/{self._worker}")

    def drop_signs(self, workers: Collection[str]) -> None:
        """Remove what others than these workers, which live, have left an hour ago or earlier. Raises OSError."""
        before = self.now() - int(OLD_SIGN * 1e9)
        for name in self.disk.names(self._signs):
            path = f"{self._signs}/{name}"
            facts = self.disk.look(path)
            if name not in workers and facts is not None and facts.modified < before:
                self.disk.unlink(path)

    def now(self) -> int:
        """The time by the directory's own clock, in nanoseconds: that of files' last changes. Raises OSError."""
        path = self.new_final("clock")  # where it is swept, if it stays
        fd = self.disk.create_new(path)
        try:
            self.disk.writev(fd, [b"\n"], 0)
            facts = self.disk.look(fd)
        finally:
            self.disk.close(fd)
            with suppress(OSError):
                self.disk.unlink(path)
        assert facts is not None, "it is open"
        return facts.modified

    def _make(self, path: str, mode: int | None) -> None:
        """Durable on return, whoever has made it: another worker may have died before it synced the name."""
        made = self.disk.make_directory(path, mode)
        try:
            self.disk.sync_directory(os.path.dirname(path) or ".")
        except PermissionError:  # of a directory that an operator has made, in one that this user can't read
            if made:
                raise

    def _marked(self) -> str | None:
        """What the marker says; None: there is none."""
        try:
            fd = self.disk.open(self._marker, read_only=True)
        except FileNotFoundError:
            return None
        try:
            return self.disk.read(fd, 1024, 0).decode("ascii", "replace").strip()
        finally:
            self.disk.close(fd)

    def _mark(self) -> bool:
        """Whether this process has made it. Another worker's marker stays."""
        path = self.new_final("marker")
        fd = self.disk.create_new(path)
        try:
            self.disk.writev(fd, [f"{self._installation} {self._new_name()}\n".encode("ascii")], 0)
            self.disk.fsync(fd)
        finally:
            self.disk.close(fd)
        made = self.disk.link(path, self._marker)
        self.disk.sync_directory(self._own)
        self.disk.unlink(path)
        return made

    def _check_marker(self, found: str | None) -> str:
        """What it says, which is ``found``. Raises StartupError."""
        if found is None:
            raise StartupError(f"The upload directory {self.root} {OTHER}; it has no marker ({self._marker}).")
        if mark(found)[0] != self._installation:
            raise StartupError(half_moved(found, self.root) or f"The upload directory {self.root} {FOREIGN}.")
        return found


def mark(text: str) -> tuple[str, str]:
    """The catalog's installation, and the id of the directory itself, as a marker says them."""
    installation, _, directory = text.partition(" ")
    return installation, directory
