"""Where operators reach a daemon, and what they are told when they don't."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from resumable.cli.admin_client import AdminLine, BadUrl, NoDaemon, Reply, where
from resumable.cli.main import main


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("unix:/run/admin.sock:mode=660", "unix:/run/admin.sock"),
        ("unix:address=/run/a\\:b.sock:mode=600:lockfile=0", "unix:/run/a:b.sock"),
        ("tcp:9090", "http://127.0.0.1:9090"),
        ("tcp:port=9090:interface=10.0.0.1", "http://10.0.0.1:9090"),
        ("tcp6:9090", "http://[::1]:9090"),
        ("tcp6:9090:interface=fd00\\:\\:1", "http://[fd00::1]:9090"),
        ("ssl:9443:privateKey=a:certKey=b", "https://127.0.0.1:9443"),
        ("tcp:0", None),
        ("systemd:domain=INET:index=0", None),
    ],
)
def test_what_listens_there_is_reached_there(endpoint, place):
    assert where(endpoint) == place


@contextmanager
def answering(server: socket.socket, answer: bytes) -> Iterator[list[bytes]]:
    """Answers one request; what it was."""
    asked: list[bytes] = []

    def serve() -> None:
        link, _ = server.accept()
        with link:
            asked.append(link.recv(10_000))
            link.sendall(answer)

    with closing(server):
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


OK = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}'


def test_a_socket_is_asked(tmp_path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{tmp_path}/s")
    server.listen()
    with answering(server, OK) as asked:
        reply = AdminLine(f"unix:{tmp_path}/s").ask("GET", "/uploads", {"state": "a b"})
    assert reply == Reply(200, {"a": 1})
    assert asked[0].startswith(b"GET /uploads?state=a+b HTTP/1.1\r\nHost: localhost\r\n")
    assert b"Authorization" not in asked[0]


def test_a_port_is_asked_with_a_token():
    server = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.getsockname()[1]}/ops/"
    with answering(server, b"HTTP/1.1 404 Not Found\r\n\r\nnothing") as asked:
        assert AdminLine(url, "s3cret").ask("DELETE", "/uploads/x") == Reply(404, "nothing")
    assert asked[0].startswith(b"DELETE /ops/uploads/x HTTP/1.1\r\n")
    assert b"Authorization: Bearer s3cret\r\n" in asked[0]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("unix:/no/such/socket", "no daemon answers at unix:/no/such/socket (No such file or directory)"),
        ("http://no-such-host.invalid", "no daemon answers"),
        (f"unix:/{'x' * 200}", "no daemon answers"),
    ],
)
def test_nobody_there_is_one_sentence(place, words):
    with pytest.raises(NoDaemon, match=r"^[^\n]+$") as caught:
        AdminLine(place, patience=5).ask("GET", "/")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "an empty text is no URL; it looks like http://127.0.0.1:9090 or unix:/path"),
        ("foo", "foo is no URL; it looks like http://127.0.0.1:9090 or unix:/path"),
        ("ftp://x", "ftp://x is no URL; it looks like http://127.0.0.1:9090 or unix:/path"),
        ("http://", "http:// is no URL; it looks like http://127.0.0.1:9090 or unix:/path"),
        ("http://[", "that is no URL; it looks like http://127.0.0.1:9090 or unix:/path"),
        ("http://x:99999", "the port of http://x:99999 is no number from 0 to 65535"),
        ("http://x:abc", "the port of http://x:abc is no number from 0 to 65535"),
    ],
)
def test_what_is_no_url_is_told_of_as_such(url, words, capsys):
    with pytest.raises(BadUrl) as caught:
        AdminLine(url).ask("GET", "/")
    assert str(caught.value) == words
    assert main(["ls", "--url", url], {}) == 2
    assert capsys.readouterr() == ("", f"resumable: --url: {words}\n")


def test_what_answers_nonsense_is_no_daemon():
    server = socket.create_server(("127.0.0.1", 0))
    with answering(server, b"SSH-2.0\r\n"), pytest.raises(NoDaemon):
        AdminLine(f"http://127.0.0.1:{server.getsockname()[1]}").ask("GET", "/")


@pytest.mark.parametrize("url", ["http://ann:hunter2@127.0.0.1:1/", "http://127.0.0.1:1/?key=hunter2", "ftp://h/?a=hunter2",
                                 "http://[hunter2", "https://:hunter2@h/"])  # fmt: skip
def test_no_secret_of_a_url_is_repeated(url):
    with pytest.raises(NoDaemon) as caught:
        AdminLine(url, patience=5.0).ask("GET", "/v1/status")
    assert "hunter2" not in str(caught.value)
