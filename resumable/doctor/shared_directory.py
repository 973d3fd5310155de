"""The upload directory that several servers share: whether processes see at once what another one has made, whether it
is the one that the catalog knows, and whose it is.

Invariant: each check removes the files that it makes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from attrs import frozen

from resumable.aio.system import sync_file
from resumable.doctor.directory import CheckedDirectory
from resumable.doctor.findings import Finding
from resumable.spool.directory import Mount, mount_of, unfit_to_share
from resumable.spool.segments.segment_directory import FOREIGN, OTHER, OWN_CATALOG, mark

NAME: Final = "shared directory"
_CONTENT: Final = b"what another process has made\n"

# Another process: looks at each path that it reads, and says what is there, in hexadecimal digits.
_LOOK = """import sys
for line in sys.stdin:
    try:
        with open(line[:-1], "rb") as file: print("+" + file.read().hex(), flush=True)
    except FileNotFoundError: print("-", flush=True)
"""


@frozen
class SharedFacts:
    """``unseen``: what another process didn't see, None if it saw everything. ``marker``: what the directory says whose
    it is, None without one. ``owner``: user id of the server's own files there, None while there are none; ``me``: this
    one's. ``installation`` and ``directory``: as the catalog knows them; ``reached``: whether that could be asked."""

    place: CheckedDirectory
    unseen: str | None
    marker: str | None = None
    owner: int | None = None
    me: int = 0
    mount: Mount | None = None
    reached: bool = True
    installation: str | None = None
    directory: str | None = None
    has_own_catalog: bool = False


def look(
    place: CheckedDirectory, reached: bool, installation: str | None = None, directory: str | None = None
) -> SharedFacts:
    """Make files, and have another process look at them. Raises OSError, SubprocessError."""
    with place.scratch() as scratch:
        unseen = unseen_by_another(scratch)
    owner = os.stat(place.own).st_uid if os.path.isdir(place.own) else None
    try:
        with open(os.path.join(place.own, "marker"), encoding="ascii", errors="replace") as file:
            marker = file.read(1024).strip()
    except (FileNotFoundError, NotADirectoryError):
        marker = None
    mount, own = mount_of(place.nearest), os.path.exists(os.path.join(place.own, "catalog.sqlite3"))
    return SharedFacts(place, unseen, marker, owner, os.geteuid(), mount, reached, installation, directory, own)


def unseen_by_another(scratch: str) -> str | None:
    """What a second process doesn't see at once; None: nothing. Raises OSError, SubprocessError."""
    command = [sys.executable, "-I", "-S", "-c", _LOOK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            return _compare(scratch, lambda path: _asked(process, path))
        finally:
            process.kill()


def _asked(process: subprocess.Popen[bytes], path: str) -> bytes | None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(os.fsencode(path) + b"\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise subprocess.SubprocessError("the second process has ended")
    return bytes.fromhex(answer[1:].decode("ascii")) if answer.startswith(b"+") else None


def _compare(scratch: str, seen: Callable[[str], bytes | None]) -> str | None:
    """Each step as a server commits: write, sync, give the name, sync the directory. ``seen``: by the other process."""
    made, linked, hidden = (os.path.join(scratch, name) for name in ("made", "linked", "hidden"))
    for path in (made, linked):
        if seen(path) is not None:  # from now on it may take the name for missing
            return "a name that isn't there"
    with open(hidden, "wb") as file:
        file.write(_CONTENT)
        file.flush()
        sync_file(file.fileno())
    os.rename(hidden, made)
    _sync(scratch)
    if seen(made) != _CONTENT:
        return "the bytes of a file that was made, synced and renamed"
    os.link(made, linked)
    _sync(scratch)
    if seen(linked) != _CONTENT:
        return "a second name of a file"
    os.unlink(made)
    _sync(scratch)
    return "that a file was removed" if seen(made) is not None else None


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def judge(found: SharedFacts) -> list[Finding]:
    """The findings about sharing."""
    place = found.place.directory
    findings = []
    if reason := unfit_to_share(found.mount):
        why, _, advice = reason.partition(": ")
        text = f"{advice or 'choose another with --upload-dir'}."
        findings.append(Finding(NAME, "bad", f"{place} can't be shared: {why}", text[0].upper() + text[1:]))
    if found.unseen is not None:
        advice = "Choose a directory on a local file system, or on NFS 4.1 or later, with --upload-dir."
        findings.append(Finding(NAME, "bad", f"another process doesn't see at once {found.unseen}", advice))
    if found.owner is not None and found.owner != found.me and found.me != 0:
        what = f"the servers' own files belong to uid {found.owner}, and this runs as uid {found.me}"
        findings.append(Finding(NAME, "bad", what, "Run all servers, and this, with the same uid on all machines."))
    if found.has_own_catalog:
        what, _, advice = OWN_CATALOG.partition(": ")
        return [*findings, Finding(NAME, "bad", f"{place} {what}", f"{advice[0].upper()}{advice[1:]}.")]
    findings += _whose(found)
    return findings or [Finding(NAME, "ok", f"processes see at once what others do there{_known(found)}")]


def _known(found: SharedFacts) -> str:
    if not found.reached:
        return "; whether it is the catalog's can't be told"
    return "; it is the catalog's" if found.marker is not None else "; no catalog has used it"


def _whose(found: SharedFacts) -> list[Finding]:
    if not found.reached or (found.marker is None and found.directory is None):
        return []
    place, both = found.place.directory, "Name the --catalog and the --upload-dir of one installation."
    if found.marker is None or (
        mark(found.marker)[0] == found.installation and found.directory not in (None, mark(found.marker)[1])
    ):
        what, _, advice = OTHER.partition(": ")
        return [Finding(NAME, "bad", f"{place} {what}", f"{advice[0].upper()}{advice[1:]}.")]
    if mark(found.marker)[0] != found.installation:
        return [Finding(NAME, "bad", f"{place} {FOREIGN.partition(': ')[0]}", both)]
    return []
