"""Requests that nobody should send, and what each must be answered.

A row is ``Case(name, status, says, request)``: ``says`` are words of which the problem's detail must hold one, in any
case; ``request`` is sent byte for byte, after ``{open}`` (an upload of 100 bytes of which 10 are there), ``{fresh}``
(one of 100 bytes with nothing there), ``{done}``, ``{gone}``, ``{part}``, ``{final}`` and ``{id}`` (of ``{open}``) are
filled in. ``closes`` marks shapes after which nothing on the connection can be trusted: it must be closed. `each` makes
a row of every value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .tus import OCTETS

TYPE = f"Content-Type: {OCTETS}"
NOWHERE = "/files/" + "0" * 32


@dataclass(frozen=True)
class Case:
    name: str
    status: int | tuple[int, ...]
    says: str | tuple[str, ...]
    request: str
    closes: bool = False


def ask(line: str, *fields: str, body: str = "", host: str | None = "Host: t", tus: str | None = "1.0.0") -> str:
    """A request with these fields, and nothing else but Host and Tus-Resumable."""
    version = [] if tus is None else [f"Tus-Resumable: {tus}"]
    return "\r\n".join([f"{line} HTTP/1.1", *([] if host is None else [host]), *version, *fields, "", body])


def post(*fields: str, body: str = "", tus: str | None = "1.0.0") -> str:
    framing = [f"Content-Length: {len(body)}"] if body else []
    return ask("POST /files/", *fields, *framing, body=body, tus=tus)


def patch(
    *fields: str,
    at: str = "{open}",
    offset: str | None = "10",
    kind: str | None = TYPE,
    body: str = "x",
    tus: str | None = "1.0.0",
) -> str:
    own = [*([] if offset is None else [f"Upload-Offset: {offset}"]), *([] if kind is None else [kind])]
    return ask(f"PATCH {at}", *own, *fields, f"Content-Length: {len(body)}", body=body, tus=tus)


def framed(*fields: str, body: str = "", at: str = "{open}", offset: int = 10) -> str:
    """A PATCH whose framing fields are the row's own."""
    return ask(f"PATCH {at}", f"Upload-Offset: {offset}", TYPE, *fields, body=body)


def chunks(body: str, *fields: str) -> str:
    """A chunked PATCH to an upload of its own; ``body`` is on the wire as it is."""
    return framed("Transfer-Encoding: chunked", *fields, body=body, at="{fresh}", offset=0)


def each(
    name: str,
    status: int | tuple[int, ...],
    says: str | tuple[str, ...],
    make: Callable[[str], str],
    *values: str,
    closes: bool = False,
) -> list[Case]:
    """A row for each value, whose request ``make`` builds."""
    return [Case(f"{name} {value[:40]!r}", status, says, make(value), closes) for value in values]


NOT_NUMBERS = (
    "-1", "+1", "-0", "1.0", "1e3", "0x10", "1_000", "1 0", "1,0", "1;a=b", "one", "", '"1"', "\xb2", "1\x0b", "NaN",
    "9223372036854775808", "99999999999999999999", "1" * 4000, "\xd9\xa3", "null", "${{1}}", "1%30",
)  # fmt: skip

LENGTHS = [
    *each("Upload-Length", (400, 413), "upload-length", lambda v: post(f"Upload-Length: {v}"), *NOT_NUMBERS),
    Case("no length at all", 400, "upload-length", post()),
    Case("a length and a deferred one", 400, "upload-defer-length", post("Upload-Length: 1", "Upload-Defer-Length: 1")),
    Case("a length twice", 400, "upload-length", post("Upload-Length: 1", "Upload-Length: 1")),
    Case("two lengths", 400, "upload-length", post("Upload-Length: 1", "Upload-Length: 2")),
    *each(
        "Upload-Defer-Length", 400, "upload-defer-length", lambda v: post(f"Upload-Defer-Length: {v}"),
        "0", "2", "-1", "01", "true", "", "1,1", "1 1",
    ),
    Case("a length over the maximum", 413, ("upload-length", "maximum"), post("Upload-Length: 1073741825")),
    Case("a body over the length", 413, "content-length", post("Upload-Length: 1", TYPE, body="xx")),
    Case("another length on PATCH", 400, "upload-length", patch("Upload-Length: 99")),
    Case("a malformed length on PATCH", 400, "upload-length", patch("Upload-Length: -5")),
    Case("two lengths on PATCH", 400, "upload-length", patch("Upload-Length: 100", "Upload-Length: 100")),
]  # fmt: skip

