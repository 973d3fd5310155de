"""Options for what is between server and clients: what browsers may do, addresses, tus's extensions, HTTP's version.

Changes when one of these comes, goes or gets another default.
"""

from __future__ import annotations

from collections.abc import Sequence

from resumable.config.option import Option
from resumable.http.cors import METHODS
from resumable.model import values

EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "checksum-trailer",
    "termination",
    "concatenation",
    "concatenation-unfinished",
)
"""Those of tus; the protocol has the same."""


def methods(items: Sequence[str]) -> tuple[str, ...]:
    """Methods of ours, in upper case."""
    found = tuple(item.upper() for item in items)
    if not found or not set(found) <= set(METHODS):
        raise ValueError(f"some of {', '.join(METHODS)}")
    return found


def accepted(items: Sequence[str]) -> tuple[str, ...] | None:
    """Lower-case names of header fields; None for any."""
    return None if list(items) == ["*"] else exposed(items)


def exposed(items: Sequence[str]) -> tuple[str, ...]:
    """Lower-case names of header fields."""
    if any("*" in item for item in items):
        raise ValueError("names of header fields like X-Session, each of them whole")
    return values.field_names(items)


def extensions(items: Sequence[str]) -> tuple[str, ...]:
    """Extensions of tus."""
    found = tuple(item.lower() for item in items)
    if not set(found) <= set(EXTENSIONS):
        raise ValueError(f"some of {', '.join(EXTENSIONS)}")
    return found


WEB: tuple[Option, ...] = (
    Option(
        "location",
        "absolute|path",
        "absolute",
        "how clients are told the address of a new upload",
        "`path`: `/files/ID`, which clients complete by the address that they have used; some (aiotus) can't.",
        values.choice("absolute", "path"),
    ),
    Option(
        "download-inline",
        "",
        "",
        "let browsers show images, audio, video and PDF instead of saving them",
        "Never SVG, HTML or other XML. What is shown has the origin of this server: think twice where pages of yours"
        " have the same. See [downloads.md](downloads.md).",
        values.switch,
    ),
    Option(
        "disable-extension",
        "NAMES",
        "",
        "extensions of tus that are neither told nor taken; repeatable",
        f"Of {', '.join(EXTENSIONS)}. Those that need one of them go with it; uploads that were made with one go on."
        " Without expiration nothing expires, as with `--expire-after never`."
        " See [configuration](configuration.md#extensions).",
        extensions,
        separator=",",
    ),
    Option(
        "cors-credentials",
        "",
        "",
        "let pages of the listed origins come with cookies and other credentials of the browser",
        "Never with `--cors-origin *`. A header that the page sets itself, such as Authorization, doesn't need it.",
        values.switch,
    ),
    Option(
        "cors-methods",
        "NAMES",
        ",".join(METHODS),
        "methods that pages may use",
        "GET, HEAD and POST are open to every page by the browsers' rules. Without DELETE pages can't end uploads."
        " Where one is left out, pages may not send X-HTTP-Method-Override either.",
        methods,
        separator=",",
    ),
    Option(
        "cors-headers",
        "NAMES",
        "*",
        "request headers that pages may send, beside those of tus",
        "`*`: whichever they ask for. With names, a page that sends another one can't upload.",
        accepted,
        separator=",",
    ),
    Option(
        "cors-expose",
        "NAMES",
        "",
        "answers' headers that pages may read, beside those of tus",
        "Those that a guard adds can be read without it. For those that a proxy adds.",
        exposed,
        separator=",",
    ),
    Option(
        "cors-max-age",
        "TIME",
        "1d",
        "how long browsers may remember what pages may do",
        "0: each request is preceded by a question. Chromium remembers for two hours at most, Firefox for a day.",
        values.duration,
    ),
    Option(
        "disable-http2",
        "",
        "",
        "speak HTTP/1.1 only, over TLS too",
        "Otherwise `ssl:` endpoints offer HTTP/2, and clients choose.",
        values.switch,
    ),
    Option(
        "h2c",
        "",
        "",
        "take HTTP/2 without TLS from whoever begins with it",
        "For proxies that speak it to their backends. HTTP/1.1 stays possible on the same endpoint.",
        values.switch,
    ),
)
