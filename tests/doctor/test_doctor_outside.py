"""The first answer of a public URL: from whom, how long its certificate is good, what time it is there."""

from __future__ import annotations

import datetime
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from attrs import evolve

from resumable.doctor import outside
from resumable.doctor.outside import Outside
from tests.certificates import DAY, certified

NOW = datetime.datetime(2026, 10, 1, tzinfo=datetime.UTC)
TUS = Outside("https://x/files/", status=200, fields={"tus-version": "1.0.0"}, days=60.0)


@pytest.mark.parametrize(
    ("found", "levels", "words"),
    [
        (TUS, ["ok", "ok"], "as tus 1.0.0"),
        (evolve(TUS, days=None), ["ok"], "as tus 1.0.0"),
        (evolve(TUS, days=3.0), ["ok", "warn"], "as tus 1.0.0"),
        (evolve(TUS, fields={}, status=405), ["bad", "ok"], "405, and not as tus"),
        (Outside("http://x/", silent="refused"), ["bad"], "doesn't answer: refused"),
        (Outside("http://x/", silent="self-signed", untrusted=True), ["bad"], "isn't trusted: self-signed"),
    ],
)
def test_what_is_met_first_is_judged(found, levels, words):
    findings = outside.judge(found)
    assert [each.level for each in findings] == levels
    assert words in findings[0].what
    assert all(each.advice for each in findings if each.level != "ok")


class Answers(http.server.BaseHTTPRequestHandler):
    def do_OPTIONS(self) -> None:
        self.send_response_only(200)
        self.send_header("Tus-Version", "1.0.0")
        self.send_header("Date", "Thu, 01 Oct 2026 00:10:00 GMT")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_is_asked_once_and_its_clock_compared():
    with serving() as port:
        found = outside.look(f"http://127.0.0.1:{port}/files/", NOW.timestamp())
    assert (found.silent, found.status, found.ahead, found.days) == (None, 200, 600.0, None)
    assert found.fields["tus-version"] == "1.0.0"


@pytest.mark.parametrize("date", [None, "soon", "Mon, 01 Jan 2024 0:0:0 +9" + "9" * 30])
def test_a_date_that_makes_no_sense_tells_nothing_of_the_clock(date):
    assert outside._ahead(date, 0.0) is None


def test_a_certificate_is_verified_and_its_days_counted(tmp_path):
    path = str(tmp_path / "both.pem")
    (tmp_path / "both.pem").write_bytes(certified("localhost", ends=10 * DAY).both)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    now = datetime.datetime.now(datetime.UTC).timestamp()
    with serving(context) as port:
        url = f"https://localhost:{port}/files/"
        found = outside.look(url, now, ssl.create_default_context(cafile=path))
        assert found.silent is None and found.days is not None and 9.9 < found.days < 10.1
        untrusted = outside.look(url, now)
    assert untrusted.untrusted and "self" in (untrusted.silent or "")


def test_nobody_there_is_told_in_few_words():
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    assert outside.look(f"http://127.0.0.1:{port}/", 0.0).silent == "Connection refused"
    assert outside.look("http://no-such-host.invalid/", 0.0).silent
    with closing(socket.create_server(("127.0.0.1", 0))) as garbage:

        def answer() -> None:
            link, _ = garbage.accept()
            with link:
                link.recv(1000)
                link.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert outside.look(f"http://127.0.0.1:{garbage.getsockname()[1]}/", 0.0).silent
        thread.join()
