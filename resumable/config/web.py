"""Options for HTTP: CORS, Location, extensions of tus, the draft, HTTP/2."""

from __future__ import annotations

from collections.abc import Sequence

from resumable.config.option import Option
from resumable.http.cors import METHODS
from resumable.model import values
from resumable.protocol.tus import EXTENSIONS


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
        "page",
        "auto|on|off",
        "auto",
        "whether browsers find a page for uploads at the base path: auto, on or off",
        "`auto`: if all endpoints for clients are on loopback addresses. The page can be seen without credentials; your"
        " access rules hold for its uploads. See [page.md](page.md).",
        values.choice("auto", "on", "off"),
    ),
    Option(
        "location",
        "absolute|path",
        "absolute",
        "form of the `Location` of a new upload",
        "`path`: `/files/ID`; clients add the host that they used. Some clients (aiotus) can't.",
        values.choice("absolute", "path"),
    ),
    Option(
        "download-inline",
        "",
        "",
        "let browsers show images, audio, video and PDF instead of saving them",
        "Never SVG, HTML or other XML. The shown file has the origin of this server: be careful if your pages have the"
        " same origin. See [downloads.md](downloads.md).",
        values.switch,
    ),
    Option(
        "disable-extension",
        "NAMES",
        "",
        "extensions of tus to turn off; repeatable",
        f"Of {', '.join(EXTENSIONS)}. Extensions that need one of them are turned off too; existing uploads"
        " that use one continue. Without expiration nothing expires, as with `--expire-after never`."
        " See [configuration](configuration.md#extensions).",
        extensions,
        separator=",",
    ),
    Option(
        "disable-draft",
        "",
        "",
        "speak tus only, not the IETF draft",
        "iOS speaks the draft, at the same URL. With this flag its uploads are answered 412. See [draft.md](draft.md).",
        values.switch,
    ),
    Option(
        "interim",
        "auto|always|never",
        "auto",
        "whether clients of the draft get 104 responses: auto, always or never",
        "iOS can resume only if it gets one. `auto`: not behind a proxy that adds Forwarded, Via, X-Forwarded-* or"
        " X-Real-IP, because nginx takes a 104 for the answer. `always`: also behind a proxy; use it only if the proxy"
        " passes a 104 on. `resumable doctor` finds out. See [draft.md](draft.md#proxies).",
        values.choice("auto", "always", "never"),
    ),
    Option(
        "min-append-size",
        "SIZE",
        "0",
        "fewest bytes in one request of the draft, unless it completes the upload; 0 for no limit",
        "Clients see it in `Upload-Limit`; a smaller request is answered 400. It keeps clients from sending many small"
        " requests. If it is too large, clients on bad networks never get one through.",
        values.optional_size,
    ),
    Option(
        "max-append-size",
        "SIZE",
        "0",
        "most bytes in one request of the draft; 0 for no limit",
        "Clients see it in `Upload-Limit`; a larger request is answered 413. Set it if a proxy limits the size of"
        " requests, as nginx does with `client_max_body_size`. A client that always sends its file in one request"
        " can't send a larger file then.",
        values.optional_size,
    ),
    Option(
        "cors-credentials",
        "",
        "",
        "let pages of the listed origins send the browser's cookies and other credentials",
        "It can't be combined with `--cors-origin *`. A header that the page sets itself, such as Authorization,"
        " doesn't need it.",
        values.switch,
    ),
    Option(
        "cors-methods",
        "NAMES",
        ",".join(METHODS),
        "methods that pages may use",
        "Browsers allow GET, HEAD and POST to every page. Without DELETE pages can't delete uploads. If you leave one"
        " out, pages may not send X-HTTP-Method-Override either.",
        methods,
        separator=",",
    ),
    Option(
        "cors-headers",
        "NAMES",
        "*",
        "request headers that pages may send, in addition to those of tus",
        "`*` allows all. If you list names, a page that sends another header can't upload.",
        accepted,
        separator=",",
    ),
    Option(
        "cors-expose",
        "NAMES",
        "",
        "response headers that pages may read, in addition to those of tus",
        "Use it for headers that a proxy adds. Pages can always read headers that a guard adds.",
        exposed,
        separator=",",
    ),
    Option(
        "cors-max-age",
        "TIME",
        "1d",
        "how long browsers may cache these rules",
        "With 0 browsers ask before each request. Chromium caches for at most two hours, Firefox for a day.",
        values.duration,
    ),
    Option(
        "disable-http2",
        "",
        "",
        "use only HTTP/1.1, also over TLS",
        "Otherwise `ssl:` endpoints offer HTTP/2, and clients choose.",
        values.switch,
    ),
    Option(
        "h2c",
        "",
        "",
        "accept HTTP/2 without TLS (prior knowledge)",
        "It is for proxies that use HTTP/2 to their backends. HTTP/1.1 still works on the same endpoint.",
        values.switch,
    ),
)
