"""The commands of `resumable` that talk to a daemon.

Invariant: each returns the exit status. The answer goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from resumable.client.admin_client import AdminClient, DaemonRefused, Document, NotAllowed
from resumable.client.show import Table, plain, whole

Command = Callable[[AdminClient, Namespace], int]
ENOUGH: Final = 100
_METHODS: Final = {"on": "PUT", "off": "DELETE", "status": "GET"}


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
