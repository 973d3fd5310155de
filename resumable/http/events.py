"""The wording of server-sent events: whether a client asks for them, and the bytes of each. No I/O.

Invariant: data of one line only, as JSON without indentation is; so no document can forge an event.
Spec: the HTML Standard, section 9.2 (Server-sent events).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2s
from typing import Final

CONTENT_TYPE: Final = b"text/event-stream"
HEARTBEAT: Final = b":\n\n"
"""A comment: clients skip it; proxies and the client's own time-outs see that the connection lives."""
RETRY: Final = b"retry: 2000\n\n"
"""Milliseconds after which a client connects again when the stream has ended."""
LAST: Final = b"end"
"""The id of the event after which nothing more comes. A client that connects again names it in Last-Event-ID."""


def asked_for(method: bytes, accept: Sequence[str]) -> bool:
    """Whether a GET's lines of Accept name the media type of event streams. ``*/*`` doesn't: JSON is the usual
    answer."""
    for each in ",".join(accept).lower().split(","):
        kind, *parameters = (part.strip(" \t") for part in each.split(";"))
        if kind == "text/event-stream" and not any(map(_refuses, parameters)):
            return method == b"GET"
    return False


def _refuses(parameter: str) -> bool:
    """RFC 9110, 12.4.2: 'a value of 0 means "not acceptable"'."""
    name, _, value = parameter.partition("=")
    return name == "q" and not value.strip("0.")


def event(name: bytes, data: bytes, identity: bytes = b"") -> bytes:
    """One event. ``data``: one line. ``identity``: its id, where a client that connects again may go on from it."""
    assert b"\n" not in data and b"\r" not in data, "the data of an event is one line"
    mark = b"id: %b\n" % identity if identity else b""
    return b"%bevent: %b\ndata: %b\n\n" % (mark, name, data)


def identity_of(data: bytes) -> bytes:
    """An id that every process gives to the same document."""
    return blake2s(data, digest_size=8).hexdigest().encode()
