"""Hooks of a real daemon: told at least once and in order, asked without exception, whatever dies meanwhile."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from .commands import ask
from .daemon import BOUND, Daemon, eventually, run_twistd
from .hook_server import PREFIX, Document, HookServer, by_type
from .tus import OCTETS, Tus, metadata

DATA = b"0123456789"
PATIENCE = 120.0
QUICK = ("--hook-timeout", "1s", "--guard-timeout", "3s")


def patch(daemon: Daemon, path: str, offset: int, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
    return ask(daemon, "PATCH", path, body, Upload_Offset=str(offset), Content_Type=OCTETS)


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


# told


def test_an_upload_is_told_of_from_its_creation_to_its_end(serve, hook):
    secret = base64.b64encode(b"a secret of 24 bytes or more").decode()
    daemon = serve(
        "--hook", hook.url, "--hook-secret", f"whsec_{secret}", "--hook-forward-headers", "X-Own,Cookie", *QUICK
    )
    tus = daemon.attach(Tus(daemon.port))
    path = tus.create(10, {"X-Own": "yes", "Authorization": "secret", "Upload-Metadata": metadata(filename="a.txt")})
    tus.finish(path, DATA)
    tus.delete(path)
    eventually(lambda: len(hook.of(id_of(path))) == 3)
    assert hook.of(id_of(path)) == ["created", "finished", "terminated"]
    created = hook.documents[0]
    assert created["specversion"] == "1.0" and created["source"] == "/files/"
    assert created["data"]["upload"]["metadata"] == {"filename": "a.txt"}
    assert created["data"]["request"]["method"] == "POST"
    assert created["data"]["request"]["headers"] == {"x-own": ["yes"]}
    sent = hook.headers[0]
    assert sent["x-own"] == "yes" and "authorization" not in sent
    signed = f"{sent['webhook-id']}.{sent['webhook-timestamp']}.".encode()
    body = json.dumps(created, separators=(",", ":")).encode()
    mac = hmac.digest(b"a secret of 24 bytes or more", signed + body, hashlib.sha256)
    assert sent["webhook-signature"] == "v1," + base64.b64encode(mac).decode()


def test_what_is_stored_is_told_for_each_remote_and_for_all(serve, hook, tmp_path):
    daemon = serve("--hook", hook.url, "--remote", f"file://{tmp_path}?name=far", "--hook-events", "stored")
    path = daemon.attach(Tus(daemon.port)).create(10, {"Upload-Metadata": metadata(filename="a.txt")}, DATA)
    eventually(lambda: len(hook.documents) >= 2)
    one, all_ = (each["data"] for each in hook.documents)
    assert one["details"]["remote"] == "far" and one["details"]["key"] == id_of(path)
    assert all_["details"]["remote"] is None
    assert one["upload"]["metadata"] == all_["upload"]["metadata"] == {"filename": "a.txt"}


def test_what_expires_is_told(serve, hook):
    daemon = serve("--hook", hook.url, "--expire-after", "2s")
    path = daemon.attach(Tus(daemon.port)).create(10)
    eventually(lambda: hook.of(id_of(path)) == ["created", "expired"])


class Load:
    """Uploads that begin, go on and end while the daemon is killed; what was acknowledged of each."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self._daemon = daemon
        self._rng = Random(seed)
        self._over = False
        self.acknowledged: dict[str, list[str]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join(BOUND)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._over:
            with suppress(OSError, http.client.HTTPException):
                self._one()
            time.sleep(0.01)  # a client's pace

    def _one(self) -> None:
        status, headers, _ = ask(self._daemon, "POST", Upload_Length="10")
        if status != 201:
            assert status == 503
            return
        path = "/files/" + id_of(headers["Location"])
        acknowledged = self.acknowledged[id_of(path)] = ["created"]
        offset = 0
        for _ in range(200):
            if offset >= 10:
                acknowledged.append("finished")
                break
            if self._over:
                return
            with suppress(OSError, http.client.HTTPException):
                status, headers, _ = ask(self._daemon, "HEAD", path)
                if status == 200:
                    offset = int(headers["Upload-Offset"])
                size = self._rng.choice([3, 10])
                status, headers, _ = patch(self._daemon, path, offset, DATA[offset : offset + size])
                if status == 204:
                    offset = int(headers["Upload-Offset"])
        if offset == 10 and self._rng.random() < 0.3:
            status, _, _ = ask(self._daemon, "DELETE", path)
            if status == 204:
                acknowledged.append("terminated")


@pytest.mark.slow
def test_every_event_arrives_in_order_and_no_question_is_skipped_whatever_dies(serve):
    """The hook server is slow, dead, answers garbage or dies within an answer, the daemon is killed again and again."""
    with HookServer(by_type(), pause=0.4) as hook:
        questions = "before-create,before-finish,before-terminate"
        daemon = serve("--hook", hook.url, "--guard", hook.url, "--guard-questions", questions, *QUICK)
        rng = Random(7)
        with Load(daemon, 1) as first, Load(daemon, 2) as second, Load(daemon, 3) as third:
            for mode in ("well", "slow", "garbage", "dead", "well", "cut", "error", "well", "redirect", "slow", "well"):
                if mode == "dead":
                    hook.die()
                else:
                    hook.mode = mode
                time.sleep(rng.uniform(0.2, 0.9))  # a moment of this mode, at any point of which ...
                daemon.restart()
                if mode == "dead":
                    hook.start()
            hook.mode = "well"
            time.sleep(1.0)  # so that some come to their end
        told = {key: value for load in (first, second, third) for key, value in load.acknowledged.items()}
        assert sum("finished" in kinds for kinds in told.values()) > 5, "the load was none"

        def missing() -> list[tuple[str, list[str]]]:
            return [(key, hook.of(key)) for key, kinds in told.items() if not set(kinds) <= set(hook.of(key))]

        eventually(lambda: not missing(), PATIENCE)
        for upload_id in {each["subject"] for each in hook.documents}:
            heard = hook.of(upload_id)
            events = [kind for kind in heard if not kind.startswith("before-")]
            assert events == ["created", "finished", "terminated"][: len(events)], (upload_id, heard)
            for event, question in (("created", "create"), ("finished", "finish"), ("terminated", "terminate")):
                if event in heard:
                    assert heard.index(f"before-{question}") < heard.index(event), (upload_id, heard)


class Picky(HookServer):
    """Fails at uploads whose metadata says so: with an error, or by never answering."""

    def react(self, document, headers):
        word = document["data"]["upload"]["metadata"].get("word")
        if word == "hang":
            self._over.wait(60)
        return (500, b"no") if word in ("error", "hang") else super().react(document, headers)


@pytest.mark.parametrize("word", ["error", "hang"])
def test_uploads_whose_events_fail_hold_back_nobody_elses(serve, word):
    with Picky() as hook:
        daemon = serve("--hook", hook.url, *QUICK)
        tus = daemon.attach(Tus(daemon.port))
        for _ in range(20):
            tus.create(1, {"Upload-Metadata": metadata(word=word)}, b"x")
        daemon.restart()
        paths = [tus.create(10, body=DATA) for _ in range(3)]
        eventually(lambda: all(hook.of(id_of(path)) == ["created", "finished"] for path in paths), 20.0)


def test_events_that_waited_for_a_dead_hook_arrive_after_a_kill(serve, hook):
    daemon = serve("--hook", hook.url, *QUICK)
    tus = daemon.attach(Tus(daemon.port))
    hook.die()
    paths = [tus.create(10, body=DATA) for _ in range(5)]
    daemon.restart()
    paths += [tus.create(10, body=DATA) for _ in range(5)]
    daemon.kill()
    hook.start()
    daemon.start()
    eventually(lambda: all(hook.of(id_of(path)) == ["created", "finished"] for path in paths), PATIENCE)


def test_a_stop_waits_for_no_hook_and_loses_nothing(serve, hook):
    hook.mode, hook.pause = "slow", 30.0
    daemon = serve("--hook", hook.url, "--hook-timeout", "60s", "--shutdown-timeout", "1s")
    path = daemon.attach(Tus(daemon.port)).create(10, body=DATA)
    eventually(lambda: hook.reached)
    assert daemon.stop() == 0
    hook.mode = "well"
    daemon.start()
    eventually(lambda: hook.of(id_of(path)) == ["created", "finished"])


def test_a_stop_breaks_off_questions(serve, hook):
    hook.mode, hook.pause = "slow", 30.0
    daemon = serve("--guard", hook.url, "--hook-timeout", "60s", "--guard-timeout", "60s")
    answers: list[int] = []
    client = threading.Thread(target=lambda: answers.append(ask(daemon, "POST", Upload_Length="10")[0]))
    client.start()
    eventually(lambda: hook.reached)
    assert daemon.stop() == 0
    client.join(BOUND)
    assert answers == [503]


# asked


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["slow", "dead", "garbage", "cut", "error", "redirect"])
def test_a_guard_that_fails_opens_nothing(serve, hook, mode):
    hook.pause = 10.0
    daemon = serve("--guard", hook.url, "--hook-timeout", "300ms", "--guard-timeout", "1s")
    hook.answer = by_type()
    status, headers, _ = ask(daemon, "POST", Upload_Length="10")
    assert status == 201
    path = "/files/" + id_of(headers["Location"])
    hook.mode = mode
    if mode == "dead":
        hook.die()
    for answer in (
        ask(daemon, "POST", Upload_Length="10"),
        patch(daemon, path, 0, DATA),
        ask(daemon, "DELETE", path),
    ):
        assert answer[0] == 503 and answer[1]["Retry-After"]
    status, headers, _ = ask(daemon, "HEAD", path)
    assert (status, headers["Upload-Offset"]) == (200, "0")
    assert [each.name for each in daemon.upload_dir.iterdir() if each.name != ".resumable"] in ([], [id_of(path)])


