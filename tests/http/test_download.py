"""Downloads: pieces at the client's pace, a reader that is closed however it ends, and names that do no harm."""

from __future__ import annotations

from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import HTTP
from typing import Any
from urllib.parse import unquote

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface.verify import verifyObject

from resumable.http.download import CHUNK, Sending, disposition, safe_type
from resumable.model.upload import Upload
from resumable.protocol import metadata
from resumable.protocol.errors import NotFound
from tests.http.visitor import UPLOAD, Reply, ask, connect, request

FINISHED = 1_700_000_000.25
AT = "Tue, 14 Nov 2023 22:13:20 GMT"
DIGITS = b"0123456789"

NASTY = {
    'say "hi".txt': 'say "hi".txt',
    "back\\slash.txt": "slash.txt",
    "../../etc/passwd": "passwd",
    "C:\\autoexec.bat": "autoexec.bat",
    "a\r\nSet-Cookie: x=1": "aSet-Cookie: x=1",
    "nul\0.txt": "nul.txt",
    "naïve 文件 🎈.bin": "naïve 文件 🎈.bin",
    "100%41.txt": "100%41.txt",
    "semi;colon=x.txt": "semi;colon=x.txt",
    "exe.\u202egpj": "exe.gpj",
    "it's (1).txt": "it's (1).txt",
    " space ": "space",
    "\u2028line": "line",
    "x" * 300: "x" * 255,
    "..": None,
    "dir/": None,
    "": None,
}