OFFSETS = [
    *each("Upload-Offset", 400, "upload-offset", lambda v: patch(offset=v), *NOT_NUMBERS),
    Case("no offset", 400, "upload-offset", patch(offset=None)),
    Case("an offset twice", 400, "upload-offset", patch("Upload-Offset: 10")),
    Case("two offsets", 400, "upload-offset", patch("Upload-Offset: 11")),
    Case("an offset behind", 409, "offset", patch(offset="9")),
    Case("an offset ahead", 409, "offset", patch(offset="11")),
    Case("an offset far ahead", 409, "offset", patch(offset="9223372036854775807")),
    Case("past the end", 413, "content-length", patch(body="x" * 91)),
    Case("past the end of what is finished", 413, "content-length", patch(at="{done}", offset="3")),
    Case("onto a final", 403, "final", patch(at="{final}", offset="3")),
    Case("onto what is gone", 410, "terminated", patch(at="{gone}", offset="0")),
    Case("onto nothing", 404, "upload", patch(at=NOWHERE, offset="0")),
]

TYPES = [
    *each(
        "type", 415, "content-type", lambda v: patch(kind=f"Content-Type: {v}"),
        "", "application/octet-stream", "application/offset octet-stream", "multipart/form-data; boundary=x",
        "application/offset+octet-stream, text/plain", "*/*", "application/partial-upload",
    ),
    Case("no type", 415, "content-type", patch(kind=None)),
    Case("two types", 400, "content-type", patch(TYPE)),
    Case("a creation's body without a type", 415, "content-type", post("Upload-Length: 9", body="x")),
    Case("a creation's body as a form", 415, "content-type",
         post("Upload-Length: 9", "Content-Type: multipart/form-data; boundary=b", body="--b--")),
]  # fmt: skip

VERSION_VALUES = ("", "1", "0.2.2", "1.0.0.0", "1.0.0,1.0.0", "v1.0.0", "\xb9.0.0")
VERSIONS = [
    *each("version on POST", 412, "tus-resumable", lambda v: post("Upload-Length: 1", tus=v), *VERSION_VALUES),
    *each("version on PATCH", 412, "tus-resumable", lambda v: patch(tus=v), *VERSION_VALUES),
    Case("a version twice", 412, "tus-resumable", post("Upload-Length: 1", "Tus-Resumable: 1.0.0")),
    Case("no version on POST", 412, "tus-resumable", post("Upload-Length: 1", tus=None)),
    Case("no version on PATCH", 412, "tus-resumable", patch(tus=None)),
    Case("no version on DELETE", 412, "tus-resumable", ask("DELETE {open}", tus=None)),
]

METADATA = [
    *each(
        "metadata", 400, "upload-metadata", lambda v: post("Upload-Length: 1", f"Upload-Metadata: {v}"),
        "a YQ", "a YQ=", "a YQ===", "a Y Q==", "a  YQ==", "a YQ==,a YQ==", "a,a", ",", "a YQ==,", ",a YQ==",
        "a YQ==,,b Yg==", "a !!!!", "a YQ=b", "a =", "a ====", "a YQ==;b Yg==", "a YQ_-", "\xe9 YQ==", "a \xe9",
        "a\x0bb YQ==", "a YQ==\x7f", "a Y", "a " + "A" * 7999,
    ),
    Case("metadata twice", 400, "upload-metadata",
         post("Upload-Length: 1", "Upload-Metadata: a YQ==", "Upload-Metadata: b Yg==")),
]  # fmt: skip

