"""`resumable`'s commands: what they ask of a daemon, what they print, and their status."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime

import pytest

from resumable.cli import commands
from resumable.cli.main import OWN, main
from tests.cli.stand_in import StandIn, problem

A, B = "a" * 32, "b" * 32
NOW = datetime(2026, 10, 1, 12, tzinfo=UTC).timestamp()
UPLOAD = {
    "id": "a" * 32,
    "state": "uploading",
    "length": 3 << 20,
    "received": 2 << 20,
    "durable": 1 << 20,
    "offset": 1 << 20,
    "created_at": "2026-10-01T11:00:00.000Z",
    "touched_at": "2026-10-01T11:55:00.000Z",
    "finished_at": None,
    "stored_at": None,
    "expires_at": "2026-10-08T11:55:00.000Z",
    "gone": None,
    "gone_at": None,
    "metadata": {"filename": "film.mp4", "raw": {"base64": "/w=="}},
    "local": "here",
    "owner": "alice",
    "appending": True,
    "replicas": [
        {
            "remote": "cloud",
            "required": True,
            "state": "parked",
            "key": "k",
            "sent": 0,
            "confirmed": 1024,
            "lag": 1,
            "attempts": 3,
            "error": "412 a foreign object",
            "retry_at": "2026-10-01T12:00:10.000Z",
            "location": None,
            "stored_at": None,
        }
    ],
}
DONE = {**UPLOAD, "id": "b" * 32, "state": "stored", "length": 5, "offset": 5, "appending": False, "owner": None}
UNKNOWN = {**DONE, "id": "c" * 20, "length": None, "metadata": {}, "replicas": [], "touched_at": "nonsense"}


@pytest.fixture(autouse=True)
def noon(monkeypatch):
    monkeypatch.setattr(commands.time, "time", lambda: NOW)


@pytest.fixture
def daemon():
    stand_in = StandIn(lambda method, path, query: problem(404, "There is nothing at this address."))
    with stand_in.serving():
        yield stand_in


def run(daemon, *arguments):
    return main([*arguments, "--url", daemon.url], {})


def pages(*documents):
    """Answers these, one after the other."""
    waiting = list(documents)
    return lambda method, path, query: (200, waiting.pop(0))


# ls


def test_ls_shows_a_table_of_what_matters(daemon, capsys):
    daemon.answer = pages({"uploads": [UPLOAD, DONE, UNKNOWN], "next": None})
    assert run(daemon, "ls") == 0
    out, said = capsys.readouterr()
    assert out.splitlines() == [
        "ID                                STATE       SIZE   DONE  IDLE  REMOTES       OWNER  NAME",
        f"{'a' * 32}  uploading*  3 MiB  33%   5m    cloud:parked  alice  film.mp4",
        f"{'b' * 32}  stored      5 B    100%  5m    cloud:parked  -      film.mp4",
        f"{'c' * 20}              stored      ?      5 B   ?     -             -      -",
    ]
    assert said == ""
    assert daemon.asked == [("GET", "/v1/uploads", {"limit": "100"})]


def test_ls_follows_the_pages_and_says_when_there_is_more(daemon, capsys):
    def answer(method, path, query):
        return 200, {"uploads": [DONE] * min(3, int(query["limit"])), "next": "p1"}

    daemon.answer = answer
    assert run(daemon, "ls", "--limit", "7") == 0
    out, said = capsys.readouterr()
    assert len(out.splitlines()) == 8
    assert said == "resumable: these are 7; for more: --limit or --all\n"
    assert [query for _, _, query in daemon.asked] == [
        {"limit": "7"},
        {"limit": "4", "after": "p1"},
        {"limit": "1", "after": "p1"},
    ]
    assert run(daemon, "ls", "--limit", "1", "--json") == 0
    assert capsys.readouterr().err == "", "--json is for programs"


def test_ls_of_all_ends_with_the_last_page_and_minds_no_empty_ones(daemon, capsys):
    daemon.answer = pages(
        {"uploads": [DONE], "next": "p1"}, {"uploads": [], "next": "p2"}, {"uploads": [DONE], "next": None}
    )
    assert run(daemon, "ls", "--all", "--json") == 0
    out, said = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [DONE, DONE]
    assert said == ""
    assert daemon.asked[1] == ("GET", "/v1/uploads", {"limit": "1000", "after": "p1"})


def test_ls_asks_for_what_the_flags_say(daemon):
    daemon.answer = pages({"uploads": [], "next": None})
    flags = [
        "--state",
        "finished",
        "--remote",
        "cloud",
        "--parked",
        "--owner",
        "",
        "--older-than",
        "1h",
        "--idle",
        "5m",
    ]
    assert run(daemon, "ls", *flags, "--min-size", "1G", "--newest") == 0
    assert daemon.asked[0][2] == {
        "state": "finished",
        "remote": "cloud",
        "replica": "parked",
        "owner": "",
        "created_before": "2026-10-01T11:00:00Z",
        "idle_since": "2026-10-01T11:55:00Z",
        "min_size": str(1 << 30),
        "order": "newest",
        "limit": "100",
    }


def test_what_a_client_has_chosen_is_no_command_to_a_terminal(daemon, capsys):
    nasty = "\x1b]0;owned\x07\u202eexe.gpj\n" + "x" * 500
    upload = {**UPLOAD, "owner": nasty, "metadata": {"filename": nasty, "\x1b[31mred": nasty}}
    daemon.answer = pages({"uploads": [upload], "next": None}, upload)
    assert run(daemon, "ls") == 0
    assert run(daemon, "show", upload["id"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 2 + len(out.splitlines()[2:])
    assert all(line.isprintable() for line in out.splitlines())


# show


def test_show_tells_all_of_it_in_both_tiers(daemon, capsys):
    daemon.answer = pages(UPLOAD)
    assert run(daemon, "show", UPLOAD["id"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert daemon.asked == [("GET", f"/v1/uploads/{UPLOAD['id']}", {})]
    told = dict(line.split("  ", 1) for line in lines if not line.startswith(" "))
    assert told["size"].strip() == "3 MiB (3145728 bytes)"
    assert told["durable"].strip() == "1 MiB (1048576 bytes), 33%"
    assert told["touched"].strip() == "2026-10-01T11:55:00.000Z (5m ago)"
    assert told["expires"].strip() == "2026-10-08T11:55:00.000Z (in 6d)"
    assert told["metadata filename"].strip() == "film.mp4"
    assert told["remote cloud"].strip() == "parked, 1 KiB there"
    assert lines[-3].split() == ["error", "412", "a", "foreign", "object"]
    assert "gone" not in told


def test_show_tells_where_the_file_was_placed(daemon, capsys):
    daemon.answer = pages({**DONE, "placed": "2026-10-01/film.mp4"}, {**DONE, "placed": None})
    assert run(daemon, "show", DONE["id"]) == 0
    assert re.search(r"(?m)^placed +2026-10-01/film.mp4$", capsys.readouterr().out)
    assert run(daemon, "show", DONE["id"]) == 0
    assert "placed" not in capsys.readouterr().out


def test_show_tells_which_object_of_the_spool_it_is_in_place_of_a_local_copy(daemon, capsys):
    daemon.answer = pages({**DONE, "object": "s3://bucket/prefix/bb"})
    assert run(daemon, "show", DONE["id"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"(?m)^spool +s3://bucket/prefix/bb$", said) and "local copy" not in said


def test_show_of_what_is_gone_tells_of_no_local_copy(daemon, capsys):
    gone = {"state": "gone", "gone": "expired", "gone_at": "2026-10-01T11:59:00.000Z", "local": None}
    daemon.answer = pages({**UPLOAD, **gone})
    assert run(daemon, "show", UPLOAD["id"]) == 0
    said = capsys.readouterr().out
    assert "local copy" not in said and re.search(r"gone +expired", said)


def test_show_as_json_is_what_the_daemon_says(daemon, capsys):
    daemon.answer = pages(UPLOAD)
    assert run(daemon, "show", UPLOAD["id"], "--json") == 0
    assert json.loads(capsys.readouterr().out) == UPLOAD


def test_an_upload_that_is_not_there_is_status_1(daemon, capsys):
    daemon.answer = lambda *_: problem(404, "There is no such upload.")
    assert run(daemon, "show", "../x?y") == 1
    assert capsys.readouterr() == ("", "resumable: There is no such upload\n")
    assert daemon.asked[0][1] == "/v1/uploads/..%2Fx%3Fy"


# retry


def test_retry_starts_what_was_parked_of_each(daemon, capsys):
    counts = {A: 2, B: 0}
    daemon.answer = lambda method, path, query: (200, {"restarted": counts[path.split("/")[3]]})
    assert run(daemon, "retry", A, B, "--remote", "cloud") == 1
    assert capsys.readouterr() == (f"{A}: 2 tried again\n", f"resumable: {B}: nothing of it is parked\n")
    assert daemon.asked[0] == ("POST", f"/v1/uploads/{A}/retry", {"remote": "cloud"})


def test_retry_of_a_whole_remote_goes_on_until_nothing_is_left(daemon, capsys):
    daemon.answer = pages({"restarted": 10_000, "more": True}, {"restarted": 5, "more": False})
    assert run(daemon, "retry", "--all", "--remote", "cloud") == 0
    assert capsys.readouterr().out == "10005 replicas are tried again\n"
    assert daemon.asked == [("POST", "/v1/retry", {"remote": "cloud"})] * 2


def test_what_is_parked_again_at_once_is_not_tried_for_ever(daemon, capsys):
    daemon.answer = lambda *_: (200, {"restarted": 10_000, "more": True})
    assert run(daemon, "retry", "--all", "--remote", "cloud") == 0
    assert capsys.readouterr().out == "1000000 replicas are tried again; ask again for the rest\n"


# replay and drain


def test_replay_sends_dead_events_again(daemon, capsys):
    daemon.answer = pages({"replayed": 3})
    assert run(daemon, "replay", "bill/ing") == 0
    assert capsys.readouterr().out == "3 events are sent again\n"
    assert daemon.asked == [("POST", "/v1/hooks/bill%2Fing/replay", {})]


@pytest.mark.parametrize(("what", "method"), [("on", "PUT"), ("off", "DELETE"), ("status", "GET")])
def test_drain_says_what_is_left(what, method, daemon, capsys):
    left = {"draining": True, "since": "T", "unfinished": 3, "appending": 1, "replicas": {"cloud": 4}}
    daemon.answer = pages(left)
    assert run(daemon, "drain", what) == 0
    assert capsys.readouterr().out == (
        "draining since T; 3 unfinished, 1 appending; replicas that are not there yet: cloud: 4\n"
    )
    assert daemon.asked == [(method, "/v1/drain", {})]


def test_drain_as_json_is_what_the_daemon_says(daemon, capsys):
    left = {"draining": False, "since": None, "unfinished": 0, "appending": 0, "replicas": {}}
    daemon.answer = pages(left, left)
    assert run(daemon, "drain", "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == left
    assert run(daemon, "drain", "status") == 0
    assert capsys.readouterr().out == "not draining; 0 unfinished, 0 appending\n"


# What goes wrong


def test_nobody_there_is_one_line(capsys, tmp_path):
    assert main(["ls", "--upload-dir", str(tmp_path)], {}) == 1
    out, said = capsys.readouterr()
    assert out == ""
    assert said == (
        f"resumable: no daemon answers at unix:{tmp_path}/.resumable/admin.sock (No such file or directory):"
        " does it run? Give --upload-dir, --run-dir or --url\n"
    )


@pytest.mark.parametrize(
    ("environ", "flags", "place"),
    [
        ({}, [], "unix:/cwd/uploads/.resumable/admin.sock"),
        ({"RESUMABLE_UPLOAD_DIR": "/srv/up"}, [], "unix:/srv/up/.resumable/admin.sock"),
        ({"RESUMABLE_UPLOAD_DIR": "/srv/up"}, ["--upload-dir", "/u"], "unix:/u/.resumable/admin.sock"),
        ({"RESUMABLE_ADMIN_LISTEN": "unix:/no/s"}, [], "unix:/no/s"),
        ({"RESUMABLE_ADMIN_LISTEN": "tcp:1"}, ["--upload-dir", "/u"], "unix:/u/.resumable/admin.sock"),
        ({"RESUMABLE_ADMIN_LISTEN": "tcp:1 socket"}, [], "unix:/cwd/uploads/.resumable/admin.sock"),
        ({"RESUMABLE_ADMIN_LISTEN": "tcp:1"}, ["--url", "unix:/x"], "unix:/x"),
        ({"RESUMABLE_ADMIN_LISTEN": "none"}, [], "unix:/cwd/uploads/.resumable/admin.sock"),
        ({}, ["--run-dir", "/no/run"], "unix:/no/run/admin.sock"),
        ({"RESUMABLE_ADMIN_LISTEN": "tcp:1"}, ["--run-dir", "/no/run"], "unix:/no/run/admin.sock"),
        ({"RESUMABLE_RUN_DIR": "/no/run"}, [], "unix:/no/run/admin.sock"),
        ({"RESUMABLE_RUN_DIR": "/no/run"}, ["--upload-dir", "/u"], "unix:/u/.resumable/admin.sock"),
        ({"RESUMABLE_RUN_DIR": "/no/run"}, ["--run-dir", "other"], "unix:/cwd/other/admin.sock"),
    ],
)
def test_the_daemon_is_looked_for_where_its_environment_says(environ, flags, place, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["ls", *flags], environ) == 1
    assert f"answers at {place.replace('/cwd', str(tmp_path))} (" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>"),
        (200, []),
        (200, {"uploads": 5, "next": None}),
        (200, {"uploads": [], "next": 5}),
        (404, b"nothing here"),
        (500, {"detail": 5}),
        (302, b""),
    ],
)
def test_somebody_elses_server_is_one_line(answer, daemon, capsys):
    daemon.answer = lambda *_: answer
    assert run(daemon, "ls") == 1
    assert f"what answers at {daemon.url} is no daemon of this release" in capsys.readouterr().err


def test_what_is_no_utf_8_is_asked_for_as_it_is(daemon, capsys):
    daemon.answer = lambda *_: problem(404, "There is no such upload.")
    assert run(daemon, "show", "\udcff") == 1
    assert run(daemon, "ls", "--owner", "a\udcff") == 1
    assert capsys.readouterr().err == "resumable: There is no such upload\n" * 2
    assert [path for _, path, _ in daemon.asked] == ["/v1/uploads/%FF", "/v1/uploads"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ls", "--upload_dir", "x"], "ls: unrecognized arguments: --upload_dir x: did you mean --upload-dir?"),
        (["ls", "--limti=5"], "ls: unrecognized arguments: --limti=5: did you mean --limit?"),
        (["show", "a", "--josn"], "show: unrecognized arguments: --josn: did you mean --json?"),
        (["show", "a", "--js"], "show: unrecognized arguments: --js: did you mean --json?"),
        (["retry", "a", "--frobnicate"], "retry: unrecognized arguments: --frobnicate"),
        (["show", "a", "b\n"], "show: unrecognized arguments: b?"),
    ],
)
def test_a_misspelt_flag_is_refused_with_what_was_meant(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments, {})
    assert end.value.code == 2
    assert capsys.readouterr().err == f"resumable {said}; see resumable {arguments[0]} --help\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sreve"], "resumable: no command sreve: did you mean serve?; see resumable --help"),
        (["lss", "--json"], "resumable: no command lss: did you mean ls?; see resumable --help"),
        (["it's\n"], "resumable: no command it's\\n; see resumable --help"),
        (
            ["catalog", "mvoe"],
            "resumable catalog: no command mvoe: did you mean move?; see resumable catalog --help",
        ),
        (
            ["catalog", "move", "--to", "sqlite", "--catalogue=x"],
            "resumable catalog move: unrecognized arguments: --catalogue=x: did you mean --catalog?;"
            " see resumable catalog move --help",
        ),
        (["get", "http://h/", "--josn"], "resumable get: unrecognized arguments: --josn: did you mean --json?;"
         " see resumable get --help"),
    ],
)  # fmt: skip
def test_a_misspelt_command_or_flag_of_any_command_is_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments, {})
    assert end.value.code == 2
    assert capsys.readouterr() == ("", f"{said}\n")


def test_alone_it_prints_the_help_with_all_commands_by_their_use(capsys):
    assert main([], {}) == 0
    alone, said = capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--help"], {})
    assert (alone, said) == (capsys.readouterr().out, "")
    listed = re.findall(r"^    ([a-z]+)", alone, re.MULTILINE)
    assert listed[:5] == ["serve", "put", "get", "ls", "show"] and listed[-1] == "man"
    assert set(listed) > OWN.keys() and len(set(listed)) == len(listed)


def test_a_misspelt_variable_ends_a_command_as_it_ends_the_daemons_start(daemon, capsys):
    daemon.answer = lambda *_: (200, {"uploads": [], "next": None})
    assert main(["ls", "--url", daemon.url], {"RESUMABLE_UPLOADDIR": "x"}) == 2
    assert (
        capsys.readouterr().err
        == "resumable: RESUMABLE_UPLOADDIR is no variable of this server: did you mean RESUMABLE_UPLOAD_DIR?\n"
    )
    assert daemon.asked == []


def test_other_variables_are_warned_of_as_by_the_daemon(daemon, capsys):
    daemon.answer = lambda *_: (200, {"uploads": [], "next": None})
    environ = {
        "RESUMABLE_IMAGE_TAG": "1.2",
        "RESUMABLE_UPLOAD_DIR": "/srv",
        "RESUMABLE_PORT": "tcp://10.43.0.17:8080",
        "RESUMABLE_SERVICE_HOST": "10.43.0.17",
        "RESUMABLE_REMOTE": "s3://b?endpoint=https://h&sse-c-variable=RESUMABLE_SSE_KEY",
        "RESUMABLE_SSE_KEY": "k",
    }
    assert main(["ls", "--url", daemon.url], environ) == 0
    assert capsys.readouterr().err == "resumable: RESUMABLE_IMAGE_TAG is no variable of this server\n"


class Full(io.RawIOBase):
    def __init__(self, error):
        self.error = error

    def writable(self):
        return True

    def fileno(self):
        return 1000

    def write(self, data):
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(28, "No space left on device"), 1, "resumable: standard output: No space left on device\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_an_output_that_can_not_be_written_is_a_line_but_for_a_reader_who_has_enough(
    error, status, said, daemon, capsys, monkeypatch
):
    daemon.answer = lambda *_: (200, {"uploads": [UPLOAD], "next": None})
    forgotten = []
    monkeypatch.setattr("resumable.cli.main.os.dup2", lambda old, new: forgotten.append(new))
    monkeypatch.setattr("resumable.cli.main.sys.stdout", io.TextIOWrapper(io.BufferedWriter(Full(error))))
    assert run(daemon, "ls") == status
    assert (capsys.readouterr().err, forgotten) == (said, [1000])
    monkeypatch.setattr(Full, "write", lambda self, data: len(data))  # or it complains when it is collected


@pytest.mark.parametrize("command", ["ls", "doctor"])
def test_a_working_directory_that_is_gone_is_a_line(command, capsys, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main([command], {}) == 1
    assert capsys.readouterr() == ("", "resumable: the working directory: No such file or directory\n")


def test_without_an_output_nothing_is_done(daemon, capsys, monkeypatch):
    monkeypatch.setattr("resumable.cli.main.sys.stdout", None)
    assert run(daemon, "rm", "--yes", "a") == 1
    assert capsys.readouterr().err == "resumable: there is no standard output to write to\n"
    assert daemon.asked == []


def test_a_name_that_the_terminal_can_not_show_stops_no_list(daemon, monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr("resumable.cli.main.sys.stdout", io.TextIOWrapper(shown, "ascii", write_through=True))
    daemon.answer = pages({"uploads": [{**DONE, "metadata": {"filename": "grün😀"}}], "next": None})
    assert run(daemon, "ls") == 0
    assert shown.getvalue().endswith(b"gr\\xfcn\\U0001f600\n")


@pytest.mark.parametrize("command", [["replay", "h"], ["retry", A], ["retry", "--all", "--remote", "r"]])
def test_a_count_that_is_none_is_not_believed(command, daemon, capsys):
    daemon.answer = lambda *_: (200, {"replayed": "many"})
    assert run(daemon, *command) == 1
    assert "no daemon of this release" in capsys.readouterr().err


def test_documents_that_lack_everything_are_shown_all_the_same(daemon, capsys):
    daemon.answer = pages({"uploads": [{}, {"replicas": 5, "metadata": 5, "length": "x"}], "next": None}, {})
    assert run(daemon, "ls") == 0
    assert run(daemon, "show", A) == 0


def test_who_may_not_is_told_of_the_token(daemon, capsys, tmp_path):
    (tmp_path / "token").write_text("s3cret\n")
    daemon.answer = lambda *_: problem(401, "The admin API needs the token.")
    assert run(daemon, "rm", A, B, "--token-file", str(tmp_path / "token")) == 1
    assert capsys.readouterr().err == "resumable: The admin API needs the token; give --token-file\n"
    assert daemon.tokens == ["Bearer s3cret"]


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff"])
def test_a_token_that_can_not_be_one_is_status_2(content, daemon, capsys, tmp_path):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    assert run(daemon, "ls", "--token-file", str(file)) == 2
    assert capsys.readouterr().err.startswith(f"resumable: --token-file {file}: ")
    assert daemon.asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["show"],
        ["show", "a", "b"],
        ["rm"],
        ["retry"],
        ["retry", "--all"],
        ["retry", "--all", "--remote", "r", "a"],
        ["replay"],
        ["hooks", "dead"],
        ["hooks", "replay"],
        ["hooks", "bury", "far"],
        ["ls", "--watch", "--json"],
        ["ls", "--watch", "--all"],
        ["ls", "--watch"],
        ["drain"],
        ["drain", "perhaps"],
        ["ls", "--state", "happy"],
        ["ls", "--older-than", "yesterday"],
        ["ls", "--min-size", "big"],
        ["ls", "--limit", "0"],
        ["ls", "--bogus"],
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_line_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments, {})
    assert end.value.code == 2
    out, said = capsys.readouterr()
    assert (out, said.count("\n")) == ("", 1)
    assert said.endswith("--help\n")


def test_an_interrupt_is_quiet(daemon, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "Table", interrupted)
    assert run(daemon, "ls") == 130
    assert capsys.readouterr() == ("", "")
