"""Which upload is meant by the beginning of an id.

Invariant: nothing is chosen that could be another one. Only the daemon's index is asked, never its whole list.
"""

from __future__ import annotations

import re
from typing import Final

from resumable.cli.admin_client import AdminClient, DaemonRefused
from resumable.cli.texts import cut, name_of, plain, short_ids
from resumable.protocol.names import beginning_of_id

LEAST: Final = 4
WHOLE: Final = 32
"""Characters of an id that a server makes."""
SHOWN: Final = 5
_is_ours: Final = re.compile(r"[A-Za-z0-9_-]+").fullmatch


def chosen(asking: AdminClient, text: str) -> str:
    """The id that begins with ``text``; what is no beginning of an id is left to the daemon to refuse.

    One that is gone is meant only if no other begins so. Raises DaemonRefused where there is none, or several.
    """
    if len(text) >= WHOLE:
        return text
    if not beginning_of_id(text):
        if len(text) < LEAST and _is_ours(text):
            raise DaemonRefused(f"give at least the first {LEAST} characters of an id")
        return text
    found = [each for page in asking.uploads({"id_prefix": text, "state": "any"}, SHOWN + 1) for each in page]
    if any(each.get("id") == text for each in found):
        return text
    meant = [each for each in found if each.get("state") != "gone"] or found
    if not meant:
        raise DaemonRefused("there is no such upload")
    if len(meant) == 1 and len(found) <= SHOWN:
        return str(meant[0].get("id"))
    names = short_ids([plain(each.get("id")) for each in meant])
    told = [
        f"{short} ({cut(plain(name_of(each) or 'no name'), 30)})"
        for short, each in zip(names, meant, strict=True)
    ]  # fmt: skip
    more = " and more" if len(found) > SHOWN else ""
    raise DaemonRefused(f"several ids begin so: {', '.join(told[:SHOWN])}{more}")
