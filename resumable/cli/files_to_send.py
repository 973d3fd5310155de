"""What ``put`` sends: files, directories with all that is below them, streams; and what is left out of them, and why.

Invariants: a directory comes in the order of names, each time the same; nothing that is no file is ever opened: a FIFO
that nobody writes to would never end; a circle of links ends. The names that the server is told are those that Uppy
tells: ``filename``, ``filetype``, and for a file of a directory ``relativePath``, from the directory's own name on,
with slashes.
"""

from __future__ import annotations

import mimetypes
import os
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from attrs import field, frozen

STANDARD_INPUT: Final = "-"


@frozen
class FileToSend:
    """One file. ``name``: how people call it; ``size``: in bytes, None for a stream; ``metadata``: for
    the server."""

    name: str
    path: Path
    size: int | None
    metadata: Mapping[str, str] = field(factory=dict)

    @property
    def stream(self) -> bool:
        """Whether it is read once, and ends when it ends."""
        return self.size is None

    def opened(self) -> BinaryIO:
        """The open stream."""
        return sys.stdin.buffer if str(self.path) == STANDARD_INPUT else self.path.open("rb")


@frozen
class LeftOut:
    """What isn't sent. ``wrong``: whether it should have been."""

    name: str
    why: str
    wrong: bool


Found = FileToSend | LeftOut


def found(arguments: Iterable[str], follow: bool = False, name: str | None = None) -> Iterator[Found]:
    """What the arguments of the command line mean. ``follow``: symbolic links below directories too. ``name``: of the
    one file or stream that is sent."""
    for argument in arguments:
        if argument == STANDARD_INPUT:
            told = {} if name is None else _named(name)
            yield FileToSend(name or "standard input", Path(argument), None, told)
            continue
        path = Path(argument)
        try:
            about = path.stat()
        except OSError as error:
            yield LeftOut(argument, _reason(error), True)
            continue
        if stat.S_ISDIR(about.st_mode):
            yield from _below(path, follow)
        elif stat.S_ISREG(about.st_mode):
            yield _file(path, argument, about, name or path.name)
        else:
            yield LeftOut(argument, f"it is no file; to send what it gives: - < {shlex.quote(argument)}", True)


def _named(name: str, relative: str | None = None) -> dict[str, str]:
    kind, _ = mimetypes.guess_type(name)
    told = {"filename": name, "filetype": kind, "relativePath": relative}
    return {key: _unicode(value) for key, value in told.items() if value}


def _unicode(name: str) -> str:
    """A name of the file system that is no UTF-8 can't be told as it is."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _file(path: Path, shown: str, about: os.stat_result, name: str, relative: str | None = None) -> Found:
    if not os.access(path, os.R_OK):
        return LeftOut(shown, "no permission to read it", True)
    return FileToSend(shown, path, about.st_size, _named(name, relative))


def _below(top: Path, follow: bool) -> Iterator[Found]:
    """All of a directory. Its own name leads the relative paths, also where it is given as ``.`` or ``..``."""
    root = Path(os.path.abspath(top))
    yield from _entries(top, root.name, follow, frozenset())


def _entries(directory: Path, relative: str, follow: bool, above: frozenset[tuple[int, int]]) -> Iterator[Found]:
    try:
        about = directory.stat()
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        yield LeftOut(f"{directory}/", _reason(error), True)
        return
    here = (about.st_dev, about.st_ino)
    if here in above:
        yield LeftOut(f"{directory}/", "a link back to a directory that it is in", False)
        return
    for entry in entries:
        yield from _entry(entry, f"{relative}/{entry.name}" if relative else entry.name, follow, above | {here})


def _entry(entry: os.DirEntry[str], relative: str, follow: bool, above: frozenset[tuple[int, int]]) -> Iterator[Found]:
    try:
        if entry.is_symlink() and not follow:
            yield LeftOut(entry.path, "a symbolic link; --follow sends what it points to", False)
        elif entry.is_dir():
            yield from _entries(Path(entry.path), relative, follow, above)
        elif entry.is_file():
            yield _file(Path(entry.path), os.path.normpath(entry.path), entry.stat(), entry.name, relative)
        elif entry.is_symlink():
            yield LeftOut(entry.path, "a symbolic link to nothing", True)
        else:
            yield LeftOut(entry.path, "it is no file", False)
    except OSError as error:
        yield LeftOut(entry.path, _reason(error), True)


def _reason(error: OSError) -> str:
    return (
        "no such file or directory" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
    )
