"""Uploads as rows of a table, and what they come to.

Invariant: where a width is given, no line is wider: names are cut first, and what matters least is left out first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from attrs import define

from resumable.cli.texts import (
    Document,
    cells,
    cut,
    name_of,
    number,
    padded,
    plain,
    replicas_of,
    share,
    short_ids,
    since,
)
from resumable.doctor.findings import size_text

_GAP: Final = "  "
LONGEST: Final = 60
"""Cells of a text that a client has chosen, however much room there is."""
SPEED: Final = "SPEED"
_HEADINGS: Final = ("ID", "STATE", "SIZE", "DONE", SPEED, "IDLE", "REMOTES", "OWNER", "NAME")
_GIVES_WAY: Final = (
    *(("NAME", 12), ("OWNER", 8), ("OWNER", 0), ("REMOTES", 8)),
    *(("REMOTES", 0), ("IDLE", 0), ("SIZE", 0), (SPEED, 0), ("NAME", 0)),
)
"""Which column gives way, one after the other until a row fits: it is cut to so many cells, or (0) left out."""


class Columns:
    """Rows under each other, page by page: a column gets wider with the pages, never narrower. ``width``: cells of a
    line, None: any number."""

    def __init__(self, headings: Sequence[str], width: int | None = None) -> None:
        self._headings = headings
        self._width = width
        self._widths = [0] * len(headings)

    def lines(self, rows: Sequence[Sequence[str]]) -> Iterator[str]:
        """The lines of these rows; the first ones have the headings."""
        page = [*([] if any(self._widths) else [self._headings]), *rows]
        self._widths = [
            max(width, *map(cells, column)) for width, *column in zip(self._widths, *page, strict=True)
        ]  # fmt: skip
        widths = self._fitted()
        for row in page:
            shown = [padded(cut(cell, width), width) for cell, width in zip(row, widths, strict=True) if width]
            line = _GAP.join(shown).rstrip()
            yield line if self._width is None else cut(line, self._width)

    def _fitted(self) -> list[int]:
        widths = list(self._widths)
        for heading, least in _GIVES_WAY:
            if heading in self._headings and (over := self._over(widths)) > 0:
                at = self._headings.index(heading)
                widths[at] = max(min(least, widths[at]), widths[at] - over) if least else 0
        return widths

    def _over(self, widths: Sequence[int]) -> int:
        """How many cells too wide a line is."""
        if self._width is None:
            return 0
        shown = [each for each in widths if each]
        return sum(shown) + len(_GAP) * (len(shown) - 1) - self._width


class Speeds:
    """Bytes a second of uploads, from two looks at each."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._now: dict[str, int] = {}
        self._span = self._at = 0.0

    def look(self, uploads: Sequence[Document], at: float) -> None:
        """The uploads as they are ``at`` that time, in seconds."""
        received = {str(each.get("id")): number(each, "received") or 0 for each in uploads}
        self._before, self._now, self._span, self._at = self._now, received, at - self._at, at

    def of(self, upload: Document) -> float | None:
        """None at the first look."""
        key = str(upload.get("id"))
        if key not in self._before or key not in self._now or self._span <= 0:
            return None
        return max(0, self._now[key] - self._before[key]) / self._span


class Table:
    """Uploads, a row each. ``width``: see `Columns`. ``full_ids``: not only their beginning. ``speeds``: shown where
    given."""

    def __init__(
        self, now: float, width: int | None = None, full_ids: bool = True, speeds: Speeds | None = None
    ) -> None:
        self._now = now
        self._full = full_ids
        self._speeds = speeds
        self._columns = Columns([each for each in _HEADINGS if speeds is not None or each != SPEED], width)

    def lines(self, page: Sequence[Document]) -> Iterator[str]:
        """The lines of one page; the first page has the headings."""
        ids = [plain(upload.get("id")) for upload in page]
        shown = ids if self._full else short_ids(ids)
        return self._columns.lines([self._row(name, upload) for name, upload in zip(shown, page, strict=True)])

    def _row(self, name: str, upload: Document) -> list[str]:
        length, offset = number(upload, "length"), number(upload, "offset") or 0
        return [
            name,
            plain(upload.get("state")) + ("*" if upload.get("appending") is True else ""),
            "?" if length is None else size_text(length),
            share(offset, length),
            *([] if self._speeds is None else [speed_text(self._speeds.of(upload))]),
            since(upload.get("touched_at"), self._now),
            ",".join(_remote(each) for each in replicas_of(upload)) or "-",
            _short(upload.get("owner") or "-"),
            _short(name_of(upload) or "-"),
        ]


@define
class Totals:
    """What some uploads come to. ``size``: bytes, the length or, while it isn't known, the offset. ``done``: bytes."""

    count: int = 0
    size: int = 0
    done: int = 0

    def add(self, page: Sequence[Document]) -> None:
        """These, too."""
        for upload in page:
            length, offset = number(upload, "length"), number(upload, "offset") or 0
            self.count += 1
            self.size += offset if length is None else length
            self.done += offset

    def __str__(self) -> str:
        uploads = "1 upload" if self.count == 1 else f"{self.count} uploads"
        if not self.count:
            return uploads
        return f"{uploads}, {size_text(self.size)}, {size_text(self.done)} done ({share(self.done, self.size)})"


def speed_text(speed: float | None) -> str:
    """Bytes a second."""
    return "-" if not speed else f"{size_text(int(speed))}/s"


def _remote(replica: Document) -> str:
    return f"{_short(replica.get('remote'))}:{plain(replica.get('state'))}"


def _short(value: object) -> str:
    return cut(plain(value), LONGEST)
