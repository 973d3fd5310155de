"""Downloads: pieces at the client's pace, a reader that is closed however it ends, and names that do no harm."""

from __future__ import annotations

from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import HTTP
from typing import Any
from urllib.parse import unquote

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from visitor import UPLOAD, Reply, ask
from zope.interface.verify import verifyObject

from resumable.http.download import CHUNK, Download, disposition
from resumable.interfaces import Upload
from resumable.protocol import metadata
from resumable.protocol.errors import NotFound

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


def begin(file: File, client: Client, size: int | None = None) -> tuple[Any, list[Any]]:
    """A download and, once it has ended, its outcome: None or a Failure."""
    download = Download(client, file, len(file.data) if size is None else size)  # type: ignore[arg-type]
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

    def __init__(self, pairs: dict[str, str | bytes] | None) -> None:
        self.pairs = pairs
        self.file = File(b"bytes")
        self.engine = self

    def expires_at(self, upload: Upload) -> None:
        return None

    def upload(self) -> Upload:
        assert self.pairs is not None
        encoded = metadata.encode(self.pairs)
        return Upload(id=UPLOAD.id, created_at=0, touched_at=0, length=5, offset=5, metadata=encoded)

    def inspect(self, _: str) -> Deferred[Upload]:
        return succeed(self.upload())

    def read(self, _: str) -> Deferred[tuple[Upload, File]]:
        if self.pairs is None:
            raise NotFound("There is no such upload.")
        self.file.read = lambda offset, size: succeed(self.file.data)  # type: ignore[method-assign]
        return succeed((self.upload(), self.file))


def get(pairs: dict[str, str | bytes] | None, method: str = "GET") -> tuple[Reply, Finished]:
    uploads = Finished(pairs)
    return ask("Host: up.example", method=method, path=f"/files/{UPLOAD.id}", uploads=uploads), uploads


def test_a_download_is_saved_and_never_shown() -> None:
    reply, uploads = get({"filename": "page.html", "filetype": "text/html; charset=utf-8"})
    assert reply.status == 200 and reply.body == b"bytes" and uploads.file.closed == 1
    assert reply.get("Content-Length") == "5"
    assert reply.get("Content-Type") == "text/html; charset=utf-8"
    assert reply.get("Content-Disposition") == 'attachment; filename="page.html"'
    assert reply.get("X-Content-Type-Options") == "nosniff"
    assert reply.get("Content-Security-Policy") == "sandbox; default-src 'none'"


@pytest.mark.parametrize("kind", [None, "", "text/html\r\nX: y", "html", "text/html, text/plain", b"\xff/x"])
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