CHECKSUMS = [
    *each(
        "checksum", 400, "upload-checksum", lambda v: patch(f"Upload-Checksum: {v}"),
        "", "sha1", "sha1 ", "sha1 x", "SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
        "sha-1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "sha1  Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
        "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0", "sha1 Kq5sNclPz7QV2-lfQIuc6R7oRu0=",
        "sha1,Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "crc64 AAAAAAAAAAA=", "__class__ AAAA", "../sha1 AAAA",
        "sha1 " + "A" * 4001,
    ),
    *each(
        "a checksum of another length", 460, "upload-checksum", lambda v: patch(f"Upload-Checksum: {v}"),
        "sha1 AAAA", "md5 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "sha1 " + "A" * 4000,
        "sha1 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed",  # hexadecimal digits are Base64, too
    ),
    Case("a trailer of another length", 460, "checksum",
         chunks("1\r\nx\r\n0\r\nUpload-Checksum: sha1 AAAA\r\n\r\n", "Trailer: Upload-Checksum")),
    Case("a wrong checksum", 460, ("checksum", "bytes"), patch("Upload-Checksum: sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
    Case("two checksums", 400, "upload-checksum",
         patch("Upload-Checksum: crc32 AAAAAA==", "Upload-Checksum: crc32 AAAAAQ==")),
    Case("a checksum as header and as trailer", 400, "upload-checksum",
         chunks("1\r\nx\r\n0\r\n\r\n", "Trailer: Upload-Checksum", "Upload-Checksum: crc32 AAAAAA==")),
    Case("a trailer without chunks", 400, "trailer", patch("Trailer: Upload-Checksum")),
    *each(
        "trailer", 400, "upload-checksum", lambda v: chunks(f"1\r\nx\r\n0\r\n{v}\r\n", "Trailer: Upload-Checksum"),
        "", "Upload-Checksum: sha1 x\r\n", "Upload-Checksum: crc64 AAAA\r\n", "Upload-Checksum:\r\n",
        "Upload-Checksum: crc32 jNwbgw==\r\nUpload-Checksum: crc32 jNwbgw==\r\n", "Upload-Checksums: sha1 x\r\n",
    ),
]  # fmt: skip

CONCATS = [
    *each(
        "concat", 400, "upload-concat", lambda v: post(f"Upload-Concat: {v}"),
        "", "final", "final;", "final; ", "final:/files/{id}", "Final;{part}", "partial;", "both", "final;{open}",
        f"final;{NOWHERE}", "final;{gone}", "final;{final}", "final;{part} {open}", "final;{part},{part}",
        "final;/etc/passwd", "final;../{id}", "final;/files/../files/{id}", "final;/files/%2e%2e/{id}",
        "final;file:///etc/passwd", "final;http://127.0.0.1/other/{id}", "final;//t{part}",
        "final;{part}#f", "final;{part}/", "final;\xe9", "final;{part}\x0b",
        "final;javascript:alert(1)", "final;" + "a" * 7000,
    ),
    Case("two concats", 400, "upload-concat",
         post("Upload-Length: 1", "Upload-Concat: partial", "Upload-Concat: partial")),
    Case("a final with a length", 400, "upload-length", post("Upload-Concat: final;{part}", "Upload-Length: 3")),
    Case("a final with a deferred length", 400, "upload-defer-length",
         post("Upload-Concat: final;{part}", "Upload-Defer-Length: 1")),
    Case("a final with a body", 400, "upload-concat", post("Upload-Concat: final;{part}", TYPE, body="abc")),
    Case("a partial without a length", 400, "upload-length", post("Upload-Concat: partial")),
]  # fmt: skip

NOT_IDS = (
    "..", ".", "%2e%2e", "../uploads", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fdaemon.log",
    "....//....//etc/passwd", "..%5c..%5cetc", "..\\..\\etc", ".resumable", ".resumable/catalog.sqlite3",
    ".resumable%2fcatalog.sqlite3", "%2eresumable%2flock", "{id}%00", "%00", "{id}/..", "{id}/../{id}x",
    "{id}%2f..%2f{id}", "/{id}", "%2f{id}", "%c0%ae%c0%ae", "%ff%fe", "%u002e", "%", "{id}.part", "-rf", "~root",
    "*", "x" * 300, "x" * 3000, "{id};a=b", "{id}%20", "{id}%0d%0aX-Evil:%201", "CON", "0", "null", "'%20OR%201=1--",
)  # fmt: skip
NO_UPLOAD = ("upload", "address", "understands")
ID_FIELDS = ("Upload-Offset: 0", TYPE, "Content-Length: 0")
IDS = [
    *each("HEAD", (404, 405), NO_UPLOAD, lambda v: ask(f"HEAD /files/{v}"), *NOT_IDS),
    *each("PATCH", (404, 405), NO_UPLOAD, lambda v: ask(f"PATCH /files/{v}", *ID_FIELDS), *NOT_IDS),
    *each("DELETE", (404, 405), NO_UPLOAD, lambda v: ask(f"DELETE /files/{v}"), *NOT_IDS),
    *each("GET", (404, 405), NO_UPLOAD, lambda v: ask(f"GET /files/{v}"), *NOT_IDS),
]

METHODS = [
    *each(
        "method on an upload", 405, "understands", lambda v: ask(f"{v} {{open}}"),
        "PUT", "POST", "BREW", "PROPFIND", "TRACE", "LOCK", "patch", "A" * 60, "!#$%&'*+-.^_`|~",
    ),
    *each(
        "method on the collection", 405, "understands", lambda v: ask(f"{v} /files/"),
        "PUT", "PATCH", "DELETE", "GET", "MKCOL",
    ),
    *each(
        "override", (400, 405), ("x-http-method-override", "understands"),
        lambda v: ask("POST {open}", f"X-HTTP-Method-Override: {v}"),
        "", "BREW", "patch ", "PATCH, DELETE", "P A", "DELETE/1.1", "\xe9", "-", "A" * 2000,
    ),
    Case("two overrides", 400, "x-http-method-override",
         ask("POST {open}", "X-HTTP-Method-Override: DELETE", "X-HTTP-Method-Override: DELETE")),
    Case("CONNECT", (400, 404, 405), ("address", "understands", "request"), ask("CONNECT t:80")),
    Case("nothing at the root", 404, "address", ask("GET /")),
    Case("nothing elsewhere", 404, "address", ask("POST /upload", "Upload-Length: 1")),
    Case("a path that only begins like ours", 404, "address", ask("POST /filesystem/", "Upload-Length: 1")),
    Case("an expectation that nobody knows", 417, "expect", framed("Content-Length: 1", "Expect: 200-ok"), closes=True),
]  # fmt: skip

HOSTS = [
    Case("no Host", 400, "host", ask("GET {done}", host=None), closes=True),
    Case("two Hosts", 400, "host", ask("GET {done}", "Host: u"), closes=True),
    *each(
        "Host", 400, "host", lambda v: ask("POST /files/", "Upload-Length: 1", host=f"Host: {v}"),
        "", "a b", "a/b", "user@t", "t:port", "t:", "[::1", "<script>", "\xe9", "a,b", "t:80:80", "..%2f", "a" * 300,
    ),
]  # fmt: skip

BODY_LENGTHS = [
    *each(
        "Content-Length", 400, "content-length", lambda v: framed(f"Content-Length: {v}", body="x"),
        "-1", "+1", "1.0", "0x1", "1,1", "1, 1", "1 1", "one", "", "1;", "\xb9", "1_0", "9" * 19, "1" * 3000, "1\x0b",
        "1\r\nContent-Length: 1", "1\r\nContent-Length: 2", "6\r\nTransfer-Encoding: chunked",
        "6\r\nTransfer-Encoding: identity", closes=True,
    ),
    *each(
        "Transfer-Encoding", (400, 501), "transfer-encoding",
        lambda v: framed(f"Transfer-Encoding: {v}", body="1\r\nx\r\n0\r\n\r\n"),
        "", "identity", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "xchunked", "chunked;q=1",
        "\x0bchunked", "chunked\x0b", '"chunked"', "chu\xf1ked", "chunked,", "chunked\r\nContent-Length: 6",
        "chunked\r\nTransfer-Encoding: chunked", "chunked\r\nTransfer-Encoding: identity", closes=True,
    ),
    Case("chunks in HTTP/1.0", 400, "transfer-encoding",
         framed("Transfer-Encoding: chunked", body="0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0"), closes=True),
]  # fmt: skip

CODING = ("chunk", "transfer coding")
CHUNKS = [
    *each(
        "chunk", 400, CODING, lambda v: chunks(f"{v}\r\n0\r\n\r\n"),
        "x\r\nx", "-1\r\nx", "+1\r\nx", "0x1\r\nx", "\r\nx", " 1\r\nx", "1 1\r\nx", "1,\r\nx", "1\nx", "1\rx",
        "\xb9\r\nx", "fffffffffffffffff\r\nx", "1" * 2000 + "\r\nx", "1\r\nxx", "1\r\nx\n", "1;a=\x00\r\nx",
        "1;" + "a" * 3000 + "\r\nx", "1\r\nx\r\nZZ\r\n", closes=True,
    ),
    *each(
        "trailer line", 400, (*CODING, "trailer"), lambda v: chunks(f"1\r\nx\r\n0\r\n{v}\r\n\r\n"),
        "no colon", ": no name", "a b: c", " folded: x", "a: \x00", "a: b\nc: d", "\xe9: x", "a: " + "b" * 20000,
        closes=True,
    ),
]  # fmt: skip

HEADS = [
    *each(
        "field", 400, ("header", "field", "head"), lambda v: ask("POST /files/", "Upload-Length: 1", v),
        "no colon", ": no name", "a b: c", "a\t: c", "Upload-Length : 1", " folded: x", "\tfolded", "a: \x00",
        "a: b\rc", "a: b\nX: y", "\xe9: x", "a(b): c", "a\x7f: b", '"a": b', closes=True,
    ),
    *each(
        "request line", 400, "request", lambda v: f"{v}\r\nHost: t\r\n\r\n",
        "GET", "GET /", "GET / HTTP/1.1 x", "GET  / HTTP/1.1", "GET / HTTP/2.0", "GET / HTTP/1.10", "GET / http/1.1",
        "GET / HTTP/9", "GET /\x00 HTTP/1.1", "GET /a b HTTP/1.1", "\tGET / HTTP/1.1", "G(T / HTTP/1.1",
        "GET / HTTP/1.1\x0b", "GET \xe9 HTTP/1.1", "GET\t/\tHTTP/1.1", "PRI * HTTP/2.0", "SSH-2.0-OpenSSH_9.2",
        "GET / FTP/1.1", "{}", closes=True,
    ),
    *each(
        "bytes", (400, 414, 431), ("request", "head"), str,
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x00" * 40 + "\n",  # TLS on a plain port
        "GET / HTTP/1.1\nHost: t\n\n",
        "GET / HTTP/1.1\r\nHost: t\nX: y\r\n\r\n",
        "GET /" + "a" * 9000 + " HTTP/1.1\r\nHost: t\r\n\r\n",
        "GET /" + "a" * 9000,  # and no end
        "GET / HTTP/1.1\r\nHost: t\r\n" + "X: yyyyyyyy\r\n" * 2000,  # and no end
        closes=True,
    ),
    Case("an endless field", 431, "head", ask("GET /files/", "X: " + "a" * 20000), closes=True),
    Case("a thousand fields", 431, "head", ask("GET /files/", *(f"X{n}: y" for n in range(1000))), closes=True),
]  # fmt: skip

CORPUS = [
    *(LENGTHS + OFFSETS + TYPES + VERSIONS + METADATA + CHECKSUMS + CONCATS + IDS + METHODS),
    *(HOSTS + BODY_LENGTHS + CHUNKS + HEADS),
]
