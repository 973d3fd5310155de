"""Whether a page of another origin could upload through the public URL.

Changes when browsers' rules do. Invariant: it asks as a browser would, so without credentials before the request, and
makes no upload. Spec: Fetch standard, "CORS protocol" (3.2) and "CORS-preflight fetch" (4.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from twisted.web.iweb import IPolicyForHTTPS

from resumable.doctor.findings import Finding
from resumable.doctor.visitor import TusAnswer, Unanswered, Visitor

NAME: Final = "pages of other origins"
ASKED: Final = ("content-type", "tus-resumable", "upload-length", "upload-metadata", "upload-offset")
READ: Final = ("location", "upload-offset", "upload-length", "tus-resumable")

_ORIGIN: Final = "access-control-allow-origin"
_TWICE: Final = "Let the server alone set these headers, or start it with --cors-origin none and let the proxy do it."


async def check_origin(
    reactor: Any,
    url: str,
    origin: str,
    *,
    headers: Mapping[str, str] | None = None,
    policy: IPolicyForHTTPS | None = None,
) -> Finding:
    """``origin``: that of the page, like https://www.example.org. ``headers``: what the page will send to be let in;
    only their names are sent. Never raises.
    """
    asked = ",".join(sorted({*ASKED, *(name.lower() for name in headers or {})}))
    preflight = {
        "Origin": origin,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": asked,
    }
    visitor = Visitor(reactor, {"Origin": origin}, policy)
    try:
        wrong = _preflight(await visitor.ask("OPTIONS", url, preflight), origin, asked)
        # Without a version it is refused, and nothing is made.
        wrong = wrong or _answer(await visitor.ask("POST", url, {}), origin)
    except Unanswered as why:
        wrong = f"no answer: {why}", "See whether the proxy passes OPTIONS and POST on."
    if wrong is not None:
        return Finding(NAME, "bad", f"a page of {origin} can't upload: {wrong[0]}", wrong[1])
    return Finding(NAME, "ok", f"a page of {origin} can upload")


Wrong = tuple[str, str] | None


def _preflight(answer: TusAnswer, origin: str, asked: str) -> Wrong:
    if not 200 <= answer.status < 300:
        return (
            f"OPTIONS is answered with {answer.status}",
            "Whoever answers that has to let OPTIONS through, without a login.",
        )
    wrong = _allowed(answer, origin)
    if wrong is not None:
        return wrong
    methods, names = _names(answer, "access-control-allow-methods"), _names(answer, "access-control-allow-headers")
    if not methods & {"patch", "*"}:
        return "PATCH isn't among the methods that it may use", "Name it in --cors-methods, or in the proxy's header."
    missing = set() if "*" in names else set(asked.split(",")) - names
    if missing or ("authorization" in asked.split(",") and "authorization" not in names):
        missing = missing or {"authorization"}
        return f"it may not send {', '.join(sorted(missing))}", "Name it in --cors-headers, or in the proxy's header."
    return None


def _answer(answer: TusAnswer, origin: str) -> Wrong:
    wrong = _allowed(answer, origin)
    if wrong is not None:
        return wrong
    hidden = set(READ) - _names(answer, "access-control-expose-headers")
    if hidden and "*" not in _names(answer, "access-control-expose-headers"):
        return f"it can't read {', '.join(sorted(hidden))}", "Let the proxy pass on Access-Control-Expose-Headers."
    return None


def _allowed(answer: TusAnswer, origin: str) -> Wrong:
    allowed = answer.fields.get(_ORIGIN, ())
    if len(allowed) > 1 or "," in "".join(allowed):
        return f"Access-Control-Allow-Origin is there twice: {', '.join(allowed)}", _TWICE
    if not allowed:
        advice = f"Start the server with --cors-origin {origin}, and let the proxy pass its headers on."
        return "its origin isn't allowed", advice
    if allowed[0] not in ("*", origin):
        return f"only {allowed[0]} is allowed", f"Start the server with --cors-origin {origin} as well."
    return None


def _names(answer: TusAnswer, field: str) -> set[str]:
    return {name.strip().lower() for name in (answer.get(field) or "").split(",")}
