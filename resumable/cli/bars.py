"""Progress bars in a terminal, with rich.

Invariants: each file under way has one row, one more for each remote that the server tells of, and one for what it
waits for; all rows have the same columns, and fit the terminal. What has ended goes up as lines, and stays.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from resumable import client
from resumable.cli.boards import complain, in_words
from resumable.cli.figures import clock_text, percent, speed_text
from resumable.cli.files_to_send import LeftOut
from resumable.cli.receipts import Result, amount, checked_words, digest_line, underway
from resumable.cli.texts import cut, plain
from resumable.cli.trips import AllTrips, Trip
from resumable.doctor.findings import size_text

_GAP = 2
_PERCENT, _SIZE, _SPEED, _LEFT = 5, 15, 10, 7
_LEAST_BAR = 8


class BarColumns:
    """Which columns there are in so wide a terminal, and how wide they are."""

    def __init__(self, width: int) -> None:
        rest = [_PERCENT]
        for need, column in ((40, _LEFT), (56, _SPEED), (72, _SIZE)):
            if width >= need:
                rest.append(column)
        self.left, self.speed, self.size = len(rest) > 1, len(rest) > 2, len(rest) > 3
        taken = sum(rest) + _GAP * (len(rest) + 1)
        self.name = max(8, min(28, (width - taken) * 4 // 7))
        self.bar = max(_LEAST_BAR, width - taken - self.name - 1)

    def table(self) -> Table:
        """An empty table of these."""
        table = Table.grid(padding=(0, _GAP, 0, 0))
        table.add_column(width=self.name, no_wrap=True)
        table.add_column(width=self.bar, no_wrap=True)
        widths = [_PERCENT, *[_SIZE] * self.size, *[_SPEED] * self.speed, *[_LEFT] * self.left]
        for width in widths:
            table.add_column(width=width, justify="right", no_wrap=True)
        return table

    def row(self, table: Table, name: Text, bar: ProgressBar, share: str, size: str, speed: str, left: str) -> None:
        """Add a row."""
        cells = [*[Text(size)] * self.size, *[Text(speed, "cyan")] * self.speed, *[Text(left)] * self.left]
        table.add_row(name, bar, share, *cells)


def picture(together: AllTrips, now: float, width: int, most: int = 1000) -> RenderableType:
    """All that is under way. ``most``: rows that there is room for."""
    columns = BarColumns(width)
    parts: list[RenderableType] = []
    shown = 0
    for trip in together.active:
        rows = list(_of_trip(trip, columns, now, width))
        shown += 1 + len(trip.replicas()) + (len(rows) > 1)
        if shown > max(1, most - 1):
            break
        parts += rows
    if together.count > 1:
        parts.append(_of_all(together, columns, now))
    return Group(*parts)


def _of_trip(trip: Trip, columns: BarColumns, now: float, width: int) -> Iterator[RenderableType]:
    table = columns.table()
    speed, left = speed_text(trip.speed(now)), trip.left(now)
    ending = "" if left is None else clock_text(left)
    if trip.state == "checking":
        speed, ending = "reading", f"{percent(trip.checked, trip.size)} %"
    elif trip.state == "storing":
        speed, ending = "sent", ""
    name = Text(cut(plain(trip.name), columns.name), "bold")
    columns.row(
        table,
        name,
        _bar(trip.position, trip.size, columns),
        _share(trip),
        _sizes(trip.position, trip.size),
        speed,
        ending,
    )
    for number, replica in enumerate(trip.replicas(), 1):
        _of_replica(replica, number, trip, columns, table)
    yield table
    if trip.why:
        yield Text(cut(f"  {_waits(trip, now)}", width - 1), "yellow", no_wrap=True)


def _of_replica(replica: client.Replicated, number: int, trip: Trip, columns: BarColumns, table: Table) -> None:
    label = "stored" if replica.name is None and len(trip.replicas()) == 1 else f"stored in {replica.name or number}"
    trouble = "" if replica.trouble is None else plain(replica.trouble)
    name = Text(cut(f"  {plain(label)}", columns.name), "dim")
    share = "" if trip.size is None else f"{percent(replica.confirmed, trip.size)} %"
    bar = _bar(replica.confirmed, trip.size, columns, "magenta")
    columns.row(table, name, bar, share, _sizes(replica.confirmed, trip.size), trouble, "")


def _of_all(together: AllTrips, columns: BarColumns, now: float) -> Table:
    table = columns.table()
    size, position, left = together.size, together.position, together.left(now)
    name = Text(cut(f"{together.done} of {together.count} files", columns.name), "bold")
    share = "" if size is None else f"{percent(position, size)} %"
    ending = "" if left is None else clock_text(left)
    speed = speed_text(together.speed(now))
    columns.row(table, name, _bar(position, size, columns), share, _sizes(position, size), speed, ending)
    return table


def _bar(done: int, total: int | None, columns: BarColumns, style: str = "cyan") -> ProgressBar:
    if total is None:
        return ProgressBar(None, width=columns.bar, pulse=True, animation_time=done / (1 << 22), pulse_style=style)
    return ProgressBar(
        max(1, total), done if total else 1, width=columns.bar, complete_style=style, finished_style="green"
    )


def _share(trip: Trip) -> str:
    return "" if trip.size is None else f"{percent(trip.position, trip.size)} %"


def _sizes(done: int, total: int | None) -> str:
    """``4.3/10 GiB``, ``512 MiB/1.2 GiB``."""
    if total is None:
        return size_text(done)
    there, whole = size_text(done), size_text(total)
    number, _, unit = there.partition(" ")
    return f"{number}/{whole}" if unit == whole.partition(" ")[2] else f"{there}/{whole}"


def _waits(trip: Trip, now: float) -> str:
    until = "" if trip.until is None else clock_text(trip.until - now)
    if trip.state == "retrying":
        return f"{plain(trip.why)}; the next try is in {until}"
    return f"{plain(trip.why)}; it goes on in {until}" if until else plain(trip.why)


def terminal(aside: bool) -> Console:
    """Standard output, or (aside) standard error, without rich's own ideas of what to colour."""
    return Console(file=sys.stderr if aside else sys.stdout, highlight=False, markup=False, emoji=False)


