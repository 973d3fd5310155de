"""Bodies into S3 by the least work: parts of a file by sendfile(2), and nothing is read for a digest or a signature.

Changes when the store wants another request. Invariant: what is sent is what lies in the file, or came from the client.
Signatures: AWS Signature Version 4 with UNSIGNED-PAYLOAD.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import quote, urlsplit

from bench.load import Connection

PART = 8 << 20
AT_ONCE = 4
UNSIGNED = "UNSIGNED-PAYLOAD"
SIGNED = "host;x-amz-content-sha256;x-amz-date"


def signed(method: str, path: str, query: str, host: str) -> dict[str, str]:
    """Return the headers that sign a request with the environment's keys; ``query`` is in the order of its names."""
    now, region = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), os.environ["AWS_REGION"]
    fields = f"host:{host}\nx-amz-content-sha256:{UNSIGNED}\nx-amz-date:{now}\n"
    request = hashlib.sha256("\n".join([method, path, query, fields, SIGNED, UNSIGNED]).encode()).hexdigest()
    scope = f"{now[:8]}/{region}/s3/aws4_request"
    key = b"AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    for word in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{request}"):
        key = hmac.digest(key, word.encode(), "sha256")
    names = f"Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope},SignedHeaders={SIGNED},Signature={key.hex()}"
    return {"x-amz-date": now, "x-amz-content-sha256": UNSIGNED, "Authorization": f"AWS4-HMAC-SHA256 {names}"}


class Store:
    """A bucket, and threads that each keep a connection to it."""

    def __init__(self, url: str, bucket: str) -> None:
        place = urlsplit(url)
        self.host, self.port, self.bucket = place.netloc, int(place.port or 80), bucket
        self.threads = ThreadPoolExecutor(AT_ONCE)
        self._own = threading.local()

    def ask(self, method: str, name: str, query: str, size: int, send: Callable[[int], object]) -> tuple[str, str]:
        """Send one request with ``size`` bytes that ``send`` puts on the socket; the answer's ETag and body."""
        if not hasattr(self._own, "connection"):
            self._own.connection = Connection(self.port)
        connection: Connection = self._own.connection
        path = f"/{self.bucket}/{name}"
        headers = {"Host": self.host, "Content-Length": str(size), **signed(method, path, query, self.host)}
        lines = [f"{method} {path}?{query} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        connection.send("\r\n".join([*lines, "", ""]).encode())
        send(connection.sock.fileno())
        answer = connection.answer().expect(200)
        return answer.headers.get("etag", ""), answer.body.decode()

    def put(self, name: str, body: bytes) -> None:
        """Let a thread send a small object."""
        self.threads.submit(self.ask, "PUT", name, "", len(body), lambda out: os.write(out, body))


class Parts:
    """One upload of a file into an object of that name, begun when it is made."""

    def __init__(self, store: Store, name: str, fd: int) -> None:
        self.store, self.name, self.fd, self.sent = store, name, fd, 0
        self.tags: list[Future[tuple[str, str]]] = []
        begun = store.ask("POST", name, "uploads=", 0, lambda out: None)[1]
        self.id = quote(re.findall("<UploadId>([^<]+)", begun)[0], safe="")

    def reach(self, size: int, last: bool = False) -> None:
        """Let the threads send what the file has up to ``size``: whole parts, and the rest if it is the ``last``."""
        while self.sent < size and (last or size - self.sent >= PART):
            at, self.sent = self.sent, min(size, self.sent + PART)
            query = f"partNumber={len(self.tags) + 1}&uploadId={self.id}"
            self.tags.append(self.store.threads.submit(self._part, query, at, self.sent - at))

    def _part(self, query: str, at: int, size: int) -> tuple[str, str]:
        def send(out: int) -> None:
            done = 0
            while done < size:
                done += os.sendfile(out, self.fd, at + done, size - done)

        return self.store.ask("PUT", self.name, query, size, send)

    def complete(self) -> None:
        """Wait for the parts and make them one object."""
        tags = [tag.result()[0] for tag in self.tags]
        part = "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>".format
        parts = "".join(part(number, tag) for number, tag in enumerate(tags, 1))
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        self.store.ask("POST", self.name, f"uploadId={self.id}", len(body), lambda out: os.write(out, body))
