"""The parts of a URL that may be shown in logs, messages, metrics and answers.

Invariant: a shown URL has no value of a query, and no user or password; a URL that isn't a request's own has no query
without names either. All code that shows a URL from outside uses these functions. Pure. Spec: RFC 3986 sections 3.2.1
and 3.4.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_VALUE: Final = re.compile(r"=[^&]*")
# In a text the end of a URL isn't known: blanks, and quotes that no URL has, are taken for it.
_VALUE_IN_TEXT: Final = re.compile(r"([?&;][^=&;?\s\"<>]+=)[^&\s\"<>]+")
_BARE_IN_TEXT: Final = re.compile(r"(?<![^\s\"<>?])([^\s\"<>?]++\?)[^=&\s\"<>]+(?![^&\s\"<>])")
_USER_IN_TEXT: Final = re.compile(r"(?<=://)[^/\s\"<>]*@")


def masked(text: str) -> str:
    """The text without the values of queries, and the users and passwords, of URLs in it."""
    text = _VALUE_IN_TEXT.sub(r"\1...", _USER_IN_TEXT.sub("...@", text))
    return _BARE_IN_TEXT.sub(lambda found: f"{found[1]}..." if "://" in found[1] else found[0], text)


def masked_target(target: str) -> str:
    """A request's target without the values in its query."""
    path, mark, query = target.partition("?")
    return path + mark + _VALUE.sub("=...", query)


def server_of(url: str) -> str:
    """Scheme, host and port of a URL. Its path may be a secret as well: services give out such URLs."""
    parts = urlsplit(url)
    rest = "/..." if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{rest}"


def has_user(url: str) -> bool:
    """Whether there is a user or a password in it, empty ones too. ValueError for a text that is no URL."""
    return "@" in urlsplit(url).netloc
