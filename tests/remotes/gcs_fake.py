"""A store that does what Google's pages say of Cloud Storage, and takes nothing else; in this process, or on a PORT.

    python -m tests.remotes.gcs_fake PORT

Sources: docs.cloud.google.com/storage/docs/performing-resumable-uploads, .../resumable-uploads,
.../request-preconditions, .../composite-objects, .../batch, .../json_api/v1/status-codes. Where the pages are silent:
conditions of a session are checked when it is finished (github.com/googleapis/google-cloud-java/issues/201, tried on
the store itself), a finished session answers with its object, a chunk behind a gap is answered 503
(github.com/floci-io/floci-gcp/pull/132, too).
"""

from __future__ import annotations

import json
import re
import sys
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import google_crc32c
from attrs import define, field
from twisted.web import resource, server

from resumable.remotes.gcs.records import encoded

QUANTUM = 256 << 10


@define
class Session:
    """``state``: open, done, gone (410) or cancelled (499)."""

    key: str
    resource: dict[str, Any]
    if_generation: str | None
    data: bytearray = field(factory=bytearray)
    state: str = "open"
    made: dict[str, Any] | None = None


class Refused(Exception):
    """An answer that isn't a success."""

    def __init__(self, status: int, message: str, reason: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.reason, self.headers = status, message, reason, headers


class Broken(Exception):
    """The connection breaks."""


class FakeStore:
    """``token``: what requests must carry, but those to a session. ``keeps``: of the next chunk, only so many bytes.

    ``breaks``: of each of the next chunks, only so many bytes come before the connection breaks. ``damages``: of the
    next object that a session makes, or that is composed, the first byte is another. ``page``: objects in one.
    ``refused``: what was against the rules. ``composed``: what was made so, in order, with its parts.
    """

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.token: str | None = None
        self.objects: dict[str, tuple[bytes, dict[str, Any]]] = {}
        self.sessions: dict[str, Session] = {}
        self.keeps: int | None = None
        self.breaks: list[int] = []
        self.damages = False
        self.page = 1000
        self.composed: list[tuple[str, list[str]]] = []
        self.refused: list[str] = []
        self._generation = 1000

    def create(
        self, key: str, data: bytes, properties: dict[str, Any], if_generation: str | None, header: str | None = None
    ) -> dict[str, Any]:
        """An object. What is announced of it is compared before it is there."""
        crc = encoded(google_crc32c.value(data))
        if properties.get("crc32c", crc) != crc or (header and header != f"crc32c={crc}"):
            raise Refused(400, f'Provided CRC32C doesn\'t match calculated CRC32C "{crc}".', "invalid")
        self.check_generation(key, if_generation)
        self._generation += 1
        made = {
            **properties,
            "kind": "storage#object",
            "name": key,
            "bucket": self.bucket,
            "size": str(len(data)),
            "generation": str(self._generation),
            "etag": f"CO{self._generation}=",
            "crc32c": crc,
            "updated": "2026-11-30T22:00:00.5Z",
        }
        self.objects[key] = data, made
        return made

    def compose(self, key: str, asked: dict[str, Any], if_generation: str | None) -> dict[str, Any]:
        """An object of others, which must be of one storage class, the one that it gets."""
        sources = [each["name"] for each in asked["sourceObjects"]]
        if not 1 <= len(sources) <= 32:
            self.refused.append(f"compose of {len(sources)}")
            raise Refused(400, "The number of source components provided is not between 1 and 32.", "invalid")
        for name in sources:
            if name not in self.objects:
                raise Refused(404, f"Object {name} not found.", "notFound")
        classes = {self.objects[name][1].get("storageClass") for name in sources}
        if classes != {asked["destination"].get("storageClass")}:
            self.refused.append(f"compose of {classes}")
            raise Refused(400, "The sources and the destination differ in their storage class.", "invalid")
        self.composed.append((key, sources))
        data = b"".join(self.objects[name][0] for name in sources)
        if self.damages:
            self.damages, data = False, bytes([data[0] ^ 1]) + data[1:]
        return self.create(key, data, asked["destination"], if_generation)

    def listed(self, query: dict[str, str]) -> dict[str, Any]:
        """A page of objects; its size is the store's to choose below what was asked for."""
        first = query.get("pageToken") or query.get("startOffset", "")
        names = sorted(name for name in self.objects if name.startswith(query.get("prefix", "")) and name >= first)
        most = min(int(query.get("maxResults", "1000")), self.page)
        more = {"nextPageToken": names[most]} if len(names) > most else {}
        return {"kind": "storage#objects", "items": [self.objects[name][1] for name in names[:most]], **more}

    def check_generation(self, key: str, wanted: str | None) -> None:
        there = self.objects[key][1]["generation"] if key in self.objects else "0"
        if wanted is not None and wanted != there:
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")

    def start(self, key: str, properties: dict[str, Any], if_generation: str | None) -> str:
        name = f"secret-{len(self.sessions)}-of-the-session-that-nobody-may-see"
        self.sessions[name] = Session(key, properties, if_generation)
        return name

    def put(self, name: str, said: str, data: bytes, header: str | None) -> dict[str, Any] | int:
        """What a session answers: an object, or how many bytes it has."""
        session = self.sessions.get(name)
        if session is None or session.state == "lost":
            raise Refused(404, "", "notFound")
        if session.state in ("gone", "cancelled"):
            raise Refused(410 if session.state == "gone" else 499, "")
        if session.made is not None:
            return session.made
        match = re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(?:\*|(\d+))", said)
        if match is None:
            raise Refused(400, f"Failed to parse Content-Range header {said}.", "badRequest")
        start, end, total = (None if each is None else int(each) for each in match.groups())
        if start is not None and end is not None:
            self._take(session, start, end, total, data)
        elif data:
            raise Refused(400, "a question has no body", "badRequest")
        if total is not None and total == len(session.data):
            whole = bytes(session.data)
            session.made = self.create(session.key, whole, session.resource, session.if_generation, header)
            if self.damages:
                self.damages = False
                self._damage(session)
            return session.made
        return len(session.data)

    def _take(self, session: Session, start: int, end: int, total: int | None, data: bytes) -> None:
        if len(data) != end + 1 - start:
            raise Refused(400, "Content-Range and Content-Length differ", "badRequest")
        if (end + 1) % QUANTUM and end + 1 != total:
            self.refused.append(f"{start}-{end}/{total}")
            raise Refused(400, "Invalid request.  The number of bytes is no multiple of 262144.", "badRequest")
        if start > len(session.data):
            raise Refused(503, "", "backendError")
        kept = data[len(session.data) - start :]
        if self.keeps is not None:
            kept, self.keeps = kept[: self.keeps - self.keeps % QUANTUM], None
        if self.breaks:
            size = self.breaks.pop(0)
            session.data += kept[: size - size % QUANTUM]
            raise Broken
        session.data += kept

    def _damage(self, session: Session) -> None:
        data, made = self.objects[session.key]
        data = bytes([data[0] ^ 1]) + data[1:]
        made = {**made, "crc32c": encoded(google_crc32c.value(data))}
        self.objects[session.key], session.made = (data, made), made

    @property
    def unfinished(self) -> list[str]:
        """Names of what is left of uploads that aren't over."""
        return [each.key for each in self.sessions.values() if each.state == "open" and each.made is None] + [
            key for key in self.objects if ".resumable-" in key
        ]


class FakeApi(resource.Resource):
    """The JSON API before a `FakeStore`."""

    isLeaf = True

    def __init__(self, store: FakeStore) -> None:
        super().__init__()
        self.store = store

    def site(self) -> server.Site:
        site = server.Site(self)
        site.noisy = False
        return site

    def render(self, request: Any) -> Any:
        try:
            status, headers, body = self.answer(request)
        except Broken:
            request.transport.abortConnection()
            return server.NOT_DONE_YET
        except Refused as refused:
            status, headers = refused.status, refused.headers
            detail = {"reason": refused.reason, "message": refused.message}
            error = {"error": {"code": status, "message": refused.message, "errors": [detail]}}
            body = json.dumps(error).encode() if refused.message else b""
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        return body

    def answer(self, request: Any) -> tuple[int, dict[str, str], bytes]:
        method, path = request.method.decode(), request.path.decode()
        if path == "/made":
            return 200, {}, json.dumps({key: len(data) for key, (data, _) in self.store.objects.items()}).encode()
        query = {name.decode(): values[0].decode() for name, values in request.args.items()}
        if path == "/batch/storage/v1":
            return self.batch(request, request.content.read())
        match = re.fullmatch(r"(/upload)?/storage/v1/b/([^/]+)/o(?:/([^/]+)(/compose)?)?", path)
        if match is None:
            raise Refused(404, "Not Found", "notFound")
        if match[2] != self.store.bucket:
            raise Refused(404, "The specified bucket does not exist.", "notFound")
        body = request.content.read()
        if "upload_id" in query:
            return self.session(method, query["upload_id"], request, body)
        if self.store.token and request.getHeader("authorization") != f"Bearer {self.store.token}":
            raise Refused(401, "Invalid Credentials", "authError")
        if match[1]:
            return self.upload(request, query, body)
        if match[3] is None:
            return 200, {}, json.dumps(self.store.listed(query)).encode()
        if match[4]:
            made = self.store.compose(unquote(match[3]), json.loads(body), query.get("ifGenerationMatch"))
            return 200, {}, json.dumps(made).encode()
        return self.object(method, unquote(match[3]), query, request.getHeader("range"))

    def upload(self, request: Any, query: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        condition = query.get("ifGenerationMatch")
        if query["uploadType"] == "resumable":
            name = self.store.start(query["name"], json.loads(body), condition)
            where = f"http://{request.getHeader('host')}{request.path.decode()}?uploadType=resumable"
            where += f"&name={quote(query['name'], safe='')}&upload_id={name}"
            return 200, {"Location": where}, b""
        if query["uploadType"] == "media":
            return 200, {}, json.dumps(self.store.create(query["name"], body, {}, condition)).encode()
        whole = b"Content-Type: " + request.getHeader("content-type").encode() + b"\r\n\r\n" + body
        first, second = BytesParser().parsebytes(whole).get_payload()
        # the parser changes line ends of what isn't text
        boundary = re.search(r"boundary=(\S+)", request.getHeader("content-type"))[1].encode()
        data = body.split(b"--" + boundary)[2].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        properties = {"contentType": second.get_content_type(), **json.loads(first.get_payload())}
        return 200, {}, json.dumps(self.store.create(query["name"], data, properties, condition)).encode()

    def batch(self, request: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """The calls of a batch, deletions only; each has an answer of its own."""
        if self.store.token and request.getHeader("authorization") != f"Bearer {self.store.token}":
            raise Refused(401, "Invalid Credentials", "authError")
        whole = b"Content-Type: " + request.getHeader("content-type").encode() + b"\r\n\r\n" + body
        calls = BytesParser().parsebytes(whole).get_payload()
        if len(calls) > 100:
            self.store.refused.append(f"batch of {len(calls)}")
            raise Refused(400, "The batch request could not be processed.", "badRequest")
        answers = []
        for call in calls:
            method, url, _ = call.get_payload().split("\r\n", 1)[0].split(" ")
            path, _, query = url.partition("?")
            match = re.fullmatch(r"/storage/v1/b/([^/]+)/o/([^/]+)", path)
            assert method == "DELETE"
            assert match is not None
            try:
                self.object("DELETE", unquote(match[2]), dict(parse_qsl(query)), None)
                said = "204 No Content"
            except Refused as refused:
                said = f"{refused.status} Refused"
            name = f"response-{call['Content-ID'].strip('<>')}"
            answers.append(
                f"--batch_x\r\nContent-Type: application/http\r\nContent-ID: <{name}>\r\n\r\n"
                f"HTTP/1.1 {said}\r\nContent-Length: 0\r\n\r\n\r\n"
            )
        return 200, {"Content-Type": "multipart/mixed; boundary=batch_x"}, "".join([*answers, "--batch_x--"]).encode()

    def session(self, method: str, name: str, request: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if method == "DELETE":
            if name not in self.store.sessions:
                raise Refused(404, "", "notFound")
            self.store.sessions[name].state = "cancelled"
            return 499, {}, b""
        said, header = request.getHeader("content-range") or "", request.getHeader("x-goog-hash")
        got = self.store.put(name, said, body, header)
        if isinstance(got, int):
            return 308, {"Range": f"bytes=0-{got - 1}"} if got else {}, b""
        return 200, {}, json.dumps(got).encode()

    def object(
        self, method: str, key: str, query: dict[str, str], wanted: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        if key not in self.store.objects:
            raise Refused(404, f"No such object: {self.store.bucket}/{key}", "notFound")
        data, made = self.store.objects[key]
        if method == "DELETE":
            self.store.check_generation(key, query.get("ifGenerationMatch"))
            del self.store.objects[key]
            return 204, {}, b""
        if query.get("generation", made["generation"]) != made["generation"]:
            raise Refused(404, f"No such object: {self.store.bucket}/{key}", "notFound")
        if query.get("alt") != "media":
            return 200, {}, json.dumps(made).encode()
        if wanted is None:
            return 200, {}, data
        first, last = (int(each) for each in wanted.removeprefix("bytes=").split("-"))
        if first >= len(data):
            raise Refused(416, "", "requestedRangeNotSatisfiable")
        piece = data[first : last + 1]
        return 206, {"Content-Range": f"bytes {first}-{first + len(piece) - 1}/{len(data)}"}, piece


if __name__ == "__main__":
    from twisted.internet import reactor

    reactor.listenTCP(int(sys.argv[1]), FakeApi(FakeStore("the-bucket")).site(), interface="127.0.0.1")
    reactor.run()
