"""Names: the ids of uploads, and file names that strangers gave.

Pure. Invariants: a valid id is one safe URL segment and one safe file name: no dot, slash, percent sign or leading
dash; a file name that leaves here names no path, hides nothing, turns no reading direction round, keeps its extension
when it is shortened, and may stand in a header.
Spec: RFC 3986 section 2.3 (ids: unreserved characters less "." and "~"), RFC 6266 section 4.3 and appendix D, RFC 8187
section 3.2.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import quote

valid_id: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{15,127}").fullmatch
"""A match if the text is an id of an upload, which has 16 to 128 characters; else None."""
beginning_of_id: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{3,127}").fullmatch
"""A match if the text is long enough to tell an id from most others by its beginning."""
MAX_NAME: Final = 255
"""Bytes of UTF-8: the longest name that file systems take."""

_LONGEST_EXTENSION: Final = 16
# Cc and Zl break lines; Cf has what can't be seen and what turns the reading direction round, so that "gpj.exe" is
# shown as "exe.jpg".
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# RFC 8187, 3.2.1, attr-char; quote() never touches letters, digits and "_.-~".
_ATTR_CHARS: Final = "!#$&+-.^_`|~"


def is_hidden(char: str) -> bool:
    """Whether this character is invisible, or changes how others are shown; noncharacters among them."""
    return unicodedata.category(char) in _HIDDEN or (ord(char) & 0xFFFE) == 0xFFFE


def shortened(name: str, most: int = MAX_NAME) -> str:
    """At most so many bytes of the name. The extension is kept, so that ``holiday.jpg`` stays a picture."""
    data = name.encode()
    if len(data) <= most:
        return name
    _, dot, extension = name.rpartition(".")
    kept = f"{dot}{extension}".encode() if dot and len(extension.encode()) <= _LONGEST_EXTENSION else b""
    return data[: most - len(kept)].decode("utf-8", "ignore").rstrip() + kept.decode()


def shown(text: str) -> str | None:
    """The name in a client's text, without directories and invisible characters; None if nothing is left.

    RFC 6266, 4.3: "Recipients MUST NOT be able to write into any location other than one to which they are
    specifically entitled", hence only the part after the last slash or backslash.
    """
    name = "".join(c for c in text if not is_hidden(c)).replace("\\", "/").rpartition("/")[2].strip()
    return shortened(name) if name.strip(". ") else None


def disposition(name: str | None, way: str = "attachment") -> str:
    """Content-Disposition: a plain-ASCII name for old readers, and the real one in RFC 8187 coding where it differs.
    Only single spaces are left in the plain one, so that it can be signed as it is. ``way``: or ``inline``.

    Appendix D: "avoid including the percent character followed by two hexadecimal characters", and the backslash.
    """
    if not name:
        return way
    plain = " ".join("".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in name).split())
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS)}"
    return f'{way}; filename="{plain}"{extended}'
