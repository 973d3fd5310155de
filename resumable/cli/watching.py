"""`resumable ls --watch`: the table drawn again each second, as large as the terminal, until Ctrl-C.

Invariants: the terminal is left as it was found. A daemon that doesn't answer for a while ends nothing; looks never
take more than half of the time, however long the daemon needs for one.
"""

from __future__ import annotations

import signal
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from time import monotonic, sleep, time
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from resumable.cli.admin_client import AdminClient, Document, NoDaemon
from resumable.cli.rows import Speeds, Table, Totals, speed_text
from resumable.cli.texts import cut, plain

EVERY: Final = 1.0
"""Seconds."""


def watch(asking: AdminClient, given: Namespace, filters: Mapping[str, str]) -> int:
    """Draw until the user interrupts. The first look raises what the client raises."""
    console, speeds = Console(highlight=False), Speeds()
    picture = Picture(console, speeds, given.full_id)
    wanted = {"order": "newest", **filters}
    picture.uploads(*_look(asking, wanted, given.limit))
    live = Live(picture.drawn(), console=console, screen=True, auto_refresh=False)
    try:
        with _uninterrupted():
            live.start()
        while True:
            began = monotonic()
            try:
                picture.uploads(*_look(asking, wanted, given.limit))
            except NoDaemon as problem:
                picture.wrong = plain(problem)
            with _uninterrupted():
                live.update(picture.drawn(), refresh=True)
            sleep(max(EVERY, monotonic() - began))
    finally:
        with _uninterrupted():
            live.stop()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the terminal has got all of what is written: half of it could never be taken back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _look(asking: AdminClient, filters: Mapping[str, str], most: int) -> tuple[list[Document], bool]:
    """The uploads, and whether there are more."""
    found, more = [], False
    for page in asking.uploads(filters, most):
        found += page
        more = not page
    return found, more


class Picture:
    """What is on the screen. ``wrong``: why it is old."""

    def __init__(self, console: Console, speeds: Speeds, full_ids: bool = False) -> None:
        self._console = console
        self._speeds = speeds
        self._full_ids = full_ids
        self._uploads: Sequence[Document] = ()
        self._more = False
        self.wrong = ""

    def uploads(self, found: Sequence[Document], more: bool) -> None:
        """These were found just now. ``more``: and not all."""
        self._speeds.look(found, monotonic())
        self._uploads, self._more, self.wrong = found, more, ""

    def drawn(self) -> Text:
        """As many rows as the terminal has lines for: those first that a request appends to."""
        width, height = self._console.size
        under_way = sorted(self._uploads, key=lambda upload: upload.get("appending") is not True)
        rows = under_way[: max(1, height - 3)]
        headings, *lines = Table(time(), width, self._full_ids, self._speeds).lines(rows)
        text = Text(no_wrap=True, overflow="crop")
        text.append(headings + "\n", "bold")
        for upload, line in zip(rows, lines, strict=True):
            text.append(line + "\n", _style(upload))
        text.append("\n" + cut(self._last_line(len(rows)), width), "bold yellow" if self.wrong else "bold")
        return text

    def _last_line(self, shown: int) -> str:
        if self.wrong:
            return f"old: {self.wrong}"
        totals = Totals()
        totals.add(self._uploads)
        speed = sum(self._speeds.of(each) or 0 for each in self._uploads)
        hidden = f", {len(self._uploads) - shown} not shown" if len(self._uploads) > shown else ""
        more = " of more (--limit)" if self._more else ""
        return f"{totals}{more}{hidden}, {speed_text(speed)}, {datetime.now():%H:%M:%S}"


def _style(upload: Document) -> str:
    """Calm: only what moves and what needs somebody stands out."""
    if any(isinstance(each, dict) and each.get("state") == "parked" for each in upload.get("replicas") or ()):
        return "red"
    return "green" if upload.get("appending") is True else ""