class File:
    """A reader whose answers a test gives, one by one."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int, Deferred[bytes]]] = []
        self.closed = 0

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        assert not self.closed
        done: Deferred[bytes] = Deferred()
        self.asked.append((offset, size, done))
        return done

    def answer(self) -> None:
        offset, size, done = self.asked.pop(0)
        done.callback(self.data[offset : offset + size])

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)


class Client:
    """A request, as far as a download knows it. ``slow``: it pauses the producer at each write."""

    def __init__(self, slow: bool = False) -> None:
        self.slow = slow
        self.got: list[bytes] = []
        self.producer: Any = None
        self.gone = False
        self.channel = self
        self.room = CHUNK

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        verifyObject(IPushProducer, producer)
        self.producer = producer

    def unregisterProducer(self) -> None:
        assert self.producer is not None and not self.gone
        self.producer = None

    def write(self, data: bytes) -> None:
        self.got.append(data)
        if self.slow:
            self.producer.pauseProducing()


def begin(file: File, client: Client, size: int | None = None, start: int = 0) -> tuple[Any, list[Any]]:
    """A download and, once it has ended, its outcome: None or a Failure."""
    size = len(file.data) - start if size is None else size
    download = Sending(client, file, start, size)  # type: ignore[arg-type]
    ends: list[Any] = []
    Deferred.fromCoroutine(download.run()).addBoth(ends.append)
    return download, ends


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7])
def test_every_byte_comes_once_in_pieces_of_a_bounded_size(size: int) -> None:
    file, client = File(bytes(range(251)) * (size // 251 + 1)), Client()
    _, ends = begin(file, client, size)
    while not ends:
        assert len(file.asked) == 1, "one piece is read ahead at the most"
        file.answer()
    assert ends == [None] and file.closed == 1 and client.producer is None
    assert b"".join(client.got) == file.data[:size]
    assert all(len(piece) <= CHUNK for piece in client.got)


def test_a_client_that_does_not_read_stops_the_reading() -> None:
    file, client = File(b"x" * (5 * CHUNK)), Client(slow=True)
    download, ends = begin(file, client)
    file.answer()
    for written in range(1, 5):
        file.answer()
        assert len(client.got) == written and not file.asked, "one piece is read ahead, and no more asked for"
        download.resumeProducing()
    assert ends == [None] and b"".join(client.got) == file.data


def test_pausing_and_resuming_twice_is_pausing_and_resuming() -> None:
    file, client = File(b"x" * 10), Client()
    download, ends = begin(file, client)
    download.resumeProducing()
    download.pauseProducing()
    download.pauseProducing()
    file.answer()
    assert client.got == []
    download.resumeProducing()
    download.resumeProducing()
    assert client.got == [b"x" * 10] and ends == [None]


def test_a_range_is_read_from_where_it_begins() -> None:
    file, client = File(bytes(range(251)) * 4000), Client()
    _, ends = begin(file, client, CHUNK + 10, start=77)
    assert file.asked[0][:2] == (77, CHUNK)
    file.answer()
    assert file.asked[0][:2] == (77 + CHUNK, 10)
    file.answer()
    assert ends == [None] and b"".join(client.got) == file.data[77 : 77 + CHUNK + 10]


def test_pieces_are_no_larger_than_what_the_client_would_take() -> None:
    file, client = File(b"x" * (2 * CHUNK)), Client()
    client.room = 20_000
    _, ends = begin(file, client)
    assert file.asked[0][:2] == (0, 20_000)
    client.room = 3 * CHUNK
    file.answer()
    assert file.asked[0][:2] == (20_000, CHUNK)
    file.answer()
    file.answer()
    assert ends == [None] and b"".join(client.got) == file.data


@pytest.mark.parametrize("moment", ["reading", "paused"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_client_that_leaves_in_the_middle_has_the_file_closed(moment: str, gone: bool) -> None:
    file, client = File(b"x" * (3 * CHUNK)), Client()
    download, ends = begin(file, client)
    file.answer()
    if moment == "paused":
        download.pauseProducing()
        file.answer()
    client.gone = gone
    download.stopProducing()
    if moment == "reading":
        assert not ends, "the piece that is being read comes first"
        file.answer()
    assert ends == [None] and file.closed == 1
    assert len(client.got) == 1 and not file.asked
    assert gone or client.producer is None, "a request may not be finished with a producer"


def test_a_file_that_has_become_shorter_is_an_error_and_closed() -> None:
    file, client = File(b"x" * 10), Client()
    _, ends = begin(file, client, 20)
    file.answer()
    file.answer()
    assert ends[0].check(EOFError) and file.closed == 1 and client.got == [b"x" * 10]


def test_a_disk_that_fails_is_an_error_and_closed() -> None:
    file, client = File(b"x" * 10), Client()
    _, ends = begin(file, client)
    file.asked[0][2].errback(OSError(5, "no"))
    assert ends[0].check(OSError) and file.closed == 1 and client.producer is None


class Finished:
    """One finished upload of five bytes with this metadata, or none at all."""

    algorithms = ()

    def __init__(self, pairs: dict[str, str | bytes] | None, data: bytes = b"bytes") -> None:
        self.pairs = pairs
        self.file = File(data)

    def expires_at(self, upload: Upload) -> None:
        return None

    def complete(self, upload: Upload) -> bool:
        return True

    def wall(self) -> float:
        return FINISHED + 3600

    def upload(self) -> Upload:
        assert self.pairs is not None
        encoded = metadata.encode(self.pairs)
        return Upload(
            UPLOAD.id,
            0,
            0,
            length=len(self.file.data),
            offset=len(self.file.data),
            metadata=encoded,
            finished_at=FINISHED,
        )

    def inspect(self, _: str) -> Deferred[Upload]:
        return succeed(self.upload())

    def read(self, _: str) -> Deferred[tuple[Upload, File]]:
        if self.pairs is None:
            raise NotFound("There is no such upload.")
        data = self.file.data
        self.file.read = lambda offset, size: succeed(data[offset : offset + size])  # type: ignore[method-assign]
        return succeed((self.upload(), self.file))


def get(
    pairs: dict[str, str | bytes] | None, *lines: str, method: str = "GET", data: bytes = b"bytes", **options: Any
) -> tuple[Reply, Finished]:
    uploads = Finished(pairs, data)
    path = f"/files/{UPLOAD.id}"
    return ask("Host: up.example", *lines, method=method, path=path, uploads=uploads, **options), uploads


def test_a_download_is_saved_and_never_shown() -> None:
    reply, uploads = get({"filename": "page.html", "filetype": "text/html; charset=utf-8"})
    assert reply.status == 200 and reply.body == b"bytes" and uploads.file.closed == 1
    assert reply.get("Content-Length") == "5"
    assert reply.get("Content-Type") == "application/octet-stream"
    assert reply.get("Content-Disposition") == 'attachment; filename="page.html"'
    assert reply.get("X-Content-Type-Options") == "nosniff"
    assert reply.get("Content-Security-Policy") == "sandbox; default-src 'none'"


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain\r\nX: y", "html", "text/plain, text/html", b"\xff/x", "text/plain\x00", "a" * 5000]
)
def test_a_type_that_is_none_is_plain_bytes(kind: Any) -> None:
    reply, _ = get({} if kind is None else {"filetype": kind})
    assert reply.get("Content-Type") == "application/octet-stream"
    assert reply.get("Content-Disposition") == "attachment" and reply.get("X") is None


@pytest.mark.parametrize(("given", "saved"), NASTY.items(), ids=range(len(NASTY)))
def test_a_name_is_told_as_it_is_without_directories_and_line_ends(given: str, saved: str | None) -> None:
    reply, _ = get({"filename": given})
    value = reply.get("Content-Disposition")
    assert value is not None and reply.status == 200 and reply.get("Set-Cookie") is None
    assert value.isascii() and value.isprintable()
    message = BytesHeaderParser(policy=HTTP).parsebytes(f"Content-Disposition: {value}\r\n\r\n".encode())
    assert isinstance(message, EmailMessage)
    assert message.get_content_disposition() == "attachment"
    said = value.rpartition("filename*=UTF-8''")[2] if "filename*" in value else None
    if saved is None:
        assert value == "attachment"
    elif said is not None:
        assert unquote(said, errors="strict") == saved
    else:
        assert value == f'attachment; filename="{saved}"'


def test_a_plain_name_stands_beside_the_coded_one() -> None:
    assert disposition('ä"b\\c%41.txt') == (
        "attachment; filename=\"__b_c_41.txt\"; filename*=UTF-8''%C3%A4%22b%5Cc%2541.txt"
    )
    assert disposition(None) == disposition("") == "attachment"


def test_a_name_that_is_no_utf_8_is_no_name() -> None:
    assert get({"filename": b"\xff\xfe"})[0].get("Content-Disposition") == "attachment"


@pytest.mark.parametrize(
    "kind",
    ["text/html", "TEXT/HTML", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml", "text/css",
     "text/javascript", "application/javascript", "application/ecmascript", "module/javascript", "application/wasm",
     "multipart/x-mixed-replace", "message/rfc822", "text/x-component", "application/x-shockwave-flash", "text/vtt",
     "application/rss+xml", "application/mathml+xml", "application/vnd.ms-htmlhelp", "image/x-svg", "text/plainhtml",
     "application/vnd.openxmlformats", "application/manifest+json", "application/ld+json", "x/y", "audio/svg+xml",
     "video/xhtml+xml", "AUDIO/X+XML", "image/png+xml", "video/mp4+xml", "text/plain+xml", "application/pdf+xml",
     "application/vnd.oasis.opendocument.text+xml", "application/vnd.openxmlformats-officedocument.x+xml", "audio/",
     "application/vnd.oasis.opendocument.", "video/html", "audio/xml", "video/mp4 +xml", "video/mp4\t",
     "audio/x-mpegurl",
     "audio/mpeg, text/html", "image/svg", "video/vnd.mpegurl", "application/vnd.oasis.opendocument.a b"],
)  # fmt: skip
def test_a_type_that_a_browser_would_run_or_lay_out_is_plain_bytes(kind: str) -> None:
    for parameters in ("", "; charset=utf-8", ";x=y"):
        assert get({"filetype": kind + parameters})[0].get("Content-Type") == "application/octet-stream"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("image/png", "image/png"),
        ("Image/JPEG", "image/jpeg"),
        ("video/mp4; codecs=avc1", "video/mp4"),
        ("audio/ogg", "audio/ogg"),
        ("AUDIO/MPEG", "audio/mpeg"),
        ("video/quicktime", "video/quicktime"),
        ("application/vnd.oasis.opendocument.text-template", "application/vnd.oasis.opendocument.text-template"),
        ("application/pdf", "application/pdf"),
        ("text/plain", "text/plain"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ('text/csv;charset="UTF-8"', "text/csv; charset=utf-8"),
        ("text/plain; charset=utf-7", "text/plain"),
        ("application/json; charset=utf-8", "application/json"),
        (
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
    ],
)
def test_a_harmless_type_is_told(kind: str, told: str) -> None:
    assert get({"filetype": kind})[0].get("Content-Type") == told == safe_type(kind)


SHOWN = ["image/png", "image/webp", "audio/mpeg", "video/mp4", "application/pdf"]
SAVED = ["image/svg+xml", "text/html", "text/plain", "application/json", "audio/svg+xml", "application/zip", "x/y", ""]


@pytest.mark.parametrize("kind", [*SHOWN, *SAVED])
def test_nothing_is_shown_unless_it_is_switched_on(kind: str) -> None:
    reply, _ = get({"filename": "a", "filetype": kind})
    assert reply.get("Content-Disposition") == 'attachment; filename="a"'
    assert reply.get("Content-Security-Policy") == "sandbox; default-src 'none'"


@pytest.mark.parametrize("kind", SAVED)
def test_what_a_browser_could_run_or_lay_out_is_never_shown(kind: str) -> None:
    reply, _ = get({"filename": "a", "filetype": kind}, inline=True)
    assert reply.get("Content-Disposition") == 'attachment; filename="a"'
    assert reply.get("Content-Security-Policy") == "sandbox; default-src 'none'"
    assert reply.get("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize("kind", SHOWN)
def test_what_browsers_only_show_is_shown_where_that_is_wanted(kind: str) -> None:
    for name, told in (("ä", "inline; filename=\"_\"; filename*=UTF-8''%C3%A4"), ("", "inline")):
        reply, _ = get({"filename": name, "filetype": kind}, inline=True)
        assert (reply.get("Content-Disposition"), reply.get("Content-Type")) == (told, kind)
        assert reply.get("X-Content-Type-Options") == "nosniff"
        policy = set((reply.get("Content-Security-Policy") or "").split("; "))
        assert "default-src 'none'" in policy and not any(each.startswith("script-src") for each in policy)
        assert ("sandbox" in policy) == (kind != "application/pdf"), "no viewer of PDF works in a sandbox"


# ranges and conditions


def test_a_download_says_how_it_can_be_asked_for_again() -> None:
    reply, _ = get({})
    assert reply.get("Accept-Ranges") == "bytes" and reply.get("Last-Modified") == AT
    assert reply.get("Cache-Control") == "private, no-cache"
    tag = reply.get("ETag")
    assert tag is not None and tag.startswith('"') and tag.endswith('"') and len(tag) == 34
    assert get({})[0].get("ETag") == tag and UPLOAD.id not in tag
    assert get({}, data=b"others")[0].get("ETag") != tag


@pytest.mark.parametrize(
    ("asked", "sent", "told"),
    [
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=0-99999999999999999999999999", DIGITS, "bytes 0-9/10"),
    ],
)
def test_a_range_is_answered_with_206(asked: str, sent: bytes, told: str) -> None:
    reply, uploads = get({"filename": "a.txt"}, f"Range: {asked}", data=DIGITS)
    assert (reply.status, reply.body, reply.get("Content-Range")) == (206, sent, told)
    assert reply.get("Content-Length") == str(len(sent)) and uploads.file.closed == 1
    assert reply.get("Content-Disposition") == 'attachment; filename="a.txt"' and reply.get("ETag")


@pytest.mark.parametrize(
    "lines",
    [
        ["Range: bytes=0-1,3-4"],
        ["Range: bytes=" + ",".join(f"{each}-{each + 5}" for each in range(1000))],
        ["Range: bytes=4-2"],
        ["Range: lines=1-2"],
        ["Range: bytes=0-1", "Range: bytes=2-3"],
        ["Range: bytes=2-4", 'If-Range: "other"'],
        ["Range: bytes=2-4", "If-Range: Tue, 14 Nov 2023 22:13:19 GMT"],
        ["Range: bytes=99-", 'If-Range: "other"'],
    ],
    ids=range(8),
)
def test_a_range_that_is_none_is_answered_with_all(lines: list[str]) -> None:
    reply, _ = get({}, *lines, data=DIGITS)
    assert (reply.status, reply.body, reply.get("Content-Range")) == (200, DIGITS, None)


def test_a_range_of_what_the_client_has_a_part_of_is_answered() -> None:
    tag = get({}, data=DIGITS)[0].get("ETag")
    for known in (tag, AT):
        reply, _ = get({}, "Range: bytes=2-4", f"If-Range: {known}", data=DIGITS)
        assert (reply.status, reply.body) == (206, b"234")


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0", f"bytes={'9' * 3000}-"])
def test_a_range_behind_the_end_is_416(asked: str) -> None:
    reply, uploads = get({}, f"Range: {asked}", data=DIGITS)
    assert (reply.status, reply.get("Content-Range")) == (416, "bytes */10")
    assert reply.get("Content-Type") == "application/problem+json" and len(reply.body) >= 256
    assert uploads.file.closed == 1 and reply.get("Content-Disposition") is None


def test_who_has_it_already_is_sent_nothing() -> None:
    tag = get({})[0].get("ETag")
    for line in (f"If-None-Match: {tag}", f"If-None-Match: W/{tag}", "If-None-Match: *", f"If-Modified-Since: {AT}"):
        reply, uploads = get({}, line, "Range: bytes=99-")
        assert (reply.status, reply.body, uploads.file.closed) == (304, b"", 1)
        assert (reply.get("ETag"), reply.get("Last-Modified")) == (tag, AT)
        assert reply.get("Cache-Control") == "private, no-cache" and reply.get("Content-Disposition") is None


def test_who_has_something_else_is_told_so() -> None:
    for line in ('If-Match: "x"', "If-Match: W/*", "If-Unmodified-Since: Tue, 14 Nov 2023 22:13:19 GMT"):
        reply, uploads = get({}, line)
        assert (reply.status, uploads.file.closed) == (412, 1)
        assert reply.get("Content-Type") == "application/problem+json" and reply.get("Tus-Version") is None


def test_nothing_is_sent_that_was_finished_in_the_future() -> None:
    uploads = Finished({})
    uploads.wall = lambda: FINISHED - 100  # type: ignore[method-assign]
    reply = ask("Host: up.example", method="GET", path=f"/files/{UPLOAD.id}", uploads=uploads)
    assert reply.get("Last-Modified") == "Tue, 14 Nov 2023 22:11:40 GMT"


def test_a_file_of_no_bytes_is_sent() -> None:
    reply, uploads = get({}, data=b"")
    assert (reply.status, reply.body, reply.get("Content-Length"), uploads.file.closed) == (200, b"", "0", 1)
    assert get({}, "Range: bytes=0-", data=b"")[0].status == 416
    assert get({}, "Range: bytes=-5", data=b"")[0].status == 200


def test_a_page_of_another_origin_sees_what_it_needs_for_ranges() -> None:
    reply, _ = get({}, "Origin: https://app.example", "Range: bytes=1-2")
    exposed = (reply.get("Access-Control-Expose-Headers") or "").split(", ")
    assert reply.status == 206 and {"Content-Range", "Accept-Ranges", "ETag", "Content-Disposition"} <= set(exposed)


def test_switched_off_there_is_no_get_and_nobody_is_told_that_there_is() -> None:
    for method in ("GET", "PUT"):
        reply, uploads = get({}, method=method, download=False)
        assert (reply.status, reply.get("Allow")) == (405, "DELETE, HEAD, OPTIONS, PATCH")
        assert uploads.file.closed == 0
    assert get({}, method="HEAD", download=False)[0].status == 200
    assert get({}, method="OPTIONS", download=False)[0].status == 200
    assert "GET" in (get({}, method="PUT")[0].get("Allow") or "")


def test_a_file_that_cannot_be_read_is_no_file_and_may_be_asked_for_again() -> None:
    uploads = Finished({"filename": "a.txt"})
    read = uploads.read

    def failing(upload_id: str) -> Any:
        answer = read(upload_id)
        uploads.file.read = lambda offset, size: fail(OSError(5, "broken"))  # type: ignore[method-assign]
        return answer

    uploads.read = failing  # type: ignore[method-assign]
    reply = ask("Host: up.example", "Range: bytes=1-2", method="GET", path=f"/files/{UPLOAD.id}", uploads=uploads)
    assert reply.status == 503 and reply.get("Retry-After") and uploads.file.closed == 1
    assert reply.get("Content-Type") == "application/problem+json"
    assert reply.get("Content-Disposition") is None and reply.get("Content-Range") is None and reply.get("ETag") is None


def test_nothing_is_put_in_the_place_of_what_cannot_be_read() -> None:
    data = bytes(3 * CHUNK)
    uploads = Finished({}, data)
    read = uploads.read

    def failing(upload_id: str) -> Any:
        answer = read(upload_id)
        inner = uploads.file.read
        uploads.file.read = lambda offset, size: inner(offset, size) if not offset else fail(OSError(5, "broken"))
        return answer

    uploads.read = failing  # type: ignore[method-assign]
    channel, wire = connect(uploads)
    channel.dataReceived(request("Host: up.example", method="GET", path=f"/files/{UPLOAD.id}"))
    reply = Reply(wire.value())
    assert reply.status == 200 and reply.get("Content-Length") == str(len(data))
    assert reply.body == data[:CHUNK] and wire.disconnecting and uploads.file.closed == 1


def test_head_is_about_the_upload_and_opens_nothing() -> None:
    reply, uploads = get({"filename": "a.txt"}, method="HEAD")
    assert reply.status == 200 and reply.body == b""
    assert (reply.get("Upload-Offset"), reply.get("Upload-Length")) == ("5", "5")
    assert reply.get("Cache-Control") == "no-store"
    assert reply.get("Content-Disposition") is None and uploads.file.closed == 0


def test_what_is_not_there_is_a_problem_document() -> None:
    reply, _ = get(None)
    assert reply.status == 404 and reply.get("Content-Type") == "application/problem+json"
    assert reply.get("Content-Disposition") is None
