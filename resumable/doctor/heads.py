"""Whether an upload with much metadata can be made and asked for through the public URL.

Changes when proxies find another way to mind long headers. Invariant: what is made is removed again, and every request
ends within its time. Metadata comes in one header field and goes back in the answer to HEAD: where a proxy has less
room for an answer's head than for a request's, such an upload is made, and whoever asks for it is answered 502 and
starts over.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from resumable.doctor.findings import Finding
from resumable.doctor.visitor import TusAnswer, Unanswered, Visitor, upload_at

NAME: Final = "long metadata"
#: Bytes of Upload-Metadata: nearly all that the server takes in one head; and what proxies let through as they come.
SIZES: Final = (14_000, 7_000)

_TUS: Final = {"Tus-Resumable": "1.0.0"}
_LONGER_ANSWERS: Final = (
    "Give it 32 KiB for the head of an answer: proxy_buffer_size 32k and proxy_buffers 4 32k (nginx; ingress-nginx has"
    " annotations for them), tune.bufsize 32768 (HAProxy), responsefieldsize=32768 (Apache). Otherwise a client with"
    " that much metadata starts over each time that it comes back."
)
_LONGER_REQUESTS: Final = (
    "Clients with more metadata can't begin. If there may be such, give it room for a header field of 16 KiB:"
    " large_client_header_buffers 4 32k (nginx), tune.bufsize 32768 (HAProxy), LimitRequestFieldSize 32768 (Apache)."
)


async def check_heads(visitor: Visitor, url: str) -> list[Finding]:
    """Make an upload with as much metadata as gets through, ask for it, and remove it. Never raises."""
    refused: list[_Refusal] = []
    for size in SIZES:
        said = f"filename cmVzdW1hYmxlLWRvY3Rvcg==,note {'eHh4' * (size // 4)}"
        made = await _asked(visitor, "POST", url, {**_TUS, "Upload-Metadata": said, "Upload-Length": "1"})
        location = made and made.get("location")
        if made and made.status == 201 and location:
            return await _looked_at(visitor, upload_at(url, location), said, refused)
        refused.append(_Refusal(size, made))
    return [refused[-1].finding()]


async def _looked_at(visitor: Visitor, upload: str, said: str, refused: list[_Refusal]) -> list[Finding]:
    try:
        got = await _asked(visitor, "HEAD", upload, _TUS)
    finally:
        await _asked(visitor, "DELETE", upload, _TUS)
    size = f"{len(said)} bytes of metadata"
    if got is None or got.status not in (200, 423) or (got.status == 200 and got.get("upload-metadata") != said):
        how = _how(got) if got is None or got.status != 200 else "answered without them"
        return [Finding(NAME, "bad", f"an upload with {size} can be made, and HEAD of it is {how}", _LONGER_ANSWERS)]
    return [refused[0].finding()] if refused else [Finding(NAME, "ok", f"{size} go both ways")]


@frozen
class _Refusal:
    size: int
    answer: TusAnswer | None

    def finding(self) -> Finding:
        what = f"an upload with {self.size} bytes of metadata can't be made: POST is {_how(self.answer)}"
        if self.answer is not None and self.answer.is_tus:
            return Finding(NAME, "ok", f"not looked at: {what}")  # by a guard, or a rate
        return Finding(NAME, "warn", what, _LONGER_REQUESTS)


def _how(answer: TusAnswer | None) -> str:
    if answer is None:
        return "not answered"
    return f"answered with {answer.status} by {'the server' if answer.is_tus else 'somebody in front of the server'}"


async def _asked(visitor: Visitor, method: str, url: str, fields: dict[str, str]) -> TusAnswer | None:
    """The answer; None without one."""
    try:
        return await visitor.ask(method, url, fields)
    except Unanswered:
        return None
