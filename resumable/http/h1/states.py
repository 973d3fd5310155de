"""The states of one HTTP/1.1 connection, and which of them may follow which. No I/O.

Invariant: the next request is read only from `State.IDLE`, which nothing but a complete answer to a complete request
leads to. Spec: RFC 9112 section 9 (connection management).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class State(enum.Enum):
    """Where a connection is, between its requests and in them. The deadline of a `StreamingChannel` depends on it."""

    OPENED = "nothing has come"
    FIRST_HEAD = "the head of the first request, or the preface of HTTP/2, is coming"
    HEAD = "the head of a later request is coming"
    BODY = "the body of the request is coming"
    ANSWERING = "the request is complete, its answer is not"
    DEAF = "the answer is not complete, and bytes that came, or will come, belong to no request"
    IDLE = "the answer is out, and the next request may come"
    LINGERING = "the last answer is out; bytes are read and dropped, so that no reset takes the answer away"
    CLOSING = "the connection is closed when the transport has sent all bytes"

    @property
    def awaits_head(self) -> bool:
        """Whether the next bytes belong to a head."""
        return self in _AWAITING_HEAD

    @property
    def in_head(self) -> bool:
        """Whether a head has begun."""
        return self is State.FIRST_HEAD or self is State.HEAD


_AWAITING_HEAD: Final = frozenset({State.OPENED, State.FIRST_HEAD, State.HEAD, State.IDLE})

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.OPENED: frozenset({State.FIRST_HEAD, State.CLOSING}),
    # A head is dispatched, with a body or without; or it is refused.
    State.FIRST_HEAD: frozenset({State.BODY, State.ANSWERING, State.LINGERING, State.CLOSING}),
    State.HEAD: frozenset({State.BODY, State.ANSWERING, State.LINGERING, State.CLOSING}),
    # A body is complete, or lost; or its request is answered before its end.
    State.BODY: frozenset({State.ANSWERING, State.DEAF, State.LINGERING, State.CLOSING}),
    # LINGERING: the answer says "close", and the client has sent more.
    State.ANSWERING: frozenset({State.IDLE, State.DEAF, State.LINGERING, State.CLOSING}),
    State.DEAF: frozenset({State.LINGERING, State.CLOSING}),
    State.IDLE: frozenset({State.HEAD, State.CLOSING}),
    State.LINGERING: frozenset({State.CLOSING}),
    State.CLOSING: frozenset({State.CLOSING}),
}
"""The states that may follow each state."""
