#!/usr/bin/env python3
"""Receives the events of an upload server, and decides about new uploads.

    HOOK_SECRETS=whsec_... python3 examples/hook_receiver.py --port 8000

It needs only Python. It verifies each signature (https://www.standardwebhooks.com), drops events that arrive twice,
prints the others, and allows only uploads with a filename. It accepts several secrets, separated by blanks, so that you
can replace one by another.

This example stores the ids of events in memory. Store them together with your results, in the same transaction: then
no crash on either side loses an event or counts it twice.
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
    """The request has no valid signature of the server, or an old one."""


def key_of(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4))


def verify(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], now: float) -> str:
    """Return the id of the message. Raises Forged."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(now - int(timestamp)) > TOLERANCE:
        raise Forged("its timestamp is missing, too old or too new")
    content = f"{message_id}.{timestamp}.".encode() + body
    for signature in headers.get("webhook-signature", "").split():
        for key in keys:
            expected = "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()
            if hmac.compare_digest(expected.encode(), signature.encode()):
                return message_id
    raise Forged("no signature is valid")


def decide(upload: Mapping[str, object]) -> dict[str, object]:
    """Return the answer to before-create: an upload needs a filename."""
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
            # a question: only an answer with "allow": true allows it
            return self.answer(200, decide(event["data"]["upload"]) if kind == "before-create" else {"allow": True})
        if message_id not in self.seen:
            self.happened(kind, event)
            self.seen[message_id] = None
            if len(self.seen) > REMEMBERED:
                self.seen.popitem(last=False)
        # answer last: the server sends an event again until it gets a 2xx
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
