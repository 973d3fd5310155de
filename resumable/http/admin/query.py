"""The query of an admin request, parsed.

Invariant: a parameter that isn't understood is refused by its name: an operator who mistypes a filter would else see,
or end, other uploads than they meant. Spec: the URL Standard's
application/x-www-form-urlencoded, RFC 3339 for times.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from attrs import frozen

from resumable.http.request import StreamingRequest
from resumable.model.listing import PRESENT, Filter, UploadState
from resumable.model.upload import ReplicaState
from resumable.protocol.errors import BadRequest
from resumable.protocol.names import beginning_of_id

LIMIT: Final = 100
MOST: Final = 1000
_LARGEST: Final = (1 << 63) - 1
_STATES: Final = {
    **{state.value: frozenset({state}) for state in UploadState},
    "unfinished": frozenset({UploadState.UPLOADING, UploadState.ASSEMBLING}),
    "any": frozenset(UploadState),
}
_REPLICAS: Final = {state.value: state for state in ReplicaState}
_ORDERS: Final = {"oldest": False, "newest": True}
_TIMES: Final = ("created_after", "created_before", "finished_after", "finished_before", "idle_since")
_PLACE: Final = b"p1"
FILTERS: Final = ("state", "owner", "remote", "replica", *_TIMES, "min_size", "id_prefix", "limit", "order", "after")

T = TypeVar("T")


@frozen
class Wanted:
    """Which of all uploads. ``place``: see `resumable.model.listing`."""

    filter: Filter
    place: int | None
    limit: int
    newest: bool


def fields(request: StreamingRequest, *names: str) -> dict[str, str]:
    """The parameters of the query, which may be these. Raises BadRequest."""
    _, _, query = request.uri.partition(b"?")
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64)
    except ValueError:
        raise BadRequest("The query can't be read.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in names:
            allowed = f"these are: {', '.join(names)}" if names else "there are none here"
            raise BadRequest(f"{name[:40]!a} is no parameter; {allowed}.")
        if name in found:
            raise BadRequest(f"{name}: given more than once.")
        if "\0" in value:
            raise BadRequest(f"{name}: it has a NUL.")
        found[name] = value
    return found


def wanted(given: Mapping[str, str]) -> Wanted:
    """Of the parameters `FILTERS`. Raises BadRequest."""
    times = {name: _time(name, given[name]) for name in _TIMES if name in given}
    return Wanted(
        Filter(
            states=_chosen("state", given.get("state"), _STATES, PRESENT),
            owner=given.get("owner"),
            remote=given.get("remote"),
            replica=_chosen("replica", given.get("replica"), _REPLICAS, None),
            min_size=None if "min_size" not in given else number("min_size", given["min_size"], 0, _LARGEST),
            id_prefix=_id_prefix(given.get("id_prefix")),
            **times,
        ),
        _place(given.get("after")),
        number("limit", given.get("limit", str(LIMIT)), 1, MOST),
        _chosen("order", given.get("order"), _ORDERS, False),
    )


def unless_appending(given: Mapping[str, str]) -> bool:
    """Whether an upload stays that a request appends to. Raises BadRequest."""
    return _chosen("unless", given.get("unless"), {"appending": True}, False)


def number(name: str, text: str, least: int, most: int) -> int:
    """A whole number in decimal digits. Raises BadRequest."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise BadRequest(f"{name}: a whole number from {least} to {most}.")
    return int(text)


def cursor(place: int | None) -> str | None:
    """The value that a client gives back as ``after``."""
    return None if place is None else urlsafe_b64encode(b"%s.%d" % (_PLACE, place)).decode().rstrip("=")


def _place(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        kind, _, digits = urlsafe_b64decode(text.encode("ascii") + b"==").partition(b".")
    except ValueError:
        kind = digits = b""
    if (
        kind != _PLACE
        or not digits.isdigit()
        or len(digits) > 19
        or int(digits) > _LARGEST
        or cursor(int(digits)) != text
    ):
        raise BadRequest("after: not the value of next in an answer.")
    return int(digits)


def _id_prefix(text: str | None) -> str | None:
    if text is not None and not beginning_of_id(text):
        raise BadRequest("id_prefix: the first 4 or more characters of an id.")
    return text


def _chosen(name: str, text: str | None, words: Mapping[str, T], default: T) -> T:
    if text is None:
        return default
    if text not in words:
        raise BadRequest(f"{name}: one of {', '.join(words)}.")
    return words[text]


def _time(name: str, text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None or "T" not in text.upper():
            raise ValueError
        return time.timestamp()
    except (ValueError, OverflowError):
        raise BadRequest(f"{name}: a time as in RFC 3339, such as 2026-01-31T23:59:59Z.") from None
