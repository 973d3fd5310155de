"""Several files at a time: what is shown of them, what ends them, and the status in the end. Without a server."""

from __future__ import annotations

import os
import threading
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resumable import client
from resumable.cli import put
from resumable.cli.advice import ends_all, ends_put, words_of_put
from resumable.cli.files_to_send import LeftOut
from resumable.cli.receipts import Result
from resumable.cli.runs import OnEvent, Runs, Work
from resumable.cli.trips import AllTrips, Trip

URL = "http://up/files/1"
DONE = Result(3, 3, 0.1, URL, None, False, 0)


class Seen:
    """A board that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, ...]] = []
        self.threads: set[int] = set()
        self.closed = False

    def _keep(self, *what: str) -> None:
        self.lines.append(what)
        self.threads.add(threading.get_ident())

    def told(self, trip: Trip, event: client.TransferEvent) -> None:
        self._keep("told", trip.name, event.name)

    def done(self, trip: Trip, result: Result) -> None:
        self._keep("done", trip.name)

    def failed(self, trip: Trip, error: Exception) -> None:
        self._keep("failed", trip.name, trip.why)

    def left_out(self, what: LeftOut) -> None:
        self._keep("left out", what.name)

    def refresh(self, together: AllTrips, now: float) -> None:
        self.threads.add(threading.get_ident())

    def close(self) -> None:
        self.closed = True


def run(
    names: str,
    work: Work,
    jobs: int = 1,
    cancel: Callable[[], None] = lambda: None,
    board: Seen | None = None,
    **more: Any,
) -> tuple[Runs, Seen, Any]:
    runs = Runs([Trip(name, 3, index) for index, name in enumerate(names.split())], work, jobs, cancel, **more)
    seen = board or Seen()
    runs.start()
    ended = runs.show(seen, lambda trip, result: seen.lines.append(("finished", trip.name)))
    return runs, seen, ended


def test_files_are_carried_in_order_and_shown_in_this_thread() -> None:
    def work(trip: Trip, heard: OnEvent) -> Result:
        heard(client.Begun(source="a", url=URL, offset=0, total=3, resumed=False, protocol="tus"))
        heard(client.Moved(source="a", sent=3, acknowledged=3, total=3, run=3))
        return DONE

    _, seen, ended = run("a b", work)
    assert seen.lines == [
        *(("told", "a", "begun"), ("finished", "a"), ("done", "a")),
        *(("told", "b", "begun"), ("finished", "b"), ("done", "b")),
    ]
    assert seen.threads == {threading.get_ident()} and seen.closed
    assert (ended.together.done, ended.together.position, ended.together.size, ended.interrupted) == (2, 6, 6, False)


def test_so_many_at_a_time_as_is_asked_for() -> None:
    meet = threading.Barrier(3, timeout=60)

    def work(trip: Trip, heard: OnEvent) -> Result:
        meet.wait()
        return DONE

    _, _, ended = run("a b c d e f", work, jobs=3)
    assert ended.together.done == 6


def test_a_file_that_fails_leaves_the_others_alone() -> None:
    def work(trip: Trip, heard: OnEvent) -> Result:
        if trip.name == "a":
            raise client.SourceUnreadable("no connection for an hour")
        if trip.name == "b":
            raise OSError("Input/output error")
        return DONE

    runs, seen, ended = run("a b c", work)
    assert ("failed", "a", "no connection for an hour") in seen.lines
    assert ("failed", "b", "Input/output error") in seen.lines
    assert (ended.together.done, ended.together.failed, runs.untried) == (1, 2, 0)


REFUSED = client.NotAuthorised(401, "no token", "no token", URL)
FORBIDDEN = client.NotAuthorised(403, "not this one", "not this one", URL)
AWAY = client.NothingThere(404, "nothing", "nothing", URL)


@pytest.mark.parametrize(
    ("error", "all_of_put", "all_of_get"),
    [
        (REFUSED, True, False),
        (FORBIDDEN, False, False),
        (AWAY, True, False),
        (client.NotResumable("a page"), True, False),
        (client.NotTrusted("a certificate"), True, False),
        (client.StateUnusable("no directory"), True, True),
        (client.SourceUnreadable("gone"), False, False),
    ],
)
def test_what_would_fail_for_each_file_is_tried_once(
    error: client.ClientError, all_of_put: bool, all_of_get: bool
) -> None:
    def work(trip: Trip, heard: OnEvent) -> Result:
        raise error

    for judge, ends in ((ends_put, all_of_put), (ends_all, all_of_get)):
        runs, seen, ended = run("a b c", work, ends_all=judge)
        assert (ended.together.failed, runs.untried) == ((1, 2) if ends else (3, 0))
        assert {line[0] for line in seen.lines} == {"failed"}


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (
            REFUSED,
            "no token; give a token with --token-file or in RESUMABLE_TOKEN, or a user in the URL: https://name@host/",
        ),
        (FORBIDDEN, "not this one; these credentials don't have the right: ask the server's operator"),
        (AWAY, "nothing; give the URL where uploads are created, like https://up.example/files/"),
        (
            client.SizeRefused(413, "t", "at most 1 MiB.", URL),
            "at most 1 MiB; a file of this size can't be sent there: ask the server's operator",
        ),
        (client.SourceChanged("it has changed", "a"), "it has changed; --restart sends it anew"),
        (client.TargetExists("a is there"), "a is there; --overwrite replaces it"),
        (client.NotTrusted("give its certificate (ca_file)"), "give its certificate with --ca-file"),
        (client.GaveUp("no answer", 3), "no answer; gave up after 3 tries: the same command goes on where it ended"),
        (client.GaveUp("no answer", 1, begun=False), "no answer; gave up after 1 try"),
        (OSError("https://me:secret@host/ is away"), "https://...@host/ is away"),
    ],
)
def test_errors_say_what_to_do_and_no_password(error: Exception, end: str) -> None:
    assert words_of_put(error).endswith(end)


class Interrupted(Seen):
    """Somebody presses Ctrl-C as soon as ``when`` is set."""

    def __init__(self, when: threading.Event) -> None:
        super().__init__()
        self.when = when

    def refresh(self, together: AllTrips, now: float) -> None:
        if self.when.is_set():
            self.when.clear()
            raise KeyboardInterrupt


def test_ctrl_c_ends_all_and_takes_what_comes_to_its_end_in_that_moment() -> None:
    cancelled, under_way = threading.Event(), threading.Event()
    both = threading.Barrier(2, action=under_way.set, timeout=60)

    def work(trip: Trip, heard: OnEvent) -> Result:
        both.wait()
        assert cancelled.wait(60)
        if trip.name == "a":
            raise client.TransferCancelled("cancelled")
        return DONE

    runs, seen, ended = run("a b c", work, jobs=2, cancel=cancelled.set, board=Interrupted(under_way))
    assert ended.interrupted and runs.untried == 1 and seen.closed
    assert ("done", "b") in seen.lines and all(line[:2] != ("failed", "a") for line in seen.lines)


# put, with a stand-in for the library


class Library:
    """Stands for `client.Client`."""

    def __init__(self, answer: Callable[[Any], client.Uploaded]) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, dict[str, Any]]] = []

    def put(self, source: Any, endpoint: str, **told: Any) -> client.Uploaded:
        del told["on_event"]
        self.asked.append((source, told))
        return self.answer(source)

    def cancel(self) -> None:
        pass

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def uploaded(source: Any) -> client.Uploaded:
    return client.Uploaded(
        url=URL, size=3, sent=3, resumed_from=0, seconds=0.1, protocol="tus", digest=None, checked=False, stored=None
    )


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Library:
    it = Library(uploaded)
    monkeypatch.setattr(client, "Client", lambda options: it)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("abc")
    return it


def test_put_sends_all_and_says_where_they_are(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert put.main(["a.txt", "b.txt", "http://up/", "--meta", "project=7", "-j1"], {}) == 0
    out, said = capsys.readouterr()
    assert [line.partition(":")[0] for line in out.splitlines()] == ["a.txt", "b.txt"] and said == ""
    assert library.asked[0] == (
        Path("a.txt"),
        {
            "name": os.path.abspath("a.txt"),
            "metadata": {"filename": "a.txt", "filetype": "text/plain", "project": "7"},
            "fresh": False,
        },
    )


def test_put_says_how_many_were_not_sent(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(source: Any) -> client.Uploaded:
        if str(source) == "b.txt":
            raise client.SourceUnreadable("no connection for an hour")
        return uploaded(source)

    library.answer = answer
    assert put.main(["a.txt", "missing", "b.txt", "http://up/", "-j1"], {}) == 1
    assert capsys.readouterr().err.splitlines() == [
        "resumable: missing: left out: no such file or directory",
        "resumable: b.txt: no connection for an hour",
        "resumable: 1 of 3 files was sent, 2 were not",
    ]


@pytest.mark.parametrize(
    ("done", "wrong", "untried", "said"),
    [
        (1, 1, 0, "1 of 2 files was sent, 1 was not"),
        (2, 2, 0, "2 of 4 files were sent, 2 were not"),
        (0, 1, 2, "0 of 3 files were sent, 3 were not (2 weren't tried)"),
        (1, 1, 1, "1 of 3 files was sent, 2 were not (1 wasn't tried)"),
    ],
)
def test_one_file_was_and_several_were(
    done: int, wrong: int, untried: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trips = [Trip(f"{each}", 1, each) for each in range(done + untried)]
    together = AllTrips(trips, 0.0)
    for trip in trips[:done]:
        together.begun(trip)
        trip.end("done", 1.0)
        together.over(trip)
    assert put.status(put.Ended(together, False), trips, wrong, untried, Namespace(json=False)) == 1
    assert capsys.readouterr().err == f"resumable: {said}\n"


def test_put_goes_on_with_the_files_that_are_missing(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(source: Any) -> client.Uploaded:
        if str(source) == "b.txt" and len(library.asked) < 3:
            raise client.SourceUnreadable("no connection for an hour")
        return uploaded(source)

    library.answer = answer
    command = ["a.txt", "b.txt", "http://up/", "-j1"]
    assert put.main(command, {}) == 1
    assert put.main(command, {}) == 0
    assert "resumable: 1 file: left out: sent before this command was cut" in capsys.readouterr().err
    assert [str(source) for source, _ in library.asked] == ["a.txt", "b.txt", "b.txt"]
    assert put.main(command, {}) == 0
    assert len(library.asked) == 5, "a command that has done its work does it anew"


def test_put_of_nothing_but_a_missing_file_fails(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert put.main(["missing", "http://up/"], {}) == 1
    assert capsys.readouterr().err == "resumable: missing: left out: no such file or directory\n"


def test_put_of_an_empty_directory_says_so(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert put.main(["empty", "http://up/"], {}) == 0
    assert capsys.readouterr().err == "resumable: there is no file to send\n"


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (100, "interrupted at 60 %: the same command goes on from what the server has"),
        (None, "interrupted at 60 B: a stream can't be read again, so a new run starts over"),
    ],
)
def test_ctrl_c_says_that_the_same_command_goes_on(
    capsys: pytest.CaptureFixture[str], size: int | None, said: str
) -> None:
    trip = Trip("a", size)
    trip.begin(0.0)
    trip.heed(client.Moved(source="a", sent=60, acknowledged=43, total=size, run=43), 1.0)
    ended = put.Ended(AllTrips([trip], 0.0), True)
    assert put.status(ended, [trip], 0, 0, Namespace(json=False)) == 130
    assert capsys.readouterr().err == f"resumable: {said}\n"
