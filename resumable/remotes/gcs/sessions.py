"""Resumable sessions: bytes that the store keeps for a week until they become an object.

One reason to change: what the protocol of sessions says. Keeps nothing.

Invariant: nothing that is sent here before `finish` tells the store how long the object is, so that it can't finish it
by itself; and what is sent before that ends at a multiple of `QUANTUM`, because the store drops the rest.
Source: https://docs.cloud.google.com/storage/docs/performing-resumable-uploads,
https://docs.cloud.google.com/storage/docs/resumable-uploads
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from resumable.httpclient.client import HttpAnswer
from resumable.remotes.errors import Transient, Unusable
from resumable.remotes.gcs.errors import NO_BUCKET
from resumable.remotes.gcs.objects import Object, encoded, object_from
from resumable.remotes.gcs.requests import Requests
from resumable.remotes.interfaces import IContent, NotThere

QUANTUM = 256 << 10
"""All that is sent before the end comes in multiples of it."""
FINISH_PATIENCE = 5.0
"""Times the idle time-out: the store may be silent for long while it makes an object of many GiB."""
INCOMPLETE = 308


class Sessions:
    """The sessions of a bucket. A URI is a secret."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def start(self, key: str, resource: Mapping[str, Any], query: Sequence[tuple[str, str]]) -> str:
        """A new session's URI. Conditions in ``query`` are checked when it is finished."""
        name, body = "start a session", json.dumps(resource).encode()
        headers = {
            "Content-Type": "application/json; charset=UTF-8",
            "X-Upload-Content-Type": str(resource.get("contentType", "application/octet-stream")),
        }
        try:
            answer = await self._requests.send(
                name, "POST", self._requests.place.upload("resumable", key, query), headers, body
            )
        except NotThere as error:
            raise no_bucket(error) from None
        uri = answer.headers.get("location", "")
        if not re.fullmatch(r"https?://[!-~]+", uri):
            raise Transient(f"{name}: the answer has no session")
        if urlsplit(uri).scheme != urlsplit(self._requests.place.base).scheme:
            raise Unusable(f"{name}: the session is on another kind of connection", advice="correct the endpoint")
        return uri

    async def ask(self, uri: str) -> int | Object:
        """How many bytes the store has kept, or the object that was made of them. NotThere: it knows no session."""
        name = "ask for the progress"
        answer = await self._requests.send(
            name, "PUT", uri, {"Content-Range": "bytes */*"}, b"", expected=(INCOMPLETE,)
        )
        return _kept(name, answer)

    async def send(self, uri: str, offset: int, data: IContent) -> int | Object:
        """Send what comes at ``offset``; answers as `ask`."""
        name, end = "send a chunk", offset + data.size
        if end % QUANTUM or not data.size:
            raise ValueError(f"a chunk that ends at {end} would not be kept")
        headers = {"Content-Range": f"bytes {offset}-{end - 1}/*"}
        return _kept(name, await self._requests.send(name, "PUT", uri, headers, data, expected=(INCOMPLETE,)))

    async def finish(self, uri: str, size: int, rest: IContent, crc: int) -> int | Object:
        """Send the ``rest`` and have the object made of ``size`` bytes, whose CRC32C the store compares.

        Answers as `ask`. A session that is finished already answers its object again.
        """
        name = "finish the object"
        range_ = f"{size - rest.size}-{size - 1}" if rest.size else "*"
        headers = {"Content-Range": f"bytes {range_}/{size}", "X-Goog-Hash": f"crc32c={encoded(crc)}"}
        answer = await self._requests.send(
            name, "PUT", uri, headers, rest if rest.size else b"", expected=(INCOMPLETE,), patience=FINISH_PATIENCE
        )
        return _kept(name, answer)

    async def cancel(self, uri: str) -> None:
        """Drop the session and its bytes; fine if it isn't known, or has become an object."""
        await self._requests.send("cancel a session", "DELETE", uri, expected=(404, 410, 499))


def _kept(name: str, answer: HttpAnswer) -> int | Object:
    if answer.status != INCOMPLETE:
        return object_from(name, answer.body)
    said = answer.headers.get("range")
    if said is None:
        return 0
    match = re.fullmatch(r"bytes=0-(\d{1,19})", said.strip())
    if match is None:
        raise Transient(f"{name}: the answer doesn't say what was kept")
    return int(match[1]) + 1


def no_bucket(error: NotThere) -> Unusable:
    """Where an object is to be made, only its bucket can be missing."""
    return Unusable(error.reason, status=error.status, code=NO_BUCKET, advice="create the bucket, or correct its name")