def test_before_create_sets_id_metadata_key_remotes_and_limit(serve, hook, tmp_path):
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    change = {
        "id": "customer-7_2027-01-15",
        "metadata": {"filename": "invoice.pdf"},
        "key": "invoices/7/invoice.pdf",
        "remotes": ["far"],
        "max_size": 100,
    }
    hook.answer = by_type(before_create={"allow": True, "change": change, "response": {"headers": {"X-Job": "4711"}}})
    daemon = serve("--guard", hook.url, "--remote", f"file://{near}?name=near", "--remote", f"file://{far}?name=far")
    status, headers, _ = ask(daemon, "POST", body=DATA, Upload_Length="10", Content_Type=OCTETS)
    assert (status, headers["X-Job"], headers["Upload-Offset"]) == (201, "4711", "10")
    assert headers["Location"].endswith("/files/customer-7_2027-01-15")
    placed = far / "invoices" / "7" / "invoice.pdf"
    eventually(placed.exists)
    assert placed.read_bytes() == DATA
    assert not [each for each in near.rglob("*") if each.is_file()]
    tus = daemon.attach(Tus(daemon.port))
    seen = tus.head("/files/customer-7_2027-01-15")
    assert seen["upload-metadata"] == metadata(filename="invoice.pdf")
    again, _, _ = ask(daemon, "POST", body=b"x" * 10, Upload_Length="10", Content_Type=OCTETS)
    assert again == 400
    assert tus.content("/files/customer-7_2027-01-15") == DATA, "it is not overwritten"
    hook.answer = by_type(before_create={"allow": True, "change": {"max_size": 100}})
    assert ask(daemon, "POST", Upload_Length="101")[0] == 413


