"""Rows that fit a terminal, and the table that is drawn again and again."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from resumable.cli import commands, watching
from resumable.cli.main import main
from resumable.cli.rows import Speeds, Table, Totals
from resumable.cli.texts import cells, cut, padded, short_ids
from tests.cli.stand_in import StandIn, problem

A, B = "ab12cd34" + "0" * 24, "ab12cd35" + "0" * 24
MIB = 1 << 20
FILM = {
    "id": A,
    "state": "uploading",
    "length": 4 * MIB,
    "offset": MIB,
    "received": MIB,
    "touched_at": None,
    "appending": True,
    "owner": "alice@example.com",
    "metadata": {"filename": "a film with a very long name, which says what it is about at its end: cats.mp4"},
    "replicas": [{"remote": "s3://bucket/uploads", "state": "open"}],
}
WIDE = {**FILM, "id": B, "appending": False, "metadata": {"filename": "映画" * 30 + ".mp4"}}
TEXTS = st.text(st.characters(exclude_categories=["C", "Z", "M"]), max_size=40)


# Texts


@given(TEXTS, st.integers(0, 50))
def test_a_text_that_is_cut_is_never_wider_and_keeps_both_ends(text, most):
    short = cut(text, most)
    assert cell_len(short) <= max(most, 0)
    if cell_len(text) <= most:
        assert short == text
    elif most > 0:
        head, _, tail = short.partition("…")
        assert text.startswith(head) and text.endswith(tail)


@given(TEXTS, st.integers(0, 50))
def test_a_padded_text_is_as_wide_as_that(text, width):
    assert cells(padded(text, width)) == max(width, cell_len(text))


def test_a_name_is_cut_in_the_middle():
    assert cut("holiday-in-the-mountains.jpg", 15) == "holiday…ins.jpg"


def test_short_ids_are_as_long_as_it_takes_to_tell_them_apart():
    assert short_ids([A, B, "ffff0000" + "1" * 24]) == ["ab12cd34", "ab12cd35", "ffff0000"]
    assert short_ids(["ab12cd34ef01", "ab12cd34ee02"]) == ["ab12cd34ef", "ab12cd34ee"]
    assert short_ids([A, A]) == [A[:8]] * 2
    assert short_ids([]) == []


# Rows


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 100, 140])
def test_no_row_is_wider_than_the_terminal(width):
    lines = list(Table(0.0, width, full_ids=False).lines([FILM, WIDE]))
    assert len(lines) == 3 and max(map(cell_len, lines)) <= width
    assert [line.split()[0] for line in lines] == ["ID", "ab12cd34", "ab12cd35"]


def test_a_row_has_all_columns_where_there_is_room_and_the_name_gives_way_first():
    headings, film, _ = Table(0.0, 110, full_ids=False).lines([FILM, WIDE])
    assert headings.split() == ["ID", "STATE", "SIZE", "DONE", "IDLE", "REMOTES", "OWNER", "NAME"]
    assert "s3://bucket/uploads:open" in film and "alice@example.com" in film and film.endswith("ts.mp4")


def test_a_column_never_gets_narrower_with_the_pages():
    table = Table(0.0, 200, full_ids=False)
    first, second = list(table.lines([FILM])), list(table.lines([{**FILM, "owner": "b"}]))
    assert len(second) == 1 and second[0].index("a film") == first[0].index("NAME") == first[1].index("a film")


def test_totals_say_how_many_how_large_and_how_much_is_there():
    totals = Totals()
    assert str(totals) == "0 uploads"
    totals.add([FILM])
    assert str(totals) == "1 upload, 4 MiB, 1 MiB done (25%)"
    totals.add([{**FILM, "length": None, "offset": 2 * MIB}, {}])
    assert str(totals) == "3 uploads, 6 MiB, 3 MiB done (50%)"


def test_a_speed_is_what_came_between_two_looks():
    speeds = Speeds()
    speeds.look([FILM], 10.0)
    assert speeds.of(FILM) is None
    later = {**FILM, "received": 3 * MIB}
    speeds.look([later, WIDE], 12.0)
    assert speeds.of(later) == MIB and speeds.of(WIDE) is None
    speeds.look([FILM], 13.0)
    assert speeds.of(FILM) == 0, "a server that was started again may know less"


# ls in a terminal


@pytest.fixture
def daemon():
    with StandIn(lambda *_: (200, {"uploads": [FILM, WIDE], "next": None})).serving() as stand_in:
        yield stand_in


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(commands, "in_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "90")


def test_in_a_terminal_ids_are_short_rows_fit_and_the_last_line_has_the_totals(daemon, terminal, capsys):
    assert main(["ls", "--url", daemon.url], {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= 90 and lines[1].startswith("ab12cd34  uploading*")
    assert lines[-1] == "2 uploads, 8 MiB, 2 MiB done (25%)"
    assert main(["ls", "--full-id", "--url", daemon.url], {}) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{A}  uploading*")


def test_json_is_the_same_in_a_terminal(daemon, terminal, capsys):
    assert main(["ls", "--json", "--url", daemon.url], {}) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2 and A in out and "done" not in out


def test_an_empty_list_says_so_in_a_terminal(daemon, terminal, capsys):
    daemon.answer = lambda *_: (200, {"uploads": [], "next": None})
    assert main(["ls", "--url", daemon.url], {}) == 0
    assert capsys.readouterr().out == "0 uploads\n"


# ls --watch


class Screen(Console):
    """So large, and drawn into memory."""

    def __init__(self, **options):
        super().__init__(file=io.StringIO(), width=100, height=6, force_terminal=True, legacy_windows=False, **options)


@pytest.fixture
def watched(daemon, terminal, monkeypatch):
    """Runs the command; the answers to its looks, the last of which ends it. What was drawn, look by look."""

    def run(*answers, flags=()):
        drawn, waiting = [], list(answers)
        daemon.answer = lambda *_: waiting.pop(0)

        def rest(seconds):
            if not waiting:
                raise KeyboardInterrupt

        monkeypatch.setattr(watching, "sleep", rest)
        monkeypatch.setattr(watching, "Console", Screen)
        draw = watching.Picture.drawn
        monkeypatch.setattr(watching.Picture, "drawn", lambda self: drawn.append(draw(self)) or drawn[-1])
        assert main(["ls", "--watch", *flags, "--url", daemon.url], {}) == 130
        return [each.plain.splitlines() for each in drawn]

    return run


def page(*uploads, following=None):
    return 200, {"uploads": list(uploads), "next": following}


def test_a_watched_list_shows_speeds_from_the_second_look_on(watched, daemon, monkeypatch):
    seconds = iter(range(100))
    monkeypatch.setattr(watching, "monotonic", lambda: float(next(seconds)))
    first, second = watched(page(FILM, WIDE), page({**FILM, "received": 3 * MIB}, WIDE))
    assert "SPEED" in first[0] and "/s" not in first[1]
    assert "MiB/s" in second[1] and "MiB/s" in second[-1]
    assert second[-1].startswith("2 uploads, 8 MiB, 2 MiB done (25%)")
    assert daemon.asked[0][2] == {"limit": "100", "order": "newest"}


def test_a_watched_list_is_no_larger_than_the_terminal_and_begins_with_what_moves(watched):
    resting = [{**WIDE, "id": f"{number:032}"} for number in range(20)]
    drawn = watched(page(*resting, FILM), page(*resting, FILM, following="p1"), page(), flags=["--limit", "21"])
    assert len(drawn[0]) == len(drawn[1]) == 6, "headings, three rows, a blank line, the totals"
    assert drawn[0][1].startswith("ab12cd34 ") and "uploading*" in drawn[0][1]
    assert "18 not shown" in drawn[0][-1] and "of more" in drawn[1][-1]


def test_a_daemon_that_is_started_again_is_watched_on(watched):
    first, old, again = watched(page(FILM), (200, b"nothing"), page(FILM))
    assert old[:-1] == first[:-1] and old[-1].startswith("old: what answers at ")
    assert again[-1].startswith("1 upload")


def test_a_first_look_that_fails_is_a_line(daemon, terminal, capsys):
    daemon.answer = lambda *_: problem(400, "remote: there is no remote of that name.")
    assert main(["ls", "--watch", "--url", daemon.url], {}) == 1
    assert capsys.readouterr() == ("", "resumable: remote: there is no remote of that name\n")
