"""The key, or file name, that an upload gets in a remote, or its place on this machine.

Pure.

Invariant: whatever a client sends, a rendered key is at most 1,024 bytes of UTF-8, is relative, has no empty, ``.`` or
``..`` segment, no control, formatting or invisible character, no backslash, and a metadata value never makes a segment
of its own: slashes are those of the template. `KeyTemplate.render` never fails.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html (length, characters).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from attrs import frozen

from resumable.protocol.names import MAX_NAME, is_hidden, shortened

MAX_KEY = 1024
MAX_VALUE = MAX_NAME
"""Bytes of one metadata value in a key."""

MAX_ID = 128
DEFAULT = "{id}"

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_METADATA = re.compile(r"metadata\[([^\[\]{}, ]+)\]")
_SLASHES = str.maketrans("/\\", "__")
_ID = "id"
_OWNER = "owner"
_DATES = {"date": "%Y-%m-%d", "year": "%Y", "month": "%m", "day": "%d"}
_LONGEST_DATE = len("2026-01-31")


class BadTemplate(ValueError):
    """The template would not make a safe key; the message is one line for the operator."""


@frozen
class _Metadata:
    name: str


@frozen
class _Field:
    name: str


_Piece = str | _Field | _Metadata


@frozen
class KeyTemplate:
    """Made by `parse`. ``{id}``: the upload's id. ``{date}``: a UTC date like 2026-01-31; ``{year}``, ``{month}`` and
    ``{day}`` are its parts. ``{metadata[name]}``: that value of the upload's metadata, ``{owner}``: the name of its
    creator; or the id where it is missing or nothing is left of it. ``{{`` and ``}}`` stand for braces.
    """

    prefix: str
    pieces: tuple[_Piece, ...]

    def render(self, upload_id: str, at: float, metadata: Mapping[str, bytes], owner: str = "") -> str:
        """The key, prefix included, of an upload that is replicated from ``at`` on (seconds since the epoch)."""
        date = datetime.fromtimestamp(at, UTC)
        values = []
        for piece in self.pieces:
            if isinstance(piece, str):
                values.append(piece)
            elif isinstance(piece, _Metadata):
                values.append(safe_segment(metadata.get(piece.name, b"")) or upload_id)
            elif piece.name == _OWNER:
                values.append(safe_segment(owner) or upload_id)
            else:
                values.append(upload_id if piece.name == _ID else date.strftime(_DATES[piece.name]))
        return self.prefix + "".join(values)

    @property
    def is_unique(self) -> bool:
        """Whether two uploads can't have the same key."""
        return _Field(_ID) in self.pieces

    def reaches(self, directory: str, own: Collection[str]) -> bool:
        """Whether an upload's key may be right in this directory (a path without slashes around it, or empty), or below
        one of its directories ``own``."""
        shape = self.prefix + "".join(piece if isinstance(piece, str) else _shape(piece) for piece in self.pieces)
        outer, segments = directory.split("/") if directory else [], shape.split("/")
        left = segments[len(outer) :]
        if not left or not all(map(_may_be, segments, outer)):
            return False
        return len(left) == 1 or any(_may_be(left[0], each) for each in own)


def parse(template: str = DEFAULT, prefix: str = "", *, what: str = "key", owner: bool = False) -> KeyTemplate:
    """The template, under ``prefix`` (joined with one slash). Raises BadTemplate.

    ``what``: the operator's name for it; ``owner``: whether there may be one.
    """
    fields = [_ID, *_DATES, *([_OWNER] if owner else ())]
    pieces: list[_Piece] = []
    end = 0
    for match in _FIELD.finditer(template):
        _add_text(pieces, template[end : match.start()])
        end = match.end()
        if match[1] is not None:
            pieces.append(_field(match[1], fields, what))
        elif match[0] in ("{{", "}}"):
            _add_text(pieces, match[0][0])
        else:
            raise BadTemplate(f'{what} "{_shown(template)}": a brace without its pair; write {{{{ for a brace')
    _add_text(pieces, template[end:])
    prefix = prefix.strip("/")
    result = KeyTemplate(f"{prefix}/" if prefix else "", tuple(pieces))
    _check(result, f'{what} "{_shown(template)}"')
    return result


def safe_segment(value: bytes | str) -> str:
    """The part of a client's value that may stand in a key, as part of one segment; empty when nothing is left.

    Cut to `MAX_VALUE` bytes, the extension kept.
    """
    text = value if isinstance(value, str) else value.decode("utf-8", "ignore")
    text = "".join(c for c in unicodedata.normalize("NFC", text) if not is_hidden(c))
    text = text.translate(_SLASHES).strip()
    return shortened(text, MAX_VALUE) if text.strip("._ ") else ""


def _add_text(pieces: list[_Piece], text: str) -> None:
    if text and pieces and isinstance(pieces[-1], str):
        pieces[-1] += text
    elif text:
        pieces.append(text)


def _field(name: str, fields: Sequence[str], what: str) -> _Piece:
    if name in fields:
        return _Field(name)
    match = _METADATA.fullmatch(name)
    if match is None:
        known = ", ".join(f"{{{each}}}" for each in (*fields, "metadata[name]"))
        raise BadTemplate(f'{what}: unknown field "{{{_shown(name)}}}"; known: {known}')
    return _Metadata(match[1])


def _shape(piece: _Field | _Metadata) -> str:
    """Stands for a field in a key: control characters, as no key has them."""
    return "\0" if isinstance(piece, _Metadata) or piece.name == _OWNER else "\1" if piece.name == _ID else "\2"


def _may_be(segment: str, name: str) -> bool:
    """Whether a segment of a key's shape may become this name, of no upload."""
    pattern = re.escape(segment)
    for field, values in (("\0", ".+"), ("\1", "[0-9a-f]{32}"), ("\2", "[0-9-]+")):
        pattern = pattern.replace(re.escape(field), values)
    return re.fullmatch(pattern, name) is not None


def _longest(piece: _Piece) -> int:
    if isinstance(piece, str):
        return len(piece.encode())
    if isinstance(piece, _Metadata) or piece.name == _OWNER:
        return MAX_VALUE
    return MAX_ID if piece.name == _ID else _LONGEST_DATE


def _check(template: KeyTemplate, shown: str) -> None:
    fixed = "".join(piece for piece in (template.prefix, *template.pieces) if isinstance(piece, str))
    if any(is_hidden(char) for char in fixed) or "\\" in fixed or any("\ud800" <= char <= "\udfff" for char in fixed):
        raise BadTemplate(f"{shown}: no backslashes, no control or invisible characters")
    if not any(isinstance(piece, _Metadata) or piece == _Field(_ID) for piece in template.pieces):
        raise BadTemplate(f"{shown} would be the same for all uploads; put {{id}} into it")
    # a field never renders to dots or to nothing, so it can be stood for by a letter
    model = template.prefix + "".join(piece if isinstance(piece, str) else "x" for piece in template.pieces)
    if any(segment in ("", ".", "..") for segment in model.split("/")):
        raise BadTemplate(f'{shown}: no leading, trailing or double slash, no "." or ".." segment')
    if len(template.prefix.encode()) + sum(map(_longest, template.pieces)) > MAX_KEY:
        raise BadTemplate(f"{shown}: it could become longer than {MAX_KEY} bytes")


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200])
