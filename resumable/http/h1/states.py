"""The states of one HTTP/1.1 connection, and which of them may follow which. No I/O.

Invariant: the next request is read only from `IDLE`, which nothing but a complete answer to a complete request
leads to. Spec: RFC 9112 section 9 (connection management).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class ChannelState(enum.IntEnum):
    """Where a connection is, between its requests and in them. Numbers, as hashes of other enums are slow."""

    OPENED = enum.auto()
    """No byte has come."""
    FIRST_HEAD = enum.auto()
    """The head of the first request, or the preface of HTTP/2, is coming."""
    HEAD = enum.auto()
    """The head of a later request is coming."""
    BODY = enum.auto()
    """The body of the request is coming."""
    ANSWERING = enum.auto()
    """The request is complete, its answer is not."""
    DEAF = enum.auto()
    """The answer is not complete, and bytes that came, or will come, belong to no request."""
    IDLE = enum.auto()
    """The answer is out, and the next request may come."""
    LINGERING = enum.auto()
    """The last answer is out; bytes are read and dropped, so that no reset takes the answer away."""
    CLOSING = enum.auto()
    """The connection is closed when the transport has sent all bytes."""


# Names of the module are found in a tenth of the time that a member of an enum takes.
OPENED, FIRST_HEAD, HEAD, BODY, ANSWERING, DEAF, IDLE, LINGERING, CLOSING = ChannelState

IN_HEAD: Final = frozenset({FIRST_HEAD, HEAD})
"""A head has begun."""
AWAITING_HEAD: Final = IN_HEAD | {OPENED, IDLE}
"""The next bytes belong to a head."""

TRANSITIONS: Final[Mapping[ChannelState, frozenset[ChannelState]]] = {
    OPENED: frozenset({FIRST_HEAD, CLOSING}),
    # A head is dispatched, with a body or without; or it is refused.
    FIRST_HEAD: frozenset({BODY, ANSWERING, LINGERING, CLOSING}),
    HEAD: frozenset({BODY, ANSWERING, LINGERING, CLOSING}),
    # A body is complete, or lost; or its request is answered before its end.
    BODY: frozenset({ANSWERING, DEAF, LINGERING, CLOSING}),
    # LINGERING: the answer says "close", and the client has sent more.
    ANSWERING: frozenset({IDLE, DEAF, LINGERING, CLOSING}),
    DEAF: frozenset({LINGERING, CLOSING}),
    IDLE: frozenset({HEAD, CLOSING}),
    LINGERING: frozenset({CLOSING}),
    CLOSING: frozenset({CLOSING}),
}
"""The states that may follow each state."""
