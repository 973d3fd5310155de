"""Text for a terminal: values that can't obey or colour it, cut and padded by the cells that characters take there.

Invariant: no text from here is wider than it was asked to be. A wide character (of Chinese, an emoji) takes two cells,
a combining one none: Unicode Standard Annex 11, as `rich.cells` has it. That is loaded only where a text needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from resumable.doctor.findings import age_text, size_text

CUT: Final = "\u2026"
SHORT_ID: Final = 8

Document = dict[str, Any]


def plain(value: object) -> str:
    """A value's text, without characters that a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def cells(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int) -> str:
    """With blanks, so many cells wide or wider."""
    return text + " " * (width - cells(text))


def cut(text: str, most: int) -> str:
    """At most so many cells of it; what is too much is left out in the middle, for names differ at both ends."""
    if cells(text) <= most:
        return text
    if most <= 0:
        return ""
    tail = _first(text[::-1], (most - 1) // 2)[::-1]
    return _first(text, most - 1 - cells(tail)) + CUT + tail


def _first(text: str, most: int) -> str:
    """The longest beginning of at most so many cells."""
    if text.isascii():
        return text[:most]
    kept = text[: max(0, most)]
    while kept and cells(kept) > most:
        kept = kept[:-1]
    return kept


def short_ids(ids: Sequence[str]) -> list[str]:
    """Beginnings that tell these ids from each other, of `SHORT_ID` characters or more."""
    ordered = sorted(set(ids))
    shared = dict.fromkeys(ordered, 0)
    for one, other in pairwise(ordered):
        pairs = enumerate(zip(one, other, strict=False))
        same = next((at for at, (left, right) in pairs if left != right), len(one))
        shared[one], shared[other] = max(shared[one], same), same
    return [each[: max(SHORT_ID, shared[each] + 1)] for each in ids]


# Of an upload's document, as the admin API writes it.


def number(document: Document, name: str) -> int | None:
    """A field that should be a whole number; None where it is none."""
    value: Any = document.get(name)
    return value if isinstance(value, int) else None


def name_of(upload: Document) -> str | None:
    """The file name that the client gave."""
    metadata = upload.get("metadata")
    if not isinstance(metadata, dict):
        return None
    name = metadata.get("filename") or metadata.get("name")
    return name if isinstance(name, str) else None


def replicas_of(upload: Document) -> list[Document]:
    """The documents of its replicas."""
    found = upload.get("replicas")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def share(offset: int, length: int | None) -> str:
    """How much of it is there."""
    if length is None:
        return size_text(offset)
    return "100%" if offset >= length else f"{offset * 100 // length}%"


def since(value: object, now: float) -> str:
    """How long ago a time of the API's was."""
    at = _seconds(value)
    return "?" if at is None else age_text(max(0.0, now - at))


def when(value: object, now: float) -> str | None:
    """A time of the API's, and how far away it is."""
    at = _seconds(value)
    if at is None:
        return None
    away = f"in {age_text(at - now)}" if at > now else f"{age_text(now - at)} ago"
    return f"{plain(value)} ({away})"


def described(upload: Document) -> str:
    """An upload in a few words, to be recognised before it is removed: ``film.mp4 (1.5 GiB, 43%)``."""
    length, offset = number(upload, "length"), number(upload, "offset") or 0
    size = f"{size_text(offset)} so far" if length is None else f"{size_text(length)}, {share(offset, length)} here"
    return f"{cut(plain(name_of(upload) or 'without a name'), 60)} ({size})"


def _seconds(value: object) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except ValueError:
        return None