class BarBoard:
    """Draws on standard output, which is a terminal. ``few``: whether each file gets a receipt of several lines."""

    def __init__(self, console: Console, few: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._few = few
        self._clock = clock
        self._together: AllTrips | None = None
        self._lines: list[Text] = []
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self._mark = "✓" if console.encoding.startswith("utf") else "ok"

    def _picture(self) -> RenderableType:
        if self._together is None:
            return Text("")
        size = self._console.size
        return picture(self._together, self._clock(), size.width, size.height)

    def told(self, trip: Trip, event: client.TransferEvent) -> None:
        """Only what the bars don't show."""
        match event:
            case client.StartedOver():
                self._line("! ", f"{trip.name}: it starts over: {event.reason}", "yellow")
            case client.PiecesShrunk() | client.Noted() if trip.position != trip.size:  # the receipt has the rest
                self._line("  ", f"{trip.name}: {in_words(event)}", "dim")

    def done(self, trip: Trip, result: Result) -> None:
        """Its receipt."""
        if not self._few:
            self._line(f"{self._mark} ", f"{trip.name}  {amount(result)}{checked_words(result)}", "green")
            return
        name, place = plain(trip.name), plain(result.where)
        said = f"{name}  {amount(result)}{checked_words(result)}\n  {place}\n"
        more = "\n".join(f"  {line}" for line in (digest_line(result), *underway(trip)))
        self._lines.append(Text.assemble((f"{self._mark} ", "green"), said, (more, "dim")))

    def failed(self, trip: Trip, error: Exception) -> None:
        """On standard error, where that is no terminal."""
        self._wrong(f"{trip.name}: {trip.why}")

    def left_out(self, what: LeftOut) -> None:
        """A line; in red what should have been sent."""
        line = f"{what.name}: left out: {what.why}"
        if what.wrong:
            self._wrong(line)
        else:
            self._line("- ", line, "dim")

    def _wrong(self, line: str) -> None:
        if sys.stderr.isatty():
            self._line("x ", line, "red")
        else:
            complain(line)

    def _line(self, mark: str, text: str, style: str) -> None:
        self._lines.append(Text.assemble((mark, style), (plain(text), "" if style == "green" else style)))

    def refresh(self, together: AllTrips, now: float) -> None:
        """Draw anew, and print the lines that stay."""
        self._together = together
        self._live.refresh()
        self._print()

    def _print(self) -> None:
        if self._lines:
            self._console.print(Text("\n").join(self._lines), soft_wrap=True)
            self._lines.clear()

    def close(self) -> None:
        """The bars go, the lines stay."""
        self._together = None
        self._live.stop()
        self._print()
