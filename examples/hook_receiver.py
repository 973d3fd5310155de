#!/usr/bin/env python3
"""Receive the events of an upload server, and decide about new uploads.

    HOOK_SECRETS=whsec_... python3 examples/hook_receiver.py --port 8000

Needs nothing but Python. Verifies each signature (https://www.standardwebhooks.com), drops what it has seen before,
prints what happens, and lets only uploads begin that have a filename. Several secrets, separated by blanks, are
all accepted while one is being replaced by another.

What it has seen is kept in memory here. Keep it where your results are, in the same transaction: then a crash of
either side neither loses an event nor counts one twice.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

TOLERANCE = 5 * 60
LONGEST_BODY = 1 << 20
REMEMBERED = 10_000


class Forged(Exception):
    """It was not signed by the server that we know, or a long time ago."""


def key_of(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4))


def verify(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], now: float) -> str:
    """The message's id; raises Forged."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(now - int(timestamp)) > TOLERANCE:
        raise Forged("its timestamp is missing, too old or too new")
    content = f"{message_id}.{timestamp}.".encode() + body
    for signature in headers.get("webhook-signature", "").split():
        for key in keys:
            expected = "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()
            if hmac.compare_digest(expected.encode(), signature.encode()):
                return message_id
    raise Forged("no signature fits")


def decide(upload: Mapping[str, object]) -> dict[str, object]:
    """Whether an upload may begin."""
    metadata = upload["metadata"]
    assert isinstance(metadata, dict)
    if not metadata.get("filename"):
        return {"allow": False, "response": {"status": 422, "body": "Give the file a name, please.\n"}}
    return {"allow": True}


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    keys: Sequence[bytes] = ()
    seen: ClassVar[OrderedDict[str, None]] = OrderedDict()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", -1))
        if not 0 <= length <= LONGEST_BODY:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        try:
            message_id = verify(self.headers, body, self.keys, time.time())
        except Forged as error:
            print("refused:", error, file=sys.stderr)
            return self.answer(401)
        event = json.loads(body)
        kind = event["type"].removeprefix("resumable.upload.")
        if kind.startswith("before-"):
            # a question: it wants an answer with "allow" in it, anything else is a no
            return self.answer(200, decide(event["data"]["upload"]) if kind == "before-create" else {"allow": True})
        if message_id not in self.seen:
            self.happened(kind, event)
            self.seen[message_id] = None
            if len(self.seen) > REMEMBERED:
                self.seen.popitem(last=False)
        # only now: whatever is not answered with 2xx comes again
        return self.answer(204)

    def happened(self, kind: str, event: Mapping[str, object]) -> None:
        print(kind, event["subject"], json.dumps(event["data"]), flush=True)

    def answer(self, status: int, document: Mapping[str, object] | None = None) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        if document is not None:
            self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description="Receive the events of an upload server.")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    arguments = parser.parse_args()
    secrets = os.environ.get("HOOK_SECRETS", "").split()
    if not secrets:
        parser.error("set HOOK_SECRETS to the secret that the upload server signs with")
    Receiver.keys = [key_of(secret) for secret in secrets]
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