def test_before_finish_refuses_and_then_allows(serve, hook, tmp_path):
    no = {"allow": False, "response": {"status": 422, "body": "It is infected.", "headers": {"X-Why": "virus"}}}
    hook.answer = by_type(before_finish=no)
    daemon = serve("--guard", hook.url, "--hook", hook.url, "--remote", f"file://{tmp_path}?name=far")
    status, headers, _ = ask(daemon, "POST", Upload_Length="10")
    path = "/files/" + id_of(headers["Location"])
    status, headers, body = patch(daemon, path, 0, DATA)
    assert (status, headers["X-Why"], body.rstrip()) == (422, "virus", b"It is infected.")
    assert len(body) >= 256
    daemon.restart()
    status, headers, _ = ask(daemon, "HEAD", path)
    assert (status, headers["Upload-Offset"], headers["Upload-Length"]) == (200, "9", "10")
    assert patch(daemon, path, 9, b"x")[0] == 409
    assert patch(daemon, path, 9, b"9")[0] == 422
    assert not [each for each in tmp_path.rglob("*") if each.is_file() and each.read_bytes() == DATA]
    hook.answer = by_type()
    assert patch(daemon, path, 9, b"9")[0] == 204
    eventually(lambda: (tmp_path / id_of(path)).exists())
    eventually(lambda: "stored" in hook.of(id_of(path)))
    kinds = [kind for kind in hook.of(id_of(path)) if not kind.startswith("before-")]
    assert kinds[:2] == ["created", "finished"]
    asked = [each for each in hook.documents if each["type"] == f"{PREFIX}before-finish"]
    assert len(asked) == 3


