"""Whether the 104 of the IETF draft gets through the public URL, before the answer: without it iOS can't resume.

An upload is begun whose last byte waits until something has been answered. Invariants: the upload that is made is
removed again, and each answer is waited for within a limit. Spec: draft-ietf-httpbis-resumable-upload, 4.2 and 11.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from twisted.web.iweb import IPolicyForHTTPS

from resumable.doctor.findings import Finding, unseen
from resumable.doctor.visitor import Heard, TusAnswer, Unanswered, Visitor, upload_at
from resumable.protocol.draft import DIALECTS, VERSION_FIELD

NAME: Final = "interim responses"

#: Bytes of the content: more than a proxy such as Apache collects before it begins a request of its own.
CONTENT: Final = (128 << 10) + 1

#: Fields that the server sends in no 104: who adds them takes it for the answer, which HTTP/1.1 survives by luck.
_OF_ANSWERS: Final = ("connection", "content-length", "date", "transfer-encoding")

_CREATION: Final = {"Upload-Complete": "?0", "Content-Disposition": 'attachment; filename="resumable-doctor"'}
_VERSION: Final = {VERSION_FIELD: str(max(DIALECTS))}

_NEVER: Final = "Start the server with --interim never: clients of the draft then upload, but iOS doesn't resume."
_ALWAYS: Final = (
    "iOS can't resume without. If the proxy passes 104 on (HAProxy and Caddy do, nginx takes it for the answer), start"
    " the server with --interim always and run this again."
)
_SWALLOWED: Final = (
    "iOS can't resume without. Set the proxy to pass informational responses on, or put one there that does, as HAProxy"
    " and Caddy. nginx can't."
)
_COLLECTS: Final = (
    "It is of no use that late. Let the proxy pass requests on as they come; see docs/proxies.md. Apache reads no"
    " answer before it has sent the whole request; HAProxy and Caddy do."
)


async def check_interim(
    reactor: Any,
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    interim: str = "auto",
    least: int | None = None,
    most: int | None = None,
    policy: IPolicyForHTTPS | None = None,
    patience: float = 5.0,
) -> Finding:
    """Begin an upload of the draft through ``url`` and see what comes before its last byte is sent. Never raises.

    ``headers``: those that let a client in. ``interim``: the server's --interim. ``least``, ``most``: bytes that
    one request of the draft may have there. ``patience``: seconds that answers have to arrive in.
    """
    if interim == "never":
        return Finding(NAME, "ok", "the server sends none (--interim never), so iOS doesn't resume")
    url = url if url.endswith("/") else url + "/"
    visitor = Visitor(reactor, headers or {}, policy)
    body = bytes(min(max(CONTENT, least or 0), most or CONTENT + (least or 0)))
    try:
        heard = await _begin(visitor, url, _VERSION, body, patience)
        final = heard.final
        # an answer of somebody in front, or none at all: is that because of the 104?
        broken = final is None or (final.status >= 500 and not _is_ours(final))
        works = broken and _made((await _begin(visitor, url, {}, body, patience)).final)
    except Unanswered as why:
        return unseen(NAME, str(why), "See what is said of the public URL.")
    return _judged(heard, interim, works)


async def _begin(visitor: Visitor, url: str, version: Mapping[str, str], body: bytes, patience: float) -> Heard:
    heard = await visitor.held("POST", url, {**_CREATION, **version}, body, patience)
    for each in heard.all:
        location = each.get("location")
        if location is not None and (each.status == 104 or _made(each)):
            with suppress(Unanswered):  # another check tells of it
                await visitor.ask("DELETE", upload_at(url, location), {"Tus-Resumable": "1.0.0"})
            break
    return heard


def _judged(heard: Heard, interim: str, works: bool) -> Finding:
    """``works``: there was no answer or a wrong one, and a request that gets no 104 is answered well."""
    final = heard.final
    how = "there is no answer after it" if final is None else f"the request is answered with {final.status}"
    if works or (final is None and _located(heard.all)):
        return Finding(NAME, "bad", f"the proxy takes a 104 for the answer, or fails at it: {how}", _NEVER)
    if any(each.status == 104 and any(map(each.get, _OF_ANSWERS)) for each in heard.all):
        return Finding(NAME, "bad", "the proxy takes a 104 for the answer: it adds an answer's fields to it", _NEVER)
    if not _made(final):
        how = "not at all" if final is None else f"with {final.status}"
        return unseen(
            NAME, f"a creation of the draft is answered {how}", "Give --header with credentials, if it lacks them."
        )
    if _located(heard.early):
        return Finding(NAME, "ok", "a 104 with Location comes before the answer, so iOS can resume")
    if _located(heard.late):
        return Finding(NAME, "warn", "the 104 comes only when the whole request was sent", _COLLECTS)
    if interim == "always":
        return Finding(NAME, "warn", "no 104 comes through: something in front of the server swallows it", _SWALLOWED)
    return Finding(NAME, "warn", "no 104 comes: --interim auto sends none behind a proxy that shows itself", _ALWAYS)


def _located(answers: tuple[TusAnswer, ...]) -> bool:
    return any(each.status == 104 and each.get("location") is not None for each in answers)


def _made(answer: TusAnswer | None) -> bool:
    return answer is not None and 200 <= answer.status < 300 and answer.get("location") is not None


def _is_ours(answer: TusAnswer) -> bool:
    return answer.is_tus or answer.get("upload-complete") is not None
