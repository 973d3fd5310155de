"""What a hook may say, checked.

One reason to change: something else that a hook may decide. Pure.

Invariant: what passes `check` can do no harm to the protocol: no header of framing or of the protocols' own, no id
that is no id, no key that leaves its place. Whatever is not understood, to the last member, is no verdict: a hook that
wants something that we don't know must not be taken for one that has said yes.
Spec: RFC 9110 sections 5.5, 5.6.2 and 7.6.1 (fields), RFC 9457 for what goes out without a body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from attrs import evolve

from resumable.hooks.interfaces import Allow, HookFailed, Refuse, Verdict
from resumable.model.hooks import Answer, Changes, QuestionKind
from resumable.model.keys import MAX_KEY, safe_segment
from resumable.protocol import metadata
from resumable.protocol.fields import LARGEST
from resumable.protocol.names import valid_id

MAX_BODY = 64 << 10
MAX_HEADERS = 32
MAX_HEADER_BYTES = 8 << 10
MAX_REMOTES = 16
REFUSED = 403

FOLDERS = (
    "an upload's id has no folders here: leave it out, or give one of 16 to 128 letters, digits, _ and -, and give the"
    " path as key (in tusd's format: ChangeFileInfo.Storage.Path), which names the object and, with --place, the file"
)

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")
_REMOTE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OURS = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "content-length", "content-encoding", "content-range"}
    | {"date", "server", "location", "host", "expect", "allow"}
)
_OUR_PREFIXES = ("upload-", "tus-", "access-control-")


class BadVerdict(HookFailed):
    """What a hook said is no verdict."""


def is_ours(name: str) -> bool:
    """Whether a header field belongs to framing or to the protocols, so that no hook may set it."""
    return name.lower() in _OURS or name.lower().startswith(_OUR_PREFIXES)


def can_be_sent(name: str, value: str) -> bool:
    """Whether a hook may have such a header field sent to a client."""
    return bool(_TOKEN.fullmatch(name) and _VALUE.fullmatch(value)) and not is_ours(name)


def check(verdict: object, kind: QuestionKind, remotes: Collection[str] | None = None) -> Verdict:
    """The verdict, if it is one for such a question; ``remotes``: the names that there are. Raises BadVerdict."""
    if isinstance(verdict, Refuse):
        return evolve(verdict, answer=_checked(verdict.answer, 400, 599))
    if not isinstance(verdict, Allow):
        raise BadVerdict("the answer is neither yes nor no")
    if kind is not QuestionKind.CREATE and verdict.changes != Changes():
        raise BadVerdict(f"nothing can be changed {kind.value}")
    _check_changes(verdict.changes, remotes)
    return evolve(verdict, answer=_checked(verdict.answer, 200, 299))


def check_stop(said: object) -> Refuse | None:
    """What a watcher said, if it may say that. Raises BadVerdict."""
    if said is None:
        return None
    if not isinstance(said, Refuse):
        raise BadVerdict("the answer is neither a stop nor none")
    return evolve(said, answer=_checked(said.answer, 400, 599))


def _checked(answer: object, low: int, high: int) -> Answer:
    if not isinstance(answer, Answer):
        raise BadVerdict("the response is none")
    status = answer.status
    if status is not None and (type(status) is not int or not low <= status <= high):
        raise BadVerdict(f"the response's status is not one from {low} to {high}")
    if not isinstance(answer.body, bytes) or len(answer.body) > MAX_BODY:
        raise BadVerdict(f"the response's body is more than {MAX_BODY} bytes")
    if len(answer.headers) > MAX_HEADERS:
        raise BadVerdict(f"the response has more than {MAX_HEADERS} headers")
    room = MAX_HEADER_BYTES
    for name, value in answer.headers.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name) or is_ours(name):
            raise BadVerdict(f"the response may not set the header {shown(name)}")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise BadVerdict(f"the response's header {name} has a value that can't be sent")
        room -= len(name) + len(value)
    if room < 0:
        raise BadVerdict(f"the response's headers are more than {MAX_HEADER_BYTES} bytes")
    return answer


def _check_changes(changes: Changes, remotes: Collection[str] | None) -> None:
    if isinstance(changes.id, str) and "/" in changes.id:
        raise BadVerdict(FOLDERS)
    if changes.id is not None and not (isinstance(changes.id, str) and valid_id(changes.id)):
        raise BadVerdict(f"{shown(changes.id)} is no id: 16 to 128 letters, digits, _ and -")
    if changes.key is not None and not safe_key(changes.key):
        raise BadVerdict(f"{shown(changes.key)} is no key for a remote")
    if changes.max_size is not None and not (type(changes.max_size) is int and 0 <= changes.max_size <= LARGEST):
        raise BadVerdict("max_size is not a number of bytes")
    if changes.metadata is not None:
        encoded_metadata(changes.metadata)
    if changes.remotes is not None:
        _check_remotes(changes.remotes, remotes)


def encoded_metadata(pairs: Mapping[str, bytes]) -> str:
    """The Upload-Metadata for these pairs, as a client could have sent it. Raises BadVerdict."""
    try:
        header = metadata.encode(pairs)
    except (ValueError, AttributeError, TypeError) as error:
        raise BadVerdict("metadata has a key or a value that can't be sent") from error
    if len(header) > metadata.MAX_BYTES:
        raise BadVerdict(f"metadata is more than {metadata.MAX_BYTES} bytes")
    return header


def _check_remotes(names: object, known: Collection[str] | None) -> None:
    if not isinstance(names, tuple) or len(names) > MAX_REMOTES or len(set(names)) < len(names):
        raise BadVerdict("remotes is no list of different names")
    for name in names:
        if not isinstance(name, str) or not _REMOTE.fullmatch(name) or (known is not None and name not in known):
            raise BadVerdict(f"there is no remote {shown(name)}")


def safe_key(key: object) -> bool:
    """Whether it can be an object's key as it is: see `resumable.model.keys`."""
    if not isinstance(key, str) or any("\ud800" <= char <= "\udfff" for char in key):
        return False
    return 0 < len(key.encode()) <= MAX_KEY and all(safe_segment(part) == part != "" for part in key.split("/"))


def shown(value: object) -> str:
    """A hook's word for a message: ASCII, quoted, short."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def loads(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises BadVerdict."""
    try:
        # what nests too deep ends in RecursionError; numbers of thousands of digits are a ValueError
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise BadVerdict("the answer is not JSON") from None
    if not isinstance(found, dict):
        raise BadVerdict("the answer is not a JSON object")
    return found


def text_pairs(found: object) -> dict[str, bytes]:
    """Metadata that came as JSON's strings. Raises BadVerdict."""
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise BadVerdict("metadata is no object of strings")
    return {key: as_bytes(value) for key, value in found.items()}


def as_bytes(text: str) -> bytes:
    """UTF-8. Raises BadVerdict for half a surrogate pair, which JSON can hold and UTF-8 can't."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadVerdict("a text in the answer is not Unicode") from None