def test_a_running_upload_is_stopped_by_the_answer_to_progress(serve, hook):
    stop = {"stop": True, "response": {"status": 410, "body": "The project was closed."}}
    hook.answer = by_type(progress=stop)
    daemon = serve("--hook", hook.url, "--hook-events", "progress,terminated")
    tus = daemon.attach(Tus(daemon.port))
    path = tus.create(64 << 20)
    with tus.wire() as wire:
        length = 64 << 20
        head = f"PATCH {path} HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        wire.offer(f"{head}Content-Type: {OCTETS}\r\nContent-Length: {length}\r\n\r\n".encode() + bytes(20 << 20))
        answer = wire.answer("PATCH")
    assert answer.status == 410 and answer.body.rstrip() == b"The project was closed."
    eventually(lambda: "terminated" in hook.of(id_of(path)))
    assert ask(daemon, "HEAD", path)[0] == 410


def test_a_slow_upload_is_stopped_long_before_anything_of_it_is_committed(serve, hook):
    """5 KB/s: its first commit would come after ten seconds."""
    seen: list[tuple[int, int]] = []

    def progress(document: Document) -> Document:
        seen.append((document["data"]["details"]["received"], document["data"]["upload"]["offset"]))
        return {"stop": len(seen) == 3, "response": {"status": 410, "body": "The project was closed."}}

    hook.answer = by_type(progress=progress)
    daemon = serve("--hook", hook.url, "--hook-events", "progress,terminated", "--hook-progress-interval", "400ms")
    path = daemon.attach(Tus(daemon.port)).create(1 << 20)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=30) as link:
        head = f"PATCH {path} HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        link.sendall(f"{head}Content-Type: {OCTETS}\r\nContent-Length: {1 << 20}\r\n\r\n".encode())
        sent = 0
        while not select.select([link], [], [], 0.2)[0]:  # a client's pace
            link.sendall(bytes(1000))
            sent += 1000
        assert link.recv(100).startswith(b"HTTP/1.1 410 ")
    assert sent <= 20_000 and [offset for _, offset in seen] == [0, 0, 0]
    assert 0 < seen[0][0] < seen[1][0] < seen[2][0] <= sent
    eventually(lambda: "terminated" in hook.of(id_of(path)))


# other kinds of hooks


