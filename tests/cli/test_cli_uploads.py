"""Uploads named by the beginning of their id, removed with a question, and the commands about hooks."""

from __future__ import annotations

import json

import pytest

from resumable.cli import commands
from resumable.cli.main import main
from tests.cli.stand_in import StandIn, problem

FILM = "24e533e02ec3bc40c387f1a0e460e216"
PLAN = "24e5f0" + "0" * 26
OLD = "8a0c" + "1" * 28


def document(upload_id, name, **more):
    told = {"id": upload_id, "state": "uploading", "length": 3 << 20, "offset": 1 << 20, "appending": False}
    return {**told, "gone": None, "metadata": {"filename": name}, "replicas": [], **more}


class Shelf:
    """Answers as a daemon that has these uploads."""

    def __init__(self, *documents):
        self.uploads = {each["id"]: each for each in documents}
        self.removed = []

    def __call__(self, method, path, query):
        upload_id = path.rpartition("/")[2]
        if path == "/v1/uploads":
            found = [each for key, each in self.uploads.items() if key.startswith(query["id_prefix"])]
            return 200, {"uploads": found[: int(query["limit"])], "next": None}
        if upload_id not in self.uploads:
            return problem(404, "There is no such upload.")
        if method == "GET":
            return 200, self.uploads[upload_id]
        if query.get("unless") == "appending" and self.uploads[upload_id]["appending"]:
            return problem(409, "A request appends to the upload now.")
        self.removed.append(upload_id)
        return 204, b""


@pytest.fixture
def shelf():
    return Shelf(
        document(FILM, "film.mp4"),
        document(PLAN, "plan.pdf", length=None),
        document(OLD, "old.txt", state="gone", gone="expired"),
    )


@pytest.fixture
def daemon(shelf):
    with StandIn(shelf).serving() as stand_in:
        yield stand_in


def run(daemon, *arguments):
    return main([*arguments, "--url", daemon.url], {})


# Short ids


def test_the_beginning_of_an_id_is_enough(daemon, capsys):
    assert run(daemon, "show", "24e53") == 0
    assert FILM in capsys.readouterr().out
    assert daemon.asked == [
        ("GET", "/v1/uploads", {"id_prefix": "24e53", "state": "any", "limit": "6"}),
        ("GET", f"/v1/uploads/{FILM}", {}),
    ]


def test_a_whole_id_is_asked_for_at_once(daemon):
    assert run(daemon, "show", FILM) == 0
    assert daemon.asked == [("GET", f"/v1/uploads/{FILM}", {})]


def test_a_beginning_of_several_ids_is_refused_with_all_of_them(daemon, capsys):
    assert run(daemon, "rm", "24e5") == 1
    assert capsys.readouterr().err == (
        "resumable: 24e5: several ids begin so: 24e533e0 (film.mp4), 24e5f000 (plan.pdf)\n"
    )
    assert not daemon.answer.removed


def test_a_beginning_of_many_ids_is_refused_with_some_of_them(daemon, shelf, capsys):
    shelf.uploads = {f"aaaa{number:028}": document(f"aaaa{number:028}", "") for number in range(9)}
    assert run(daemon, "show", "aaaa") == 1
    said = capsys.readouterr().err
    assert said.count("(no name)") == 5 and said.endswith(" and more\n")


def test_what_is_there_is_meant_before_what_is_gone(daemon, shelf, capsys):
    shelf.uploads["8a0c" + "2" * 28] = document("8a0c" + "2" * 28, "new.txt")
    assert run(daemon, "show", "8a0c") == 0
    assert "new.txt" in capsys.readouterr().out
    assert run(daemon, "show", "8a0c1") == 0
    assert "old.txt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [("24e", "give at least the first 4 characters of an id"), ("ffff", "there is no such upload")],
)
def test_a_beginning_that_names_nothing_is_refused(given, said, daemon, capsys):
    assert run(daemon, "show", given) == 1
    assert run(daemon, "retry", given) == 1
    assert capsys.readouterr().err == f"resumable: {said}\nresumable: {given}: {said}\n"


# rm


class Terminal:
    def __init__(self, said):
        self.said = said

    def isatty(self):
        return True

    def readline(self):
        return self.said


@pytest.fixture
def sits(monkeypatch):
    return lambda said: monkeypatch.setattr(commands.sys, "stdin", Terminal(said))


def test_rm_asks_nobody_who_is_not_there_and_goes_on_after_one_that_is_unknown(daemon, capsys):
    assert run(daemon, "rm", FILM, "f" * 32, PLAN) == 1
    assert capsys.readouterr() == (
        f"{FILM}: removed\n{PLAN}: removed\n",
        f"resumable: {'f' * 32}: There is no such upload.\n",
    )
    assert {method for method, *_ in daemon.asked} == {"DELETE"}


@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("YES\n", True), ("\n", False), ("", False)])
def test_rm_shows_what_it_removes_before_it_does(answer, removed, daemon, shelf, capsys, sits):
    sits(answer)
    assert run(daemon, "rm", "24e53") == (not removed)
    assert shelf.removed == [FILM] * removed
    assert capsys.readouterr().err.startswith("Remove film.mp4 (3 MiB, 33% here) for good? [y/N] ")


