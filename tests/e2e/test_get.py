"""`resumable get`: cut, and gone on with by Range; names, digests, standard output; and what servers do wrong."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.certificates import certified

from .daemon import BOUND, Daemon, environment, free_port
from .sender import COMMAND, Event, Sender
from .tus import Tus, metadata, pattern, sha256

DATA = pattern(3_000_003, seed=23)
FLAGS = ("--digest", "sha256")
SLOW = ("--limit-rate", "700K")


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(tmp_path)


def stored(daemon: Daemon, tus: Tus, name: str = "film.mp4") -> str:
    """The URL of a finished upload."""
    path = tus.create(len(DATA), {"Upload-Metadata": metadata(filename=name)}, DATA)
    return f"{daemon.origin}{path}"


def is_moving(event: Event) -> bool:
    return bool(event["event"] == "progress" and event["offset"] > 300_000)


@contextmanager
def server(status: int, body: bytes, fields: Mapping[str, str]) -> Iterator[str]:
    """The URL of a file at a server that answers each request so."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **fields}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_OPTIONS = answer

        def log_message(self, *_: object) -> None:
            pass

    there = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=there.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{there.server_address[1]}/plan.pdf"
    finally:
        there.shutdown()
        thread.join()
        there.server_close()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_the_same_command_goes_on_at_the_same_byte(
    daemon: Daemon, tus: Tus, sender: Sender, number: int, status: int
) -> None:
    url = stored(daemon, tus)
    left, said = sender.cut(number, "get", url, *SLOW, when=is_moving)
    assert left == status and (number != signal.SIGINT or "the same command goes on" in said)
    there = (sender.home / "film.mp4.part").stat().st_size
    assert 0 < there < len(DATA) and not (sender.home / "film.mp4").exists()
    started, *_, finished = sender.events("get", url)
    assert (started["event"], started["offset"]) == ("started", there)
    assert (finished["event"], finished["resumed_from"], finished["checked"]) == ("finished", there, True)
    assert (sender.home / "film.mp4").read_bytes() == DATA


def test_a_receipt_has_the_digest(daemon: Daemon, tus: Tus, sender: Sender) -> None:
    done = sender.run("get", stored(daemon, tus), "--output", "mine.mp4")
    assert done.stdout.decode().endswith(f", sha-256 {sha256(DATA)} checked, mine.mp4\n")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_name_is_never_a_path(daemon: Daemon, tus: Tus, sender: Sender) -> None:
    below = sender.home / "below"
    below.mkdir()
    assert sender.run("get", stored(daemon, tus, "../../etc/\x1b[31mpass\nwd"), "-o", "below").returncode == 0
    (only,) = below.iterdir()
    assert only.name.isprintable() and only.read_bytes() == DATA


def test_what_is_there_is_replaced_only_when_that_is_asked_for(daemon: Daemon, tus: Tus, sender: Sender) -> None:
    (sender.home / "film.mp4").write_text("mine")
    url = stored(daemon, tus)
    assert sender.said("get", url).endswith("film.mp4 is there already; --overwrite replaces it")
    assert (sender.home / "film.mp4").read_text() == "mine"
    assert sender.run("get", url, "--overwrite").returncode == 0
    assert (sender.home / "film.mp4").read_bytes() == DATA


def test_standard_output_has_the_file_and_nothing_else(daemon: Daemon, tus: Tus, sender: Sender) -> None:
    done = sender.run("get", stored(daemon, tus), "-o", "-")
    assert (done.returncode, done.stdout) == (0, DATA)
    assert b": received, 2.9 MiB in " in done.stderr
    assert {each.name for each in sender.home.iterdir()} <= {"state"}


def test_a_reader_of_standard_output_that_has_enough_is_no_error(daemon: Daemon, tus: Tus, sender: Sender) -> None:
    url = stored(daemon, tus)
    done = subprocess.run(
        ["sh", "-c", f'{{ "$@" get {url} -o -; echo $? > status; }} | head -c 1000', "sh", *COMMAND],
        cwd=sender.home,
        env=environment(sender.env),
        capture_output=True,
        timeout=BOUND,
    )
    assert (done.stdout, done.stderr) == (DATA[:1000], b"")
    assert (sender.home / "status").read_text() == "0\n"


def test_several_files_at_a_time_and_one_that_is_not_there(daemon: Daemon, tus: Tus, sender: Sender) -> None:
    urls = [stored(daemon, tus, name) for name in ("a", "b")]
    done = sender.run("get", *urls, f"{daemon.url}{'0' * 32}")
    assert done.returncode == 1 and b" answers 404: " in done.stderr
    assert [(sender.home / name).read_bytes() == DATA for name in ("a", "b")] == [True, True]


def test_other_bytes_than_the_digest_says_are_an_error(sender: Sender) -> None:
    with server(200, b"other", {"Repr-Digest": "sha-256=:" + "A" * 43 + "=:"}) as url:
        said = sender.said("get", url)
    assert "digest" in said
    assert not (sender.home / "plan.pdf").exists()


def test_a_page_is_no_place_for_uploads(sender: Sender) -> None:
    (sender.home / "a.txt").write_text("a")
    with server(200, b"<!doctype html>", {"Content-Type": "text/html"}) as url:
        said = sender.said("put", "a.txt", url)
    assert "speaks neither tus 1.0 nor the draft: give the URL at which uploads are created" in said


def test_a_certificate_is_checked(serve: Callable[..., Daemon], sender: Sender) -> None:
    certificate, port = certified("localhost"), free_port()
    (sender.home / "server.pem").write_bytes(certificate.both)
    (sender.home / "ca.pem").write_bytes(certificate.pem)
    (sender.home / "a.txt").write_text("a")
    serve("--listen", f"ssl:{port}:privateKey={sender.home}/server.pem:interface=127.0.0.1")
    url = f"https://127.0.0.1:{port}/files/"
    said = sender.said("put", "a.txt", url)
    assert " isn't trusted: " in said and said.endswith(" give its certificate with --ca-file"), said
    for flags in (("--ca-file", "ca.pem"), ("--insecure",)):
        done = sender.run("put", "a.txt", url, *flags)
        assert (done.returncode, done.stderr) == (0, b"")
