"""The commands of `resumable` that talk to a daemon.

Invariants: each command returns the exit status. The answer goes to standard output, everything else to standard error.
Text that a client has chosen (names, metadata) can't move the cursor or colour the terminal. An upload is named by its
id, or by the beginning of it: see choosing.py.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from resumable.cli.admin_client import AdminClient, DaemonRefused, Document, InTheWay, NotAllowed
from resumable.cli.choosing import chosen
from resumable.cli.rows import Columns, Table, Totals
from resumable.cli.texts import cut, described, plain, since
from resumable.cli.whole import whole

Command = Callable[[AdminClient, Namespace], int]
ENOUGH: Final = 100
_METHODS: Final = {"on": "PUT", "off": "DELETE", "status": "GET"}
NAMED: Final = 10
"""Uploads that a question names at most."""


def ls(asking: AdminClient, given: Namespace) -> int:
    """List uploads, page by page."""
    now = time.time()
    if given.watch:
        if not in_terminal():
            given.command.error("--watch needs a terminal to draw in")
        from resumable.cli.watching import watch

        return watch(asking, given, filters(given, now))
    width = _width()
    table, totals = Table(now, width, given.full_id or width is None), Totals()
    for page in asking.uploads(filters(given, now), None if given.all else given.limit):
        if not page:
            if not given.json:
                told = "this is 1" if given.limit == 1 else f"these are {given.limit}"
                sys.stderr.write(f"resumable: {told}; for more: --limit or --all\n")
            break
        totals.add(page)
        for line in map(json.dumps, page) if given.json else table.lines(page):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    if width is not None and not given.json:
        sys.stdout.write(f"{totals}\n")
    return 0


def in_terminal() -> bool:
    """Whether a person reads the output."""
    return sys.stdout.isatty()


def _width() -> int | None:
    """Of the terminal, in cells; None where the output goes elsewhere, and is never cut."""
    return shutil.get_terminal_size().columns if in_terminal() else None


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
    upload = asking.upload(chosen(asking, given.id))
    lines = [json.dumps(upload, indent=2)] if given.json else whole(upload, time.time())
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def retry(asking: AdminClient, given: Namespace) -> int:
    """Try parked replicas again: of the named uploads, or all of a remote."""
    if given.all:
        count, more = asking.retry_all(given.remote)
        told = {"restarted": count, "more": more}
        return _tell(told, given, "{restarted} replicas are tried again" + ("; ask again for the rest" if more else ""))

    def one(name: str) -> None:
        upload_id = chosen(asking, name)
        count = asking.retry(upload_id, given.remote)
        if not count:
            raise DaemonRefused("nothing of it is parked")
        told = {"id": upload_id, "restarted": count}
        _tell(told, given, "{id}: {restarted} tried again")

    return _each(given.ids, one)


def rm(asking: AdminClient, given: Namespace) -> int:
    """End uploads, and remove their bytes. One that a request appends to is spared, unless --force is given."""
    names, refused = list(given.ids), 0
    if sys.stdin is not None and sys.stdin.isatty() and not given.yes:
        meant: dict[str, Document] = {}

        def find(name: str) -> None:
            upload = asking.upload(chosen(asking, name))
            if upload.get("gone") is not None:
                raise DaemonRefused("the upload is gone already")
            if upload.get("appending") is True and not given.force:
                raise DaemonRefused(f"a request appends to {described(upload)} now; {_FORCE}")
            meant[str(upload.get("id"))] = upload

        refused = _each(names, find)
        names = list(meant)
        if not names:
            return refused
        if not _agreed(list(meant.values())):
            sys.stderr.write("resumable: nothing was removed\n")
            return 1

    def one(name: str) -> None:
        upload_id = chosen(asking, name)
        try:
            asking.remove(upload_id, spare=not given.force)
        except InTheWay as problem:
            raise DaemonRefused(f"{plain(problem).rstrip('.')}; {_FORCE}") from problem
        _tell({"id": upload_id, "removed": True}, given, "{id}: removed")

    return _each(names, one) or refused


_FORCE: Final = "--force removes it all the same"


def _agreed(uploads: list[Document]) -> bool:
    told = [described(each) + (", a request appends to it now" if each.get("appending") else "") for each in uploads]
    if len(told) == 1:
        question = f"Remove {told[0]} for good?"
    else:
        sys.stderr.writelines(f"  {each}\n" for each in told[:NAMED])
        if len(told) > NAMED:
            sys.stderr.write(f"  and {len(told) - NAMED} more\n")
        totals = Totals()
        totals.add(uploads)
        question = f"Remove these {totals} for good?"
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def hooks(asking: AdminClient, given: Namespace) -> int:
    """List the hooks with how many events wait and are dead, list a hook's dead events, or send these again."""
    if given.what == "replay":
        return replay(asking, given)
    width, now = _width(), time.time()
    if given.what == "dead":
        return _dead(asking, given, Columns(_OF_DEAD, width), now)
    found = asking.hooks()
    if given.json:
        return _tell(found, given, "")
    rows = [
        [plain(name), plain(each.get("waiting")), plain(each.get("dead")), since(each.get("oldest"), now)]
        for name, each in found.items()
    ]
    if not rows:
        sys.stderr.write("resumable: there are no hooks (--hook adds one)\n")
    sys.stdout.writelines(f"{line}\n" for line in Columns(_OF_HOOKS, width).lines(rows) if rows)
    return 0


_OF_HOOKS: Final = ("HOOK", "WAITING", "DEAD", "OLDEST")
_OF_DEAD: Final = ("EVENT", "UPLOAD", "GIVEN UP", "TRIES", "ERROR")


def _dead(asking: AdminClient, given: Namespace, columns: Columns, now: float) -> int:
    for page in asking.dead_events(given.hook):
        rows = [
            [
                *(plain(each.get("event")), plain(each.get("upload")), f"{since(each.get('dead_since'), now)} ago"),
                *(plain(each.get("attempts")), cut(plain(each.get("error") or "-"), 200)),
            ]
            for each in page
        ]
        sys.stdout.writelines(f"{line}\n" for line in (map(json.dumps, page) if given.json else columns.lines(rows)))
        sys.stdout.flush()
    return 0


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


def _each(names: list[str], one: Callable[[str], None]) -> int:
    """Do it for each upload, also after one was refused."""
    status = 0
    for name in names:
        try:
            one(name)
        except NotAllowed:
            raise
        except DaemonRefused as refused:
            sys.stderr.write(f"resumable: {plain(name)}: {plain(refused)}\n")
            status = 1
    return status


def _tell(found: Document, given: Namespace, text: str) -> int:
    told = json.dumps(found) if given.json else plain(text.format(**found))
    sys.stdout.write(told + "\n")
    sys.stdout.flush()
    return 0


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(max(0.0, seconds), UTC).isoformat().replace("+00:00", "Z")