def test_rm_of_several_shows_each_and_their_size(daemon, shelf, capsys, sits):
    sits("y\n")
    assert run(daemon, "rm", FILM, PLAN) == 0
    assert capsys.readouterr().err == (
        "  film.mp4 (3 MiB, 33% here)\n  plan.pdf (1 MiB so far)\n"
        "Remove these 2 uploads, 4 MiB, 2 MiB done (50%) for good? [y/N] "
    )
    assert shelf.removed == [FILM, PLAN]


def test_rm_of_many_shows_some(daemon, shelf, capsys, sits):
    sits("n\n")
    shelf.uploads = {f"{number:032}": document(f"{number:032}", "x") for number in range(12)}
    assert run(daemon, "rm", *shelf.uploads) == 1
    said = capsys.readouterr().err
    assert said.count("  x (") == 10 and "  and 2 more\n" in said and "nothing was removed" in said


@pytest.mark.parametrize("there", [True, False])
def test_rm_refuses_an_upload_that_is_under_way(there, daemon, shelf, capsys, sits):
    shelf.uploads[FILM]["appending"] = True
    if there:
        sits("y\n")
    assert run(daemon, "rm", FILM) == 1
    out, said = capsys.readouterr()
    assert out == "" and said.count("\n") == 1 and "--force" in said
    assert shelf.removed == []
    assert run(daemon, "rm", FILM, "--force", "--yes") == 0
    assert shelf.removed == [FILM]


def test_a_forced_rm_says_that_a_request_appends_to_it(daemon, shelf, capsys, sits):
    shelf.uploads[FILM]["appending"] = True
    sits("y\n")
    assert run(daemon, "rm", FILM, "--force") == 0
    assert "a request appends to it now for good?" in capsys.readouterr().err


def test_rm_asks_about_nothing_that_is_gone(daemon, shelf, capsys, sits):
    sits("y\n")
    assert run(daemon, "rm", "8a0c") == 1
    assert capsys.readouterr().err == "resumable: 8a0c: the upload is gone already\n"


def test_rm_asks_nobody_where_the_shell_has_closed_its_input(daemon, shelf, monkeypatch):
    monkeypatch.setattr(commands.sys, "stdin", None)
    assert run(daemon, "rm", FILM) == 0
    assert shelf.removed == [FILM]


def test_rm_asks_not_when_it_is_told_yes(daemon, capsys, sits):
    sits("")
    assert run(daemon, "rm", "--yes", "--json", FILM) == 0
    assert json.loads(capsys.readouterr().out) == {"id": FILM, "removed": True}


# hooks

HOOKS = {
    "hooks": {
        "billing": {"waiting": 12, "dead": 3, "oldest": "2026-10-01T11:00:00.000Z"},
        "mail": {"waiting": 0, "dead": 0, "oldest": None},
    }
}
EVENT = {"seq": 7, "upload": FILM, "event": "finished", "time": "2026-10-01T10:00:00.000Z", "attempts": 20}
EVENT |= {"error": "500 Oops\n", "dead_since": "2026-10-01T11:00:00.000Z"}


@pytest.fixture
def noon(monkeypatch):
    monkeypatch.setattr(commands.time, "time", lambda: 1790856000.0)


def test_hooks_are_listed_with_what_waits_and_what_is_dead(daemon, capsys, noon):
    daemon.answer = lambda *_: (200, HOOKS)
    assert run(daemon, "hooks") == 0
    assert capsys.readouterr().out.splitlines() == [
        "HOOK     WAITING  DEAD  OLDEST",
        "billing  12       3     1h",
        "mail     0        0     ?",
    ]
    assert daemon.asked == [("GET", "/v1/hooks", {})]
    assert run(daemon, "hooks", "--json") == 0
    assert json.loads(capsys.readouterr().out) == HOOKS["hooks"]


def test_a_server_without_hooks_says_so(daemon, capsys):
    daemon.answer = lambda *_: (200, {"hooks": {}})
    assert run(daemon, "hooks") == 0
    assert capsys.readouterr() == ("", "resumable: there are no hooks (--hook adds one)\n")


def test_the_dead_events_of_a_hook_are_listed_page_by_page(daemon, capsys, noon):
    waiting = [{"dead": [EVENT], "next": 7}, {"dead": [{**EVENT, "upload": PLAN}], "next": None}]
    daemon.answer = lambda *_: (200, waiting.pop(0))
    assert run(daemon, "hooks", "dead", "bill/ing") == 0
    assert capsys.readouterr().out.splitlines() == [
        "EVENT     UPLOAD                            GIVEN UP  TRIES  ERROR",
        f"finished  {FILM}  1h ago    20     500 Oops?",
        f"finished  {PLAN}  1h ago    20     500 Oops?",
    ]
    assert daemon.asked == [
        ("GET", "/v1/hooks/bill%2Fing/dead", {}),
        ("GET", "/v1/hooks/bill%2Fing/dead", {"after": "7"}),
    ]


def test_the_dead_events_of_a_hook_are_sent_again(daemon, capsys):
    daemon.answer = lambda *_: (200, {"replayed": 3})
    assert run(daemon, "hooks", "replay", "billing") == 0
    assert capsys.readouterr().out == "3 events are sent again\n"
    assert daemon.asked == [("POST", "/v1/hooks/billing/replay", {})]


@pytest.mark.parametrize("arguments", [("hooks",), ("hooks", "dead", "h")])
def test_hooks_that_are_none_are_not_believed(arguments, daemon, capsys):
    daemon.answer = lambda *_: (200, {"hooks": {"a": 5}, "dead": "many"})
    assert run(daemon, *arguments) == 1
    assert "no daemon of this release" in capsys.readouterr().err