def test_a_hook_server_made_for_tusd_works_as_it_is(serve):
    heard: list[Document] = []

    def tusd(document: Document) -> Document:
        heard.append(document)
        if document["Type"] == "pre-create":
            if not document["Event"]["Upload"]["MetaData"].get("filename"):
                return {"RejectUpload": True, "HTTPResponse": {"StatusCode": 400, "Body": "no filename"}}
            return {
                "ChangeFileInfo": {"ID": "chosen-by-the-hook-01", "MetaData": {"filename": "b.txt"}},
                "HTTPResponse": {"Header": {"X-Own": "1", "Location": "/elsewhere", "Upload-Offset": "9"}},
            }
        return {}

    with HookServer(tusd) as hook:
        url = f"tusd+{hook.url}"
        daemon = serve("--hook", url, "--guard", url, "--hook-forward-headers", "Cookie", "--hook-events",
                       "created,finished,terminated,progress")  # fmt: skip
        status, _, body = ask(daemon, "POST", Upload_Length="10")
        assert (status, body.rstrip()) == (400, b"no filename")
        status, headers, _ = ask(
            daemon,
            "POST",
            Upload_Length="10",
            Upload_Metadata=metadata(filename="a.txt"),
            Cookie="name=Grüße".encode().decode("latin-1"),
        )
        assert (status, headers["X-Own"]) == (201, "1") and "Upload-Offset" not in headers
        path = "/files/chosen-by-the-hook-01"
        assert headers["Location"].endswith(path)
        assert patch(daemon, path, 0, DATA)[0] == 204
        assert ask(daemon, "DELETE", path)[0] == 204
        wanted = {"pre-create", "post-create", "pre-finish", "post-finish", "pre-terminate", "post-terminate"}
        eventually(lambda: wanted <= {each["Type"] for each in heard})
        (created,) = (each for each in heard if each["Type"] == "post-create")
        upload, request = created["Event"]["Upload"], created["Event"]["HTTPRequest"]
        assert (upload["ID"], upload["Size"], upload["Offset"]) == ("chosen-by-the-hook-01", 10, 0)
        assert upload["MetaData"] == {"filename": "b.txt"} and upload["SizeIsDeferred"] is False
        assert upload["Storage"]["Path"] == str(daemon.upload_dir / "chosen-by-the-hook-01")
        assert (request["Method"], request["URI"], request["Header"]) == ("POST", "/files/", {"Cookie": ["name=Grüße"]})
        assert request["RemoteAddr"].startswith("127.0.0.1:")


def test_commands_are_told_and_asked(serve, tmp_path: Path):
    told, guard = tmp_path / "told.sh", tmp_path / "guard.sh"
    told.write_text(f'#!/bin/sh\necho "$HOOK_EVENT $HOOK_UPLOAD" >> {tmp_path}/log\ncat > /dev/null\n')
    guard.write_text('#!/bin/sh\n[ "$HOOK_EVENT" = before-create ] || exit 0\n[ "$HOOK_LENGTH" -le 100 ]\n')
    for script in (told, guard):
        script.chmod(0o755)
    daemon = serve("--hook", f"log=exec:{told}", "--guard", f"exec:{guard}")
    assert ask(daemon, "POST", Upload_Length="101")[0] == 403
    path = daemon.attach(Tus(daemon.port)).create(10, body=DATA)
    log = tmp_path / "log"
    expected = [f"created {id_of(path)}", f"finished {id_of(path)}"]
    eventually(lambda: log.exists() and log.read_text().splitlines() == expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--hook", "ftp://hidden/"),
        ("--guard", "https://user:hidden@host/"),
        ("--hook", "python:no_such_module:nothing"),
        ("--guard", "exec:/nonexistent"),
        ("--hook", "scan=exec:/etc/passwd --password hidden"),
        ("--hook", "tusd+exec:/bin/true"),
        ("--guard", "http://h:0/"),
        ("--hook", "a=http://h/", "--hook", "a=http://i/"),
        ("--hook", "http://h/", "--hook-secret", "whsec_hidden"),
        ("--hook", "http://h/", "--hook-secret-file", "/nowhere"),
        ("--hook", "http://h/", "--hook-ca", "/nowhere"),
        ("--hook", "http://h/", "--hook-events", "created,nothing"),
    ],
    ids=lambda flags: " ".join(flags),
)
def test_what_is_set_up_wrong_is_told_in_one_line(tmp_path, flags):
    done = run_twistd("-n", "--pidfile=", "resumable", "--listen", "tcp:0", "--upload-dir", str(tmp_path), *flags,
                      cwd=tmp_path)  # fmt: skip
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).strip().splitlines()
    assert line.startswith("resumable: ")
    assert "hidden" not in line
