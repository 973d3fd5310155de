"""The public URL as clients meet it first: name, certificate, clock, tus; and whether other origins may upload.

The first request is made with the standard library: it gives the certificate's last day, and the reason why it isn't
trusted. Invariant: no request changes anything. A browser's preflight has no credentials.
Spec: Fetch standard, "CORS protocol" (3.2) and "CORS-preflight fetch" (4.8).
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import field, frozen
from twisted.web.iweb import IPolicyForHTTPS

from resumable.doctor.findings import Finding
from resumable.doctor.visitor import TusAnswer, Unanswered, Visitor

NAME = "public URL"
PATIENCE = 15.0
#: Days before a certificate ends; Let's Encrypt's are renewed thirty days before.
SOON: Final = 14


@frozen
class Outside:
    """The first answer. ``silent``: why there is none; ``untrusted``: because of the certificate. ``fields``: by
    lower-case name. ``ahead``: seconds that the server's clock is ahead, None where it doesn't say. ``days``: left of
    the certificate, None without TLS."""

    url: str
    silent: str | None = None
    untrusted: bool = False
    status: int = 0
    fields: Mapping[str, str] = field(factory=dict)
    ahead: float | None = None
    days: float | None = None

    @property
    def is_tus(self) -> bool:
        """Whether the upload server has answered."""
        return "tus-version" in self.fields


def look(url: str, now: float, context: ssl.SSLContext | None = None) -> Outside:
    """Ask for OPTIONS of ``url``, http or https. Blocks. ``now``: seconds since the epoch."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        context = context or ssl.create_default_context()
        link: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=PATIENCE, context=context
        )
    else:
        link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        link.connect()
        days = _days(link.sock, now)
        link.request("OPTIONS", parts.path or "/", headers={"Connection": "close"})
        answer = link.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Outside(url, status=answer.status, fields=fields, ahead=_ahead(fields.get("date"), now), days=days)
    except ssl.SSLCertVerificationError as error:
        return Outside(url, silent=error.verify_message, untrusted=True)
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        return Outside(url, silent=getattr(error, "strerror", None) or str(error) or type(error).__name__)
    finally:
        link.close()


def _days(sock: object, now: float) -> float | None:
    if not isinstance(sock, ssl.SSLSocket):
        return None
    ends = (sock.getpeercert() or {}).get("notAfter")
    return (ssl.cert_time_to_seconds(ends) - now) / 86400 if isinstance(ends, str) else None


def _ahead(date: str | None, now: float) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() - now
    except (ValueError, OverflowError):
        return None


def judge(found: Outside) -> list[Finding]:
    """The findings about the first answer and its certificate."""
    if found.untrusted:
        advice = "Renew it, or send the whole chain; its names have to fit the URL. Clients refuse it as well."
        return [Finding(NAME, "bad", f"{found.url}: the certificate isn't trusted: {found.silent}", advice)]
    if found.silent is not None:
        advice = "Check the name, the port, the proxy and whether the daemon runs behind it."
        return [Finding(NAME, "bad", f"{found.url} doesn't answer: {found.silent}", advice)]
    if not found.is_tus:
        what = f"{found.url} answers OPTIONS with {found.status}, and not as tus"
        advice = "It has to be the URL of --base-path as clients see it, and the proxy has to pass OPTIONS on."
        return [Finding(NAME, "bad", what, advice), *_certificate(found)]
    return [Finding(NAME, "ok", f"{found.url} answers as tus {found.fields['tus-version']}"), *_certificate(found)]


def _certificate(found: Outside) -> list[Finding]:
    if found.days is None:
        return []
    what = f"its certificate is good for {found.days:.0f} days"
    if found.days < SOON:
        return [Finding("certificate", "warn", what, "Renew it, and see why that wasn't done by itself.")]
    return [Finding("certificate", "ok", what)]


PAGES: Final = "pages of other origins"
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
    """Ask as a browser would for a page of ``origin``, like https://www.example.org. Never raises.

    ``headers``: those that let the page in; only their names are sent.
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
        return Finding(PAGES, "bad", f"a page of {origin} can't upload: {wrong[0]}", wrong[1])
    return Finding(PAGES, "ok", f"a page of {origin} can upload")


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
